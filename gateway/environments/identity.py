"""Compute the key of an environment: environments built from other files or sources have different keys.

An environment is shared by models whose lines only name packages of an index, and whose uv settings mean the same for
all. Otherwise it belongs to one model, and the model's directory is part of the key. Local paths are identified by
their content; an index is not queried again. Everything is read once, so that the build uses what the key was computed
from.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..system import inherited_environment
from .local_projects import Walk, sources, sums
from .local_requirements import Included, is_of_an_index, read
from .uv_settings import Settings, of_operator, settings_of

VERSION = "3"  # version of the build procedure; environments of older versions are not used
# Read at import, because models load in threads: in CPython 3.11, a second thread that reads it meanwhile gets None.
# FILES are variables of uv that name files, which are part of what is built as well.
ABI = (sysconfig.get_platform(), str(sysconfig.get_config_var("SOABI")))
FILES = frozenset("UV_CONSTRAINT UV_BUILD_CONSTRAINT UV_OVERRIDE UV_CONFIG_FILE UV_FIND_LINKS".split())
INDEXES = frozenset("UV_INDEX UV_DEFAULT_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL".split())


@dataclass(frozen=True)
class Asked:
    """What an environment is to be built from, as it was read."""

    key: str
    lines: tuple[str, ...]
    included: Included
    settings: Settings
    known: Mapping[Path, Sequence[str]]  # content identifiers of local paths in the lines


def asked(root: Path, wanted: Sequence[str], beside: Path, variables: Mapping[str, str], cache: Path) -> Asked:
    """Read what `wanted` asks for in the model directory `root`; included files are in `beside`.

    `variables` are set by the operator for the model. Raises `ConfigError` for a file that cannot be read.
    """
    operators = dict(sorted({**inherited_environment.of_installers(), **variables}.items()))
    theirs = {**inherited_environment.of_builds(), **variables}
    start, aside, walk = root.resolve(), cache.resolve(), Walk()
    uv, included = settings_of(start, operators.get("UV_CONFIG_FILE")), Included()
    lines: list[str] = []
    found: dict[str, Sequence[str]] = {}
    known: dict[Path, Sequence[str]] = {}
    is_for_all = all(map(is_of_an_index, wanted)) and uv.is_for_all and not any(_leads_home(operators))
    try:
        for path, means_the_same in of_operator(theirs):
            found[str(path)] = [*sums(path, aside, walk)]
            is_for_all &= means_the_same
        for path in (*_places(start, operators), *uv.leads_to(start, theirs)):
            found[str(path)] = [*sums(path, aside, walk)]
        for line, local in read(wanted, start, beside, theirs, included):
            lines.append(line)
            if local is None or not os.path.exists(local.path):
                continue
            for path in sources(local.path, False) if local.path.is_dir() else [local.path]:
                found[str(path)] = known[path] = [*sums(path, aside, walk)]
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read for its environment: {error.strerror}") from error
    # A line that leads to a path belongs to this model only, and -e keeps reading the path.
    whose = None if is_for_all else [str(start), str(uv.place)]
    what = [VERSION, sys.executable, platform.python_version(), ABI, whose, uv.table, lines, operators, found]
    key = hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()[:24]
    return Asked(key, tuple(wanted), included, uv, known)


def _words(operators: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in operators.items():
        for word in filter(None, re.split(r"[\s,]+", value)):
            yield name, word


def _leads_home(operators: Mapping[str, str]) -> Iterator[bool]:
    """Yield whether paths that the operator has set for uv differ between models, whether or not they exist yet."""
    for name, word in _words(operators):
        if name in FILES or name in INDEXES:
            yield "${" in word or not re.match(r"([\w.-]+=)?(/|[\w+.-]+://)", word)


def _places(start: Path, operators: Mapping[str, str]) -> Iterator[Path]:
    """Yield existing paths in variables, such as a directory of wheels. A relative one differs between models."""
    for name, word in _words(operators):
        named = word.removeprefix("file://")
        if (name in FILES or not os.path.isabs(named)) and os.path.exists(start / named):
            yield start / named
