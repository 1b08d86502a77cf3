"""The lines of a model's requirements, and which of them lead to files of this machine, read as uv reads them.

uv looks for a file that a line includes, and for a directory of `--find-links`, beside the file that has the line, and
for everything else from where it is started, which is the model directory. What lies there is no matter of this file.
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

from . import ordinary
from .errors import ConfigError
from .spec import ModelSpec

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ENCODINGS = (  # those with longer marks first, for one begins as another does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
DEFAULT = "requirements.txt"
MOST = 200  # files that requirements include
MOST_LINES = 50_000  # of a file of requirements: with the sums of all wheels, hundreds of packages have as many
ARCHIVE = re.compile(r"\.(whl|zip|tgz|tbz|tlz|txz|tar(\.\w+)?)$", re.IGNORECASE)  # a file, though it could be a name
Kind = Literal["requirements", "constraints", "editable", "links", "built"]
_OPTION = re.compile(
    r"\s*+(-r|--requirements?|-c|--constraints?|-e|--editable|-f|--find-links)(?:\s*+=\s*+|\s++|(?=[^\s=-]))"
)
_KINDS: Mapping[str, Kind] = {"r": "requirements", "c": "constraints", "e": "editable", "f": "links"}
# No pattern tries a run of blanks or brackets from every place in it: that takes minutes in a line of a megabyte.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*+\s*+(?:\[[^\]]*+\]\s*+)?@\s*+")
_AFTER = re.compile(r"(?<!\s)\s++(?:;|--)")
_EXTRAS = re.compile(r"\[[^\[\]]*+\]$")


class Local(NamedTuple):
    """A place on this machine that a line leads to, with what is before it, its extras and fragment, what is after."""

    kind: Kind
    path: Path
    head: str = ""
    rest: str = ""
    tail: str = ""


def requirements_of(spec: ModelSpec) -> list[str]:
    """The lines of the model's requirements, from config.yaml or the file it names, or the one beside a model.py.

    Raises:
        ConfigError: the file is not there, or of a kind that has no lines.
    """
    config = spec.config
    if name := config.get("requirements_file") or implied_file(spec):
        path = spec.root / str(name)
        if not os.path.isfile(path):
            raise ConfigError(f"{path}: requirements_file does not exist")
        if path.name in ("pyproject.toml", "uv.lock"):
            return [str(line) for line in _pyproject_dependencies(path.with_name("pyproject.toml"))]
        return lines_of(path)
    return [str(line) for line in config.get("requirements") or []]


def implied_file(spec: ModelSpec) -> str | None:
    """The requirements.txt beside a model.py whose config.yaml, if any, speaks of none. A Truss names its own."""
    if spec.format != "python" or spec.config.get("requirements") or spec.config.get("requirements_file"):
        return None
    return DEFAULT if (spec.root / DEFAULT).is_file() else None


def is_unread(spec: ModelSpec) -> bool:
    """Whether a requirements.txt lies there, and the model takes its requirements from elsewhere, or nowhere."""
    named = spec.config.get("requirements_file") or implied_file(spec)
    return spec.own_code and not named and (spec.root / DEFAULT).is_file()


def lines_of(path: Path) -> list[str]:
    """The lines of a file of requirements, in the encoding that it begins with, as pip reads it.

    Raises:
        ConfigError: it is in another one, cannot be read, or has more lines than anybody writes.
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
        raise ConfigError(f"{path}: more than the {MOST_LINES} lines that are read of a file of requirements")
    return lines


def parsed(line: str) -> Requirement:
    """The line as `packaging` reads it. Raises `InvalidRequirement`, also for one that nobody could read."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line)
    except RecursionError as error:
        raise InvalidRequirement("it is nested too deeply") from error


def place_of(spec: ModelSpec) -> Path:
    """Where the files lie that the model's lines include: beside the file that has the lines."""
    return (spec.root / str(spec.config.get("requirements_file") or DEFAULT)).resolve().parent


def is_of_an_index(line: str) -> bool:
    """A line that means the same whoever has it: a name, maybe with versions. What else it may be, uv knows."""
    from packaging.requirements import InvalidRequirement

    try:
        wanted = parsed(line.partition(" #")[0].strip())
        return wanted.url is None and not ARCHIVE.search(wanted.name)
    except InvalidRequirement:
        return not line.partition("#")[0].strip()


def read(
    lines: Iterable[str], start: Path, beside: Path, variables: Mapping[str, str], known: set[Path] | None = None
) -> Iterator[tuple[str, Local | None]]:
    """Every line with the place that it leads to; after the first that includes a file, those in there.

    `start` is where uv is started, `beside` where the file of the lines lies, and `variables` are uv's. Raises
    `ConfigError` for a file that is there and cannot be read, and for more files than anybody writes.
    """
    known = set() if known is None else known
    for line in lines:
        found = local(line, start, beside, variables)
        yield line, found
        if (
            found is not None
            and found.kind in ("requirements", "constraints")
            and os.path.isfile(found.path)
            and found.path not in known
        ):
            known.add(found.path)
            if len(known) > MOST:
                raise ConfigError(f"{found.path}: requirements include more than {MOST} files")
            yield from read(lines_of(found.path), start, found.path.parent, variables, known)


def local(line: str, start: Path, beside: Path, variables: Mapping[str, str]) -> Local | None:
    """Where the line leads to, whether or not something is there; None for a name, an address and other options."""
    text = re.split(r"\s#", line, maxsplit=1)[0].strip()
    option = _OPTION.match(text)
    kind: Kind = _KINDS[option[1].lstrip("-")[0]] if option else "built"
    text = text[option.end() :] if option else text
    if kind in ("requirements", "constraints"):
        named = _expanded(text, start, variables).strip().strip("'\"")
        if re.match(r"\w+://", named) and not named.startswith("file:"):
            return None
        return Local(kind, _path(named, beside))
    name = _NAME.match(text)
    head = name[0] if name else ""
    written = _AFTER.split(text[len(head) :], maxsplit=1)[0].strip()
    tail = text[len(head) + len(written) :]
    named = _expanded(written, start, variables)
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


def _expanded(text: str, start: Path, variables: Mapping[str, str]) -> str:
    known = {**variables, "PROJECT_ROOT": str(start)}
    return re.sub(r"\$\{([A-Z0-9_]+)\}", lambda found: known.get(found[1], found[0]), text)


def _path(named: str, base: Path) -> Path:
    if named.startswith("file:"):
        named = unquote(re.sub(r"^file:(//(localhost(?=/))?)?", "", named))
    return Path(os.path.normpath(base / named))


def _pyproject_dependencies(path: Path) -> list[Any]:
    try:
        return list(tomllib.loads(ordinary.content(path).decode("utf-8-sig"))["project"].get("dependencies", []))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: no [project] dependencies: {error}") from error
