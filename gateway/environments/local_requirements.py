"""Read the requirement lines of a model as uv does, and find those that lead to local files.

uv resolves an included file, and a directory of `--find-links`, relative to the file with the line, and all other paths
relative to its working directory, which is the model directory. The content of these paths is not examined here.
"""

from __future__ import annotations

import codecs
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import unquote

from ..errors import ConfigError
from ..files import ordinary
from ..spec import ModelSpec

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ENCODINGS = (  # longer marks first, because some begin like shorter ones
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
DEFAULT = "requirements.txt"
MOST = 200  # files that requirements include
MOST_LINES = 50_000  # lines of a requirements file: with checksums of all wheels, hundreds of packages need as many
ARCHIVE = re.compile(r"\.(whl|zip|tgz|tbz|tlz|txz|tar(\.\w+)?)$", re.IGNORECASE)  # a file, although it could be a name
Kind = Literal["requirements", "constraints", "editable", "links", "built"]
_OPTION = re.compile(
    r"\s*+(-r|--requirements?|-c|--constraints?|-e|--editable|-f|--find-links)(?:\s*+=\s*+|\s++|(?=[^\s=-]))"
)
_KINDS: Mapping[str, Kind] = {"r": "requirements", "c": "constraints", "e": "editable", "f": "links"}
# No pattern backtracks over runs of blanks or brackets: that would take minutes for a line of a megabyte.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*+\s*+(?:\[[^\]]*+\]\s*+)?@\s*+")
_AFTER = re.compile(r"(?<!\s)\s++(?:;|--)")
_EXTRAS = re.compile(r"\[[^\[\]]*+\]$")


class Local(NamedTuple):
    """A local path in a line, with the text before it, its extras and fragment, and the text after it."""

    kind: Kind
    path: Path
    head: str = ""
    rest: str = ""
    tail: str = ""


def requirements_of(spec: ModelSpec) -> list[str]:
    """Return the model's requirement lines, from config.yaml, the file it names, or the one next to a model.py.

    Raises:
        ConfigError: the file does not exist, or cannot be read.
    """
    config = spec.config
    if name := config.get("requirements_file") or implied_file(spec):
        path = spec.root / str(name)
        if not os.path.isfile(path):
            raise ConfigError(f"{path}: requirements_file does not exist")
        if path.name in ("pyproject.toml", "uv.lock"):
            return _lines_in(_pyproject_dependencies(path.with_name("pyproject.toml")))
        return lines_of(path)
    return _lines_in(config.get("requirements") or [])


def implied_file(spec: ModelSpec) -> str | None:
    """Return "requirements.txt" if it is next to a model.py and config.yaml has no requirements; None for a Truss."""
    if spec.format != "python" or spec.config.get("requirements") or spec.config.get("requirements_file"):
        return None
    return DEFAULT if (spec.root / DEFAULT).is_file() else None


def is_unread(spec: ModelSpec) -> bool:
    """Return whether there is a requirements.txt that the model does not use."""
    named = spec.config.get("requirements_file") or implied_file(spec)
    return spec.own_code and not named and (spec.root / DEFAULT).is_file()


def lines_of(path: Path) -> list[str]:
    """Return the lines of a requirements file, in the encoding of its byte order mark, as pip reads it.

    Raises:
        ConfigError: the encoding is wrong, the file cannot be read, or it has too many lines.
    """
    try:
        raw = ordinary.content(path)
        encoding = next((name for mark, name in ENCODINGS if raw.startswith(mark)), "utf-8")
        lines = raw.decode(encoding).splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: it is not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(lines) > MOST_LINES:
        raise ConfigError(f"{path}: more than {MOST_LINES} lines, too many for a requirements file")
    return lines


def parsed(line: str) -> Requirement:
    """Return the line parsed by `packaging`. Raises `InvalidRequirement`, also for lines that are nested too deeply."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line)
    except RecursionError as error:
        raise InvalidRequirement("it is nested too deeply") from error


def place_of(spec: ModelSpec) -> Path:
    """Return the directory of the files that the model's lines include: that of the file with the lines."""
    return (spec.root / str(spec.config.get("requirements_file") or DEFAULT)).resolve().parent


def is_of_an_index(line: str) -> bool:
    """Return whether a line means the same for every model: a name, perhaps with versions. uv interprets all others."""
    from packaging.requirements import InvalidRequirement

    try:
        wanted = parsed(line.partition(" #")[0].strip())
        return wanted.url is None and not ARCHIVE.search(wanted.name)
    except InvalidRequirement:
        return not line.partition("#")[0].strip()


class Included:
    """The files that lines include, each as it was first read."""

    def __init__(self) -> None:
        self._lines: dict[Path, list[str] | None] = {}

    def lines_of(self, path: Path) -> list[str] | None:
        """Return the lines, None without a file. Raises `ConfigError` as `lines_of` does, and for too many files."""
        if path not in self._lines:
            self._lines[path] = lines_of(path) if os.path.isfile(path) else None
            if len(self._lines) > MOST:
                raise ConfigError(f"{path}: requirements include more than {MOST} files")
        return self._lines[path]


def read(
    lines: Iterable[str],
    start: Path,
    beside: Path,
    variables: Mapping[str, str],
    included: Included,
    known: set[Path] | None = None,
) -> Iterator[tuple[str, Local | None]]:
    """Yield every line with the path that it leads to; the lines of an included file follow the first line that
    includes it.

    `start` is uv's working directory, `beside` the directory of the file with the lines, and `variables` are uv's.
    Raises `ConfigError` for a file that cannot be read, and for too many files.
    """
    known = set() if known is None else known
    for line in lines:
        found = local(line, start, beside, variables)
        yield line, found
        if found is not None and found.kind in ("requirements", "constraints") and found.path not in known:
            known.add(found.path)
            inner = included.lines_of(found.path)
            yield from read(inner or (), start, found.path.parent, variables, included, known)


def local(line: str, start: Path, beside: Path, variables: Mapping[str, str]) -> Local | None:
    """Return the path that the line leads to, whether or not it exists; None for names, addresses and other options."""
    text = re.split(r"\s#", line, maxsplit=1)[0].strip()
    option = _OPTION.match(text)
    kind: Kind = _KINDS[option[1].lstrip("-")[0]] if option else "built"
    text = text[option.end() :] if option else text
    if kind in ("requirements", "constraints"):
        named = expanded(text, start, variables).strip().strip("'\"")
        if re.match(r"\w+://", named) and not named.startswith("file:"):
            return None
        return Local(kind, _path(named, beside))
    name = _NAME.match(text)
    head = name[0] if name else ""
    written = _AFTER.split(text[len(head) :], maxsplit=1)[0].strip()
    tail = text[len(head) + len(written) :]
    named = expanded(written, start, variables)
    if not named or named.startswith("-") or re.match(r"(?!file:)[\w+.-]+:", named):
        return None
    if not (option or name or "/" in named or named.startswith((".", "file:")) or ARCHIVE.search(named)):
        return None
    place, mark, rest = named.partition("#")
    extras = _EXTRAS.search(place)
    if extras:
        place = place[: extras.start()]
    return Local(
        kind,
        _path(place, beside if kind == "links" else start),
        head,
        (extras[0] if extras else "") + mark + rest,
        tail,
    )


def expanded(text: str, start: Path, variables: Mapping[str, str]) -> str:
    """Return the text with variables expanded as uv, started in `start`, does."""
    known = {"PROJECT_ROOT": str(start), **variables}
    return re.sub(r"\$\{([A-Z0-9_]+)\}", lambda found: known.get(found[1], found[0]), text)


def _lines_in(items: Iterable[Any]) -> list[str]:
    """Split items with several lines: uv takes each line separately."""
    return [line for item in items for line in str(item).splitlines()]


def _path(named: str, base: Path) -> Path:
    if named.startswith("file:"):
        named = unquote(re.sub(r"^file:(//(localhost(?=/))?)?", "", named))
    return Path(os.path.normpath(base / named))


def _pyproject_dependencies(path: Path) -> list[Any]:
    try:
        return list(tomllib.loads(ordinary.content(path).decode("utf-8-sig"))["project"].get("dependencies", []))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: no [project] dependencies: {error}") from error
