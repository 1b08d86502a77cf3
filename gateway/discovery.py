"""Model roots → the models in them, and what is wrong with the rest.

Reads names and small files. Imports no code of a model and starts nothing; one bad directory never stops the others.

1. A root that is itself a model is one model.  2. Its directories are asked for by name, hidden and empty ones
   skipped, and those that installers fill; so are the blobs of a cache of Hugging Face, whose snapshots name them.
3. A directory that a format claims is a leaf; models below files that were dropped beside them are told of, and are
   served where the files make no model. So are the files of other models beside those that make it one.
4. Others are searched, four levels deep.
5. Of two models with one id the first is served, in the order of the roots, and both are named.
6. A directory that holds a model which nobody serves is told of, with what would serve it; beside directories of models
   so is a file that is nothing but a model, unless one of them names it. Below it those are served that are whole
   and none of its parts.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from . import ordinary
from .alike import first_of_each_kind
from .errors import ConfigError
from .formats.describe import complete
from .formats.unserved import find_loose, find_unserved, loose_classes
from .formats.unserved_below import is_apart, named_parts
from .formats.unserved_beside import is_another_model, other_weights, unfinished_beside
from .formats.unserved_files import TOO_DEEP, UNSERVED, Unserved
from .patterns import is_pattern, tables_of
from .spec import INVALID, ModelSpec, Problem
from .weights import peek_all_weights
from .wording import addressed, counted, few, table_of, unexpected

if TYPE_CHECKING:
    from .plugins import Plugins
    from .settings import Settings

log = logging.getLogger("gateway.discovery")

MAX_DEPTH = 4
MAX_BELOW = 1000  # directories below one of a root that are looked at and are no models: each takes milliseconds
MAX_LOOKS = 200  # directories deeper than that, of all roots together, that are looked at for a word about them
MOST_OF_A_MODEL = 100  # problems of one kind: what is wrong with its files is bounded kind by kind where it was found
SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_ID = 128
RESERVED = frozenset("v1 v2 predict loaded schema status logs hot-reload".split())  # parts of routes


@dataclass(frozen=True, slots=True)
class Discovery:
    specs: tuple[ModelSpec, ...] = ()
    problems: tuple[Problem, ...] = ()


def discover(roots: Sequence[str | Path], plugins: Plugins, settings: Settings | None = None) -> Discovery:
    """Return the models below `roots`, and a problem for everything there that cannot be served."""
    search = _Search(plugins, settings)
    for root in roots:
        with search.alone(Path(root)):
            search.root(Path(root).expanduser())
    if settings:
        search.unused_tables(settings)
    # of one name with a model that is served elsewhere, a directory is not missed
    problems = (each for each in search.problems if each.code != UNSERVED or each.model not in search.specs)
    return Discovery(tuple(search.specs.values()), tuple(first_of_each_kind(problems, MOST_OF_A_MODEL)))


def id_problem(name: str) -> str | None:
    """Return why `name` cannot be the id of a model, None when it can."""
    if len(name) > MAX_ID:
        return f"the id is longer than {MAX_ID} characters"
    for segment in name.split("/"):
        if not SEGMENT.fullmatch(segment):
            return (
                f"{segment!r} is no name for a model: letters, digits, '.', '_', '-', starting with a letter or digit"
            )
        if segment in RESERVED:
            return f"{segment!r} is part of a route and no name for a model"
    return None


class _Search:
    def __init__(self, plugins: Plugins, settings: Settings | None) -> None:
        self.specs: dict[str, ModelSpec] = {}
        self.problems: list[Problem] = []
        self._plugins = plugins
        self._settings = settings
        self._looks = MAX_LOOKS
        self._left = MAX_BELOW  # of the directory of the root that is searched now
        self._unsearched: Path | None = None  # the last one that this was said of
        self._empty: list[Path] = []  # directories in which nothing is
        self._loose: list[Path] = []  # files with a class Model, beside directories of models

    @contextmanager
    def alone(self, path: Path, name: str | None = None) -> Iterator[None]:
        """A look at one directory: whatever goes wrong is a problem of that directory, and the others are looked at."""
        try:
            yield
        except Exception as error:  # whatever is in it
            log.exception("%s could not be looked at", path)
            what = f"it cannot be looked at ({unexpected(error)})"
            self._problem(path, what, fix="mend or remove what is odd in it", code="unexpected", model=name)

    def root(self, root: Path) -> None:
        if not root.is_dir():
            what = "is not a directory" if root.exists() else "does not exist"
            self._problem(root, f"this model root {what}", fix="name another with --models", code="missing_root")
            return
        before = len(self.specs) + len(self.problems)
        self._look(root, root.resolve().name, "", 0, (root.resolve(),))
        if len(self.specs) + len(self.problems) == before:
            fix = f"gateway new {root / 'my-model'}"
            self._problem(root, "no models here", fix=f"make one: {fix}", code="empty_root", level="warning")
        self._notes(root)

    def _notes(self, root: Path) -> None:
        """What lies in a root and is no model yet: a line for each kind, and none for the root itself."""
        if empty := [os.path.relpath(path, root) for path in self._empty if path != root]:
            what = f"{counted(len(empty), 'empty directory', 'empty directories')}: {few(empty)}"
            fix = f"gateway new {root / empty[0]} makes a model there"
            self._problem(root, what, fix=fix, code="empty_directory", level="note")
        if self._loose:
            names = [os.path.relpath(path, root) for path in self._loose]
            first = self._loose[0]
            into = first.with_suffix("")
            move = f"mkdir -p {quote(str(into))} && mv {quote(str(first))} {quote(str(into / 'model.py'))}"
            what = f"a class Model in a file beside directories of models: {few(names)}"
            self._problem(root, what, fix=f"a model is a directory: {move}", code="loose_file", level="note")
        self._empty, self._loose = [], []

    def unused_tables(self, settings: Settings) -> None:
        """A [models.NAME] table for no model is a typing error, or a model that went away."""
        broken = {problem.model for problem in self.problems}
        for name in settings.models:
            if is_pattern(name) and any(name in tables_of(model, (name,)) for model in (*self.specs, *broken) if model):
                continue
            if name not in self.specs and name not in broken:
                where = settings.table_origin(name)
                failed = (problem.model for problem in self.problems if problem.level == "error" and problem.model)
                meant = dict.fromkeys([*self.specs, *failed])
                have = f"have: {', '.join(meant)}" if meant else "there are no models"
                self._problem(Path(where), f"{table_of(name)}: no model named {name!r} ({have})", code="unused_table")

    def _children(
        self,
        directory: Path,
        prefix: str,
        depth: int,
        above: tuple[Path, ...],
        *,
        parts: frozenset[str] = frozenset(),
    ) -> None:
        """What is in the directory, but in its `parts`."""
        for child in self._children_of(directory):
            if child.name in parts:
                continue
            name = prefix + child.name
            with self.alone(child, name):
                if not self._is_directory(child):
                    continue
                if depth == 1:
                    self._left = MAX_BELOW
                elif self._left <= 0:
                    self._say_unsearched(child, depth)
                    return
                real = child.resolve()
                # a link to a directory above it would go round for ever
                self._look(child, name, f"{name}/", depth if real not in above else MAX_DEPTH + 1, (*above, real))

    def _look(self, path: Path, name: str, prefix: str, depth: int, above: tuple[Path, ...]) -> None:
        """One directory, and those in it when it is nobody's."""
        before, known = len(self.specs), len(self.problems)
        if depth and _has_nothing(path):
            self._empty.append(path)
            return
        allows = bool(self._settings and self._settings.overrides(name).get("allow_links"))
        with ordinary.within(path, allows):
            if self._claimed(path, name):
                spec = self.specs[name] if len(self.specs) > before else None
                self._beside(path, spec, known)
                self._below(path, prefix, depth, above, spec=spec)
                return
            self._left -= 1
            unserved = find_unserved(path)
            whole = unserved if unserved is not None and unserved.is_sure else None
            parts = named_parts(path, whole) if whole else frozenset[str]()
        served, told, empty = len(self.specs), len(self.problems), len(self._empty)
        if depth < MAX_DEPTH:
            self._children(path, prefix, depth + 1, above, parts=parts)
        found = dict(list(self.specs.items())[served:])
        if whole is not None and not (whole.is_whole and found and not depth):  # a root may hold anything
            roots = [spec.root for spec in found.values()]
            with ordinary.within(path, allow_links=allows):
                self.problems[told:] = [each for each in self.problems[told:] if _is_apart(each, path, whole, roots)]
            del self._empty[empty:]
        elif unserved is not None and unserved.tells_depth and not found and self._all_are_deep(told):
            del self.problems[told:]  # which it says better
        is_alone = whole is not None or not (found or len(self.problems) > told)
        if not is_alone:  # what lies beside the directories of models is no model, but for files that are nothing else
            with ordinary.within(path, allow_links=False):
                unserved = find_loose(path, [spec.root for spec in found.values()])
                self._loose += loose_classes(path)
        elif unserved is None and _is_empty(path):
            self._empty.append(path)
        if unserved is not None:
            model = name if is_alone and name not in found else None
            self._problem(path, unserved.what, fix=unserved.fix, code=UNSERVED, level="warning", model=model)
        if depth != MAX_DEPTH or (unserved is not None and (whole is None or whole.is_whole)):
            return
        if (deep := self._deeper(path, only_models=whole is not None)) is not None:
            what = f"what may be a model lies deeper than the {MAX_DEPTH} levels that are searched: {deep}"
            fix = f"make a directory above it a root of its own: --models {path}"
            self._problem(path, what, fix=fix, code=TOO_DEEP, level="warning")

    def _all_are_deep(self, told: int) -> bool:
        return all(problem.code == TOO_DEEP for problem in self.problems[told:])

    def _say_unsearched(self, path: Path, depth: int) -> None:
        """Once for each directory of a root, in whatever depth in it the last one was that is looked at."""
        top = path.parents[depth - 2]
        if self._unsearched == top:
            return
        self._unsearched = top
        what = f"more than {MAX_BELOW} directories below it are no models: those from {os.path.relpath(path, top)} on"
        fix = f"a directory of models alone can be a root of its own: --models {quote(str(path.parent))}"
        self._problem(top, f"{what} are not searched", fix=fix, code="not_searched", level="warning")

    def _deeper(self, path: Path, *, only_models: bool) -> str | None:
        """A directory below the last ones that are searched which would be told of, as far as few looks find it.

        With `only_models` one that would be served: what else lies below a model may be its part.
        """
        for place, names, _ in os.walk(path):
            here = Path(place)
            names[:] = sorted(n for n in names if not n.startswith((".", "__")) and not _is_installed(here / n))
            if place == str(path):
                continue
            self._looks -= 1
            if self._looks < 0:
                return None
            inner = _Search(self._plugins, self._settings)
            inner._look(here, "deeper", "", MAX_DEPTH + 1, ())
            if inner.specs or (inner.problems and not only_models):
                return os.path.relpath(place, path)
        return None

    def _beside(self, path: Path, spec: ModelSpec | None, known: int) -> None:
        """The files of other models in a directory whose files alone make it one, or would if they were whole."""
        faults = [problem.what for problem in self.problems[known:] if problem.code == INVALID]
        if _is_meant(path) or (spec is None and not faults):
            return
        said = "\n".join((*spec.notes, *spec.asides) if spec else faults)  # which its own plugin says better
        if spec and (half := [name for name in unfinished_beside(path) if name not in said]):
            fix = "get them again, or delete them"
            self._problem(
                path, f"downloads that are not finished: {few(half)}", fix=fix, code="passed_over", level="note"
            )
        others = other_weights(path, spec.format if spec else None, " ".join(faults))
        if not (others := [name for name in others if spec is None or name not in said]):
            return
        makes = f"its files make it one model of {spec.format}" if spec else "it is broken, and holds one model at most"
        what = f"{makes}, so that these are passed over: {few(others)}"
        fix = "move what is to be served into a directory of its own"
        # beside what serves they are no fault; a broken one may be so because of them
        self._problem(path, what, fix=fix, code="passed_over", level="note" if spec else "warning")

    def _below(self, path: Path, prefix: str, depth: int, above: tuple[Path, ...], *, spec: ModelSpec | None) -> None:
        """The models in a directory that became one by its files alone, a GGUF dropped beside them for example.

        What lies in the directory of code is the code's own, and so is what its config.yaml names.
        """
        is_meant = _is_meant(path)
        if depth >= MAX_DEPTH or (is_meant and (spec is None or spec.own_code)):
            return
        inner = _Search(self._plugins, self._settings)
        inner._children(path, prefix, depth + 1, above)
        named = [place.resolve() for place in peek_all_weights(path)] if is_meant else []
        others = [
            name for name, found in inner.specs.items() if not any(_is_part(found.root, place) for place in named)
        ]
        if others and spec is None:  # a fault of the files stops no other model
            self._children(path, prefix, depth + 1, above)
        if spec is None:
            return
        for each in inner.problems:  # those that nobody serves
            place = Path(each.where)
            if each.code == UNSERVED and each.model and is_another_model(place, path):
                others += () if any(_is_part(place, one) for one in named) else (f"{each.model} ({each.what})",)
        if not others:
            return
        listed = few(others)
        makes = "its config.yaml makes" if is_meant else "its files make"
        what = f"{makes} it one model, so that those in its directories are passed over: {listed}"
        fix = f"move {'config.yaml and what it names' if is_meant else 'the files'} into a directory of their own"
        self._problem(path, what, fix=fix, code="passed_over", level="warning")

    def _children_of(self, directory: Path) -> Iterator[Path]:
        try:
            children = sorted(directory.iterdir())
        except OSError as error:
            self._problem(directory, f"cannot be read: {error.strerror}", code="unreadable_directory")
            return
        if directory.resolve().name.startswith("models--"):
            children = [child for child in children if child.name not in ("blobs", "refs")]
        yield from (child for child in children if not (child.name.startswith((".", "__")) or _is_installed(child)))

    def _is_directory(self, child: Path) -> bool:
        if child.is_symlink() and not os.path.exists(child):
            what = f"a link to {child.readlink()}, where nothing is"
            self._problem(child, what, fix="mend or remove it", code="dangling_link", level="warning")
            return False
        return child.is_dir()

    def _claimed(self, path: Path, name: str) -> bool:
        """Ask the formats for one directory; whether one of them took it, well or broken."""
        overrides = self._settings.overrides(name) if self._settings else {}
        try:
            spec = self._plugins.find_model(path, overrides)
            if spec is None:
                return False
            spec = complete(spec, overrides)
        except ConfigError as error:
            self._broken(path, name, str(error))
            return True
        except Exception as error:  # a plugin's spec that is none: limits of the wrong type, a config that is no dict
            log.exception("the description of %s cannot be used", path)
            self._problem(path, f"its description cannot be used: {type(error).__name__}: {error}", model=name)
            return True
        if what := id_problem(name):
            self._problem(path, what, fix="rename the directory", code="invalid_name", model=name)
        elif other := self.specs.get(name):
            what = f"the model {name} is served from {other.root}; this directory has the same id"
            self._problem(path, what, fix="rename one of them", code="duplicate_name", model=name)
        else:
            self.specs[name] = replace(spec, name=name, root=spec.root.absolute())
        return True

    def _broken(self, path: Path, name: str, text: str) -> None:
        """One problem a line; a line that begins with a place in the directory keeps it."""
        for line in text.splitlines():
            match = re.match(rf"({re.escape(str(path))}(?:/[^:]*)?(?::\d+)?): |({re.escape(str(path))}) ", line)
            where = match[1] or match[2] if match else str(path)
            self._problem(Path(where), line[match.end() :] if match else line, model=name)

    def _problem(self, path: Path, what: str, **details: Any) -> None:
        what = addressed(what, details.get("model"))
        self.problems.append(Problem(where=_printable(str(path)), what=_printable(what), **details))


def _is_meant(path: Path) -> bool:
    """Whether the directory says itself that it is one model."""
    return any((path / file).exists() for file in ("config.yaml", "config.yml", "model.py"))


def _is_apart(problem: Problem, path: Path, whole: Unserved, served: Sequence[Path]) -> bool:
    """Whether a problem below a model that nobody serves is of something that is no part of it."""
    place = Path(re.sub(r":\d+$", "", problem.where))
    if not place.is_relative_to(path) or _is_below_meant(problem, path):  # a name that cannot be printed is another
        return True
    if any(place.absolute().is_relative_to(root) for root in served):
        return True
    if whole.is_whole or (problem.code == "dangling_link" and place.parent == path):  # its own file, of which it tells
        return False
    return is_apart(place, path, is_broken=problem.code not in (UNSERVED, TOO_DEEP))


def _is_below_meant(problem: Problem, root: Path) -> bool:
    """Whether it is of a directory below `root` that says itself that it is one model."""
    place = Path(re.sub(r":\d+$", "", problem.where))
    return any(_is_meant(each) for each in (place, *place.parents) if each != root and each.is_relative_to(root))


def _has_nothing(path: Path) -> bool:
    """Whether there is nothing in it, not even what is hidden: nobody has to be asked whose it is."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _is_empty(path: Path) -> bool:
    try:
        return all(child.name.startswith(".") for child in path.iterdir())
    except OSError:
        return False


def _is_part(directory: Path, place: Path) -> bool:
    """Whether weights at `place` are in a directory, or a directory in them."""
    real = directory.resolve()
    return place.is_relative_to(real) or real.is_relative_to(place)


def _is_installed(directory: Path) -> bool:
    """Packages of Python or of npm, as they lie about in a project: full of what looks like models and is none."""
    inside = (directory / "pyvenv.cfg", directory / "conda-meta")
    return directory.name in ("node_modules", "site-packages") or any(map(os.path.exists, inside))


def _printable(text: str) -> str:
    """A directory may be called anything; its name must not break a line of the log, nor its encoding."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
