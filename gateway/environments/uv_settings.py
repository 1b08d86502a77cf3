"""The uv settings of a model: read once, identified by their targets, and passed to uv as a copy.

uv would search them in its working directory, and above. They may change between our reading and uv's, so uv gets a
directory of ours that contains nothing else. Settings that we cannot read prevent the build. The settings of the user
and of the system are the operator's: uv reads them itself, and they are part of the key.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import ordinary
from .local_requirements import expanded, is_of_an_index, local

# These mean the same for every model, and lead to nothing on this machine.
HARMLESS = frozenset(
    "allow-insecure-host compile-bytecode concurrent-builds concurrent-downloads concurrent-installs exclude-newer "
    "exclude-newer-package fork-strategy http-timeout index-strategy keyring-provider link-mode native-tls no-binary "
    "no-binary-package no-build no-build-package no-cache no-deps no-index no-sources offline preview prerelease "
    "python-downloads python-preference require-hashes required-version resolution strict system-certs torch-backend "
    "verify-hashes".split()
)
LINES = frozenset(("build-constraint-dependencies", "constraint-dependencies", "override-dependencies"))
ADDRESSES = frozenset(("extra-index-url", "find-links", "index-url"))  # paths in these are relative to the settings
OF_PROJECTS = frozenset(("sources", "workspace"))  # uv ignores these for requirements
CACHES = frozenset(("cache-dir",))  # the content of these does not affect the build


@dataclass(frozen=True)
class Settings:
    """The settings of the file `name` in `place`; empty without one."""

    place: Path
    name: str = "uv.toml"
    table: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_for_all(self) -> bool:
        """Return whether they mean the same in every model directory. Unknown ones count as different."""
        return all(_is_for_all(key, value) for key, value in self.table.items())

    def leads_to(self, start: Path, variables: Mapping[str, str]) -> Iterator[Path]:
        """Yield the existing paths that they name, for uv started in `start`."""
        for text in _texts({key: value for key, value in self.table.items() if key not in CACHES}):
            meant = expanded(text, start, variables)
            found = local(meant, self.place, self.place, {})
            written = Path(os.path.normpath(self.place / meant))  # as uv gets it
            for path in (written, *([found.path] if found is not None else [])):
                if meant and "\0" not in meant and os.path.exists(path):
                    yield path

    def write(self, directory: Path) -> None:
        """Write them into uv's project directory, always with a pyproject.toml, so that uv searches no further."""
        here = {key: _moved(key, value, self.place) for key, value in self.table.items() if key not in OF_PROJECTS}
        is_uv = self.name == "uv.toml"
        (directory / "pyproject.toml").write_text("" if is_uv else _toml_lines({"tool": {"uv": here}}))
        if is_uv:
            (directory / "uv.toml").write_text(_toml_lines(here))


def settings_of(start: Path, named: str | None = None) -> Settings:
    """Return the settings in the file `named` by the operator, else in uv's working directory or the nearest one above.

    Raises `ConfigError` for a file that exists but cannot be read.
    """
    if named:
        path = start / named
        if (table := _read(path)) is None:
            raise ConfigError(f"{path}: UV_CONFIG_FILE does not exist")
        return Settings(path.parent, "uv.toml", table)
    for directory in (start, *start.parents):
        if (table := _read(directory / "uv.toml")) is not None:
            return Settings(directory, "uv.toml", table)
        tools = (_read(directory / "pyproject.toml") or {}).get("tool")
        if isinstance(tools, dict) and isinstance(table := tools.get("uv"), dict):
            return Settings(directory, "pyproject.toml", table)
    return Settings(start)


def of_operator(variables: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    """Yield existing settings files of the user and of the system, and whether each means the same for every model."""
    home = variables.get("XDG_CONFIG_HOME") or os.path.join(variables.get("HOME", ""), ".config")
    system = [*(variables.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep), "/etc"]
    for path in (Path(place, "uv", "uv.toml") for place in (home, *system) if os.path.isabs(place)):
        if (table := _read(path)) is not None:
            yield path, not any("${" in text for text in _texts(table))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return tomllib.loads(ordinary.content(path).decode("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read for an environment: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read for an environment: it is not TOML: {error}") from error


def _is_for_all(key: str, value: Any) -> bool:
    if key == "pip" and isinstance(value, dict):
        return all(_is_for_all(inner, each) for inner, each in value.items())
    if key == "index" and isinstance(value, list):
        return all(isinstance(each, dict) and _is_of_the_web(each.get("url")) for each in value)
    if key in ADDRESSES:
        return all(map(_is_of_the_web, value if isinstance(value, list) else [value]))
    if key in LINES and isinstance(value, list):
        return all(isinstance(each, str) and is_of_an_index(each) for each in value)
    return key in HARMLESS or key in OF_PROJECTS


def _is_of_the_web(address: Any) -> bool:
    return isinstance(address, str) and re.match(r"https?://", address) is not None and "${" not in address


def _moved(key: str, value: Any, place: Path) -> Any:
    """Return the value with absolute paths. uv expands no variables in these."""
    if key in ADDRESSES or key == "url":
        return [_moved(key, each, place) for each in value] if isinstance(value, list) else _address(value, place)
    if key == "index" and isinstance(value, list):
        return [_moved("pip", each, place) for each in value]  # a table with such keys as well
    if key == "pip" and isinstance(value, dict):
        return {inner: _moved(inner, each, place) for inner, each in value.items()}
    return value


def _address(value: Any, place: Path) -> Any:
    is_path = isinstance(value, str) and not re.match(r"[\w+.-]+:", value)
    return os.path.normpath(place / value) if is_path else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _toml_lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower()
