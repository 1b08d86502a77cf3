"""Find the models in the model roots, and report what is wrong with everything else.

Reads names and small files. Imports no code of a model and starts nothing. One bad directory never stops the search.

1. A root that is itself a model is one model.  2. The formats are asked about its directories in order of their names.
   Skipped are hidden and empty directories, those filled by package installers, and the blobs of a Hugging Face cache:
   its snapshots link to them.
3. A directory that a format claims is not searched further. If its files alone make it a model, models below it and
   files of other models next to it are reported; models below are served if the files turn out not to be a model.
4. Other directories are searched, four levels deep.
5. Of two models with one id the first is served, in the order of the roots, and both are named.
6. A directory with a model that no plugin serves is reported, with what would serve it. Next to directories of models,
   so is a file that can only be a model, unless one of those directories uses it. Below such a directory only complete
   models are served, not parts of it.
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

from ..errors import ConfigError
from ..files import json_budget, ordinary
from ..settings.patterns import is_pattern, tables_of
from ..spec import INVALID, ModelSpec, Problem
from ..wording import addressed, counted, few, table_of, traceback_of, unexpected
from .describe import complete
from .ids import id_problem
from .repeated_problems import first_of_each_kind
from .unserved.files import TOO_DEEP, UNSERVED, Unserved
from .unserved.other_models import is_another_model, other_weights, unfinished_beside
from .unserved.subdirectories import is_apart, named_parts
from .unserved.unserved import find_loose, find_unserved, loose_classes
from .weights import peek_all_weights

if TYPE_CHECKING:
    from ..plugins import Plugins
    from ..settings.schema import Settings

log = logging.getLogger("gateway.discovery")

MAX_DEPTH = 4
MAX_BELOW = 1000  # directories searched below one directory of a root without finding a model: each takes milliseconds
MAX_LOOKS = 200  # deeper directories, of all roots together, that are examined for a hint about them
MOST_OF_A_MODEL = 100  # problems of one kind; problems of files are also limited by kind where they are found


@dataclass(frozen=True, slots=True)
class Discovery:
    specs: tuple[ModelSpec, ...] = ()
    problems: tuple[Problem, ...] = ()


@json_budget.of_search()
def discover(roots: Sequence[str | Path], plugins: Plugins, settings: Settings | None = None) -> Discovery:
    """Return the models below `roots`, and a problem for everything there that cannot be served."""
    search = _Search(plugins, settings)
    for root in roots:
        with search.alone(Path(root)):
            search.root(Path(root).expanduser())
    if settings:
        search.unused_tables(settings)
    # a directory is no loss if another root serves a model of that name
    problems = (each for each in search.problems if each.code != UNSERVED or each.model not in search.specs)
    return Discovery(tuple(search.specs.values()), tuple(first_of_each_kind(problems, MOST_OF_A_MODEL)))


class _Search:
    def __init__(self, plugins: Plugins, settings: Settings | None) -> None:
        self.specs: dict[str, ModelSpec] = {}
        self.problems: list[Problem] = []
        self._plugins = plugins
        self._settings = settings
        self._looks = MAX_LOOKS
        self._left = MAX_BELOW  # for the directory of the root that is being searched
        self._unsearched: Path | None = None  # the last directory for which this was reported
        self._empty: list[Path] = []  # directories without any files
        self._loose: list[Path] = []  # files with a class Model, next to directories of models

    @contextmanager
    def alone(self, path: Path, name: str | None = None) -> Iterator[None]:
        """Handle one directory: an exception becomes a problem of that directory, and the search continues."""
        try:
            yield
        except Exception as error:  # whatever is in it
            log.error("%s could not be looked at", path, exc_info=traceback_of(error))
            what = f"it cannot be examined ({unexpected(error)})"
            self._problem(path, what, fix="fix or remove the unusual files in it", code="unexpected", model=name)

    def root(self, root: Path) -> None:
        if not root.is_dir():
            what = "is not a directory" if root.exists() else "does not exist"
            self._problem(root, f"this model root {what}", fix="name another with --models", code="missing_root")
            return
        before = len(self.specs) + len(self.problems)
        self._look(root, root.resolve().name, "", 0, (root.resolve(),))
        if len(self.specs) + len(self.problems) == before:
            fix = f"gateway new {root / 'my-model'}"
            self._problem(root, "no models here", fix=f"create one: {fix}", code="empty_root", level="warning")
        self._notes(root)

    def _notes(self, root: Path) -> None:
        """Report empty directories and loose files of a root in a line each; the root itself is not reported."""
        if empty := [os.path.relpath(path, root) for path in self._empty if path != root]:
            what = f"{counted(len(empty), 'empty directory', 'empty directories')}: {few(empty)}"
            fix = f"gateway new {root / empty[0]} creates a model there"
            self._problem(root, what, fix=fix, code="empty_directory", level="note")
        if self._loose:
            names = [os.path.relpath(path, root) for path in self._loose]
            first = self._loose[0]
            into = first.with_suffix("")
            move = f"mkdir -p {quote(str(into))} && mv {quote(str(first))} {quote(str(into / 'model.py'))}"
            what = f"a class Model in a file next to directories of models: {few(names)}"
            self._problem(root, what, fix=f"a model is a directory: {move}", code="loose_file", level="note")
        self._empty, self._loose = [], []

    def unused_tables(self, settings: Settings) -> None:
        """Report [models.NAME] tables without a model: a typing error, or a model that was removed."""
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
        """Search the directories in a directory, except its `parts`."""
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
                # a link to a parent directory would loop forever
                self._look(child, name, f"{name}/", depth if real not in above else MAX_DEPTH + 1, (*above, real))

    @json_budget.of_directory()
    def _look(self, path: Path, name: str, prefix: str, depth: int, above: tuple[Path, ...]) -> None:
        """Examine one directory, and the directories in it if no format claims it."""
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
        if whole is not None and not (whole.is_whole and found and not depth):  # a root may contain anything
            roots = [spec.root for spec in found.values()]
            with ordinary.within(path, allow_links=allows):
                self.problems[told:] = [each for each in self.problems[told:] if _is_apart(each, path, whole, roots)]
            del self._empty[empty:]
        elif unserved is not None and unserved.tells_depth and not found and self._all_are_deep(told):
            del self.problems[told:]  # its own message is better
        is_alone = whole is not None or not (found or len(self.problems) > told)
        if not is_alone:  # next to directories of models, only report files that can only be models
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
            what = f"a possible model is deeper than the {MAX_DEPTH} levels that are searched: {deep}"
            fix = f"use a directory above it as another root: --models {path}"
            self._problem(path, what, fix=fix, code=TOO_DEEP, level="warning")

    def _all_are_deep(self, told: int) -> bool:
        return all(problem.code == TOO_DEEP for problem in self.problems[told:])

    def _say_unsearched(self, path: Path, depth: int) -> None:
        """Report that a directory is not searched further: once per directory of a root, at any depth."""
        top = path.parents[depth - 2]
        if self._unsearched == top:
            return
        self._unsearched = top
        what = f"more than {MAX_BELOW} directories below it are not models: those from {os.path.relpath(path, top)} on"
        fix = f"use a directory of models as another root: --models {quote(str(path.parent))}"
        self._problem(top, f"{what} are not searched", fix=fix, code="not_searched", level="warning")

    def _deeper(self, path: Path, *, only_models: bool) -> str | None:
        """Return a directory below the search depth that would be reported, if a limited number of looks finds one.

        With `only_models`, only one that would be served: other directories below a model may be parts of it.
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
        """Report files of other models in a directory that is a model by its files alone, or would be if intact."""
        faults = [problem.what for problem in self.problems[known:] if problem.code == INVALID]
        if _is_meant(path) or (spec is None and not faults):
            return
        said = "\n".join((*spec.notes, *spec.asides) if spec else faults)  # its own plugin explains these better
        if spec and (half := [name for name in unfinished_beside(path) if name not in said]):
            fix = "download them again, or delete them"
            self._problem(path, f"unfinished downloads: {few(half)}", fix=fix, code="passed_over", level="note")
        others = other_weights(path, spec.format if spec else None, " ".join(faults))
        if not (others := [name for name in others if spec is None or name not in said]):
            return
        makes = f"its files make it one {spec.format} model" if spec else "it is broken and can be only one model"
        what = f"{makes}, so these are ignored: {few(others)}"
        fix = "move each model to be served into its own directory"
        # next to a model that is served they are harmless; a broken model may be broken because of them
        self._problem(path, what, fix=fix, code="passed_over", level="note" if spec else "warning")

    def _below(self, path: Path, prefix: str, depth: int, above: tuple[Path, ...], *, spec: ModelSpec | None) -> None:
        """Report the models below a directory that is a model by its files alone, such as a GGUF file dropped next to
        them.

        Everything below a directory of code belongs to that code, and so does everything that its config.yaml names.
        """
        is_meant = _is_meant(path)
        if depth >= MAX_DEPTH or (is_meant and (spec is None or spec.own_code)):
            return
        inner = _Search(self._plugins, self._settings)
        inner._children(path, prefix, depth + 1, above)
        named = [place.resolve() for place in peek_all_weights(path)] if is_meant else []
        others = [name for name, found in inner.specs.items() if not _is_part(found.root, named)]
        if others and spec is None:  # broken files stop no other model
            self._children(path, prefix, depth + 1, above)
        if spec is None:
            return
        for each in inner.problems:  # models that no plugin serves
            place = Path(each.where)
            if each.code == UNSERVED and each.model and is_another_model(place, path):
                others += () if _is_part(place, named) else (f"{each.model} ({each.what})",)
        if not others:
            return
        listed = few(others)
        makes = "its config.yaml makes" if is_meant else "its files make"
        what = f"{makes} it one model, so the models in its directories are ignored: {listed}"
        fix = f"move {'config.yaml and the files that it names' if is_meant else 'the files'} into their own directory"
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
            what = f"a link to {child.readlink()}, which does not exist"
            self._problem(child, what, fix="fix or remove it", code="dangling_link", level="warning")
            return False
        return child.is_dir()

    def _claimed(self, path: Path, name: str) -> bool:
        """Ask the formats about one directory. Return whether one of them claims it, even if it is broken."""
        overrides = self._settings.overrides(name) if self._settings else {}
        try:
            spec = self._plugins.find_model(path, overrides)
            if spec is None:
                return False
            spec = complete(spec, overrides)
        except ConfigError as error:
            self._broken(path, name, str(error))
            return True
        except Exception as error:  # an invalid spec from a plugin: limits of the wrong type, a config that is no dict
            log.exception("the description of %s cannot be used", path)
            self._problem(path, f"its description cannot be used: {type(error).__name__}: {error}", model=name)
            return True
        if what := id_problem(name):
            self._problem(path, what, fix="rename the directory", code="invalid_name", model=name)
        elif other := self.specs.get(name):
            what = f"the model {name} is already served from {other.root}; this directory has the same id"
            self._problem(path, what, fix="rename one of them", code="duplicate_name", model=name)
        else:
            self.specs[name] = replace(spec, name=name, root=spec.root.absolute())
        return True

    def _broken(self, path: Path, name: str, text: str) -> None:
        """Record one problem per line. A path in the directory at the start of a line becomes its place."""
        for line in text.splitlines():
            match = re.match(rf"({re.escape(str(path))}(?:/[^:]*)?(?::\d+)?): |({re.escape(str(path))}) ", line)
            where = match[1] or match[2] if match else str(path)
            self._problem(Path(where), line[match.end() :] if match else line, model=name)

    def _problem(self, path: Path, what: str, **details: Any) -> None:
        what = addressed(what, details.get("model"))
        self.problems.append(Problem(where=_printable(str(path)), what=_printable(what), **details))


def _is_meant(path: Path) -> bool:
    """Return whether the directory has a file that declares it to be one model."""
    return any((path / file).exists() for file in ("config.yaml", "config.yml", "model.py"))


def _is_apart(problem: Problem, path: Path, whole: Unserved, served: Sequence[Path]) -> bool:
    """Return whether a problem below a model that no plugin serves is about something that is not part of the model."""
    place = Path(re.sub(r":\d+$", "", problem.where))
    if not place.is_relative_to(path) or _is_below_meant(problem, path):  # an unprintable name is changed in `where`
        return True
    if any(place.absolute().is_relative_to(root) for root in served):
        return True
    if whole.is_whole or (problem.code == "dangling_link" and place.parent == path):  # its own file, reported by itself
        return False
    return is_apart(place, path, is_broken=problem.code not in (UNSERVED, TOO_DEEP))


def _is_below_meant(problem: Problem, root: Path) -> bool:
    """Return whether it is about a directory below `root` that declares itself to be one model."""
    place = Path(re.sub(r":\d+$", "", problem.where))
    return any(_is_meant(each) for each in (place, *place.parents) if each != root and each.is_relative_to(root))


def _has_nothing(path: Path) -> bool:
    """Return whether the directory has no entries, not even hidden ones: then no format needs to be asked."""
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


def _is_part(directory: Path, places: Sequence[Path]) -> bool:
    """Return whether weights at one of `places` are inside a directory, or the directory is inside them."""
    real = directory.resolve() if places else directory
    return any(place.is_relative_to(real) or real.is_relative_to(place) for place in places)


def _is_installed(directory: Path) -> bool:
    """Return whether a directory holds installed Python or npm packages: many of their files look like models."""
    inside = (directory / "pyvenv.cfg", directory / "conda-meta")
    return directory.name in ("node_modules", "site-packages") or any(map(os.path.exists, inside))


def _printable(text: str) -> str:
    """Return the text without unprintable characters: directory names must not break log lines or their encoding."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
