"""What an environment is known by: two that are built of other files, or from elsewhere, are not the same.

An environment whose lines are names alone is that of every model with the same lines. What a path leads to is known by
its content; what an index offers is not asked again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import inherited, ordinary
from .errors import ConfigError
from .local_projects import Walk, sources, sums
from .local_requirements import is_of_an_index, read

VERSION = "2"  # of how environments are built; those that an older one has built are not used
# Variables of uv that name files, which are part of what is built as well.
# At import, for models load in threads: CPython 3.11 tells whoever asks while another one reads it that it is None.
ABI = (sysconfig.get_platform(), str(sysconfig.get_config_var("SOABI")))
FILES = frozenset("UV_CONSTRAINT UV_BUILD_CONSTRAINT UV_OVERRIDE UV_CONFIG_FILE UV_FIND_LINKS".split())


def key_of(root: Path, wanted: Sequence[str], beside: Path, variables: Mapping[str, str], cache: Path) -> str:
    """The key of what `wanted` asks for in the model directory `root`, where files that it includes lie `beside`.

    `variables` are those that the operator has set for the model. Raises `ConfigError` for a file that cannot be read.
    """
    asked = dict(sorted({**inherited.of_installers(), **variables}.items()))
    start, aside, walk = root.resolve(), cache.resolve(), Walk()
    place, uv = _settings_of_uv(start)
    parts = [VERSION, sys.executable, platform.python_version(), *ABI, *map(repr, uv), *wanted]
    try:
        for name, value in asked.items():
            parts.append(f"{name}={value}")
        if not all(map(is_of_an_index, wanted)):
            parts.append(str(start))  # what a path leads to is this model's alone, and -e goes on reading it
        for path in _places(start, place, asked, uv):
            parts += [str(path), *sums(path, aside, walk)]
        for line, local in read(wanted, start, beside, {**inherited.of_builds(), **variables}):
            parts.append(line)
            if local is None or not os.path.exists(local.path):
                continue
            for path in sources(local.path, False) if local.path.is_dir() else [local.path]:
                parts += [str(path), *sums(path, aside, walk)]
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read for its environment: {error.strerror}") from error
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:24]


def _places(start: Path, above: Path, asked: Mapping[str, str], uv: Sequence[Any]) -> Iterator[Path]:
    """What settings name that is there, such as a place with wheels. A relative one is another one for each model."""
    for name, value in asked.items():
        for word in filter(None, re.split(r"[\s,]+", value)):
            named = word.removeprefix("file://")
            if (name in FILES or not os.path.isabs(named)) and os.path.exists(start / named):
                yield start / named
    for text in filter(None, _texts(uv)):
        if os.path.exists(above / text.removeprefix("file://")):
            yield above / text.removeprefix("file://")


def _settings_of_uv(root: Path) -> tuple[Path, list[Any]]:
    """Those of the directory where uv is started, or the nearest above: they may name other indexes, and places."""
    for directory in (root, *root.parents):
        found: list[Any] = []
        for name in ("uv.toml", "pyproject.toml"):
            try:
                text = ordinary.content(directory / name).decode("utf-8-sig", "replace")
            except OSError:
                continue
            try:
                table = tomllib.loads(text)
            except (tomllib.TOMLDecodeError, RecursionError):
                found.append(text)  # uv will tell
                continue
            if name == "uv.toml":
                found.append(table)
            elif isinstance(tool := table.get("tool"), dict) and "uv" in tool:
                found.append(tool["uv"])
        if found:
            return directory, found
    return root, []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
