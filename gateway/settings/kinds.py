"""Convert values in settings: sizes, seconds, lists of paths, a choice of words.

A kind is a function of the value and of whether the value came as text (from the environment or a flag), where "8000"
may be a number. gateway.toml is typed, so a string there stays a string. A kind raises `ValueError` with what it
expected.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..devices.device import parse_devices, parse_size, static_devices
from ..errors import ConfigError

Kind = Callable[[Any, bool], Any]

LARGEST_BATCH = 8192  # items; their waits are reported in one frame

_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_GPU_MEMORY = re.compile(r"(100|[1-9]\d?)%")
_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def text(value: Any, _: bool) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a string")
    return value


def whole(least: int = 0, most: int | None = None) -> Kind:
    expected = f"a whole number from {least} to {most}" if most is not None else f"a whole number, {least} or more"

    def convert(value: Any, from_text: bool) -> int:
        if from_text and isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < least or (most and value > most):
            raise ValueError(expected)
        return value

    return convert


def positive(value: Any, from_text: bool) -> float:
    """A number above 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ValueError("a number above 0")
    return float(value)


def flag(value: Any, from_text: bool) -> bool:
    if from_text and isinstance(value, str):
        value = _FLAGS.get(value.strip().lower())
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def seconds(value: Any, from_text: bool) -> float:
    """30, 0.5, "30s", "500ms", "5m"."""
    if isinstance(value, str) and (match := _SECONDS.fullmatch(value.strip())) and (match[2] or from_text):
        value = float(match[1]) * _UNITS[match[2] or "s"]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ValueError('seconds, such as 30 or "5m"')
    return float(value)


def size(value: Any, from_text: bool) -> int:
    """Bytes, "32MiB", "1GB"."""
    if from_text and isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool):
        raise ValueError('a size, such as "32MiB"')
    return parse_size(value)


def choice(*words: str) -> Kind:
    expected = f"{', '.join(words[:-1])} or {words[-1]}"

    def convert(value: Any, _: bool) -> str:
        if value not in words:
            raise ValueError(expected)
        return str(value)

    return convert


def only_yet(word: str, *planned: str) -> Kind:
    """A choice with only one supported word. The planned ones are refused as not supported yet."""
    known = choice(word, *planned)

    def convert(value: Any, from_text: bool) -> str:
        if known(value, from_text) != word:
            raise ConfigError(f"not supported yet: {value!r}; only {word!r} is")
        return word

    return convert


def choices(*words: str) -> Kind:
    """A list of some of these words; comma-separated in the environment."""
    expected = f"a list of some of {', '.join(words)}"

    def convert(value: Any, from_text: bool) -> tuple[str, ...]:
        try:
            found = texts(value, from_text)
        except ValueError:
            raise ValueError(expected) from None
        if any(word not in words for word in found):
            raise ValueError(expected)
        return found

    return convert


def texts(value: Any, from_text: bool) -> tuple[str, ...]:
    """A list of strings; comma-separated in the environment."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if from_text else [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(part, (str, Path)) for part in value):
        raise ValueError("a list of strings")
    return tuple(str(part) for part in value if str(part))


def file(value: Any, _: bool) -> Path:
    """The path of a file that need not exist."""
    return _path(value)


def directory(value: Any, _: bool) -> Path:
    """The path of a directory that need not exist."""
    return _path(value)


def _path(value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError("a path")
    return Path(value).expanduser()


def paths(value: Any, from_text: bool) -> tuple[Path, ...]:
    return tuple(Path(part).expanduser() for part in texts(value, from_text))


def places(value: Any, from_text: bool) -> dict[str, Path]:
    """A table of paths."""
    return {name: Path(part).expanduser() for name, part in table(value, from_text).items()}


def starting_at(directory: Path, value: Any) -> Any:
    """Resolve the relative paths in a value of one of the kinds in `PATHS` against `directory`; None stays None."""
    if isinstance(value, Mapping):
        return {name: directory / part for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(directory / part for part in value)
    return directory / value if value is not None else None


PATHS: tuple[Kind, ...] = (file, directory, paths, places)  # kinds whose relative paths start at a directory


def misfit(kind: Kind, value: Path | None) -> str | None:
    """Return what is wrong if the path exists but is not of its kind (file or directory)."""
    if value is None:
        return None
    if kind is file and os.path.isdir(value):
        return f"{value} is a directory but must be a file"
    if kind is directory and os.path.exists(value) and not os.path.isdir(value):
        return f"{value} is a file but must be a directory"
    return None


def table(value: Any, _: bool) -> dict[str, str]:
    """A table of strings."""
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError("a table of strings")
    return dict(value)


def variables(value: Any, _: bool) -> dict[str, str]:
    """Environment variables, converted to strings as in config.yaml: true becomes "true"."""
    if not isinstance(value, Mapping) or any(isinstance(item, (dict, list)) for item in value.values()):
        raise ValueError("a table of strings")
    made = {name: str(item).lower() if isinstance(item, bool) else str(item) for name, item in value.items()}
    if not all(can_be_set(name, text) for name, text in made.items()):
        raise ValueError("a table of strings; names must not be empty or contain =, and neither may contain NUL")
    return made


def can_be_set(name: str, text: str) -> bool:
    """Return whether the system accepts this as an environment variable."""
    try:
        (name + text).encode()
    except UnicodeEncodeError:  # a lone surrogate, which an escape sequence may produce
        return False
    return name != "" and "=" not in name and "\0" not in name + text


def anything(value: Any, _: bool) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a table")
    return dict(value)


def devices(value: Any, _: bool) -> str | tuple[Mapping[str, Any], ...]:
    """ "auto", "2xH100:80GiB,1xL4:24GiB", or a list of tables."""
    if isinstance(value, str):
        if value != "auto":
            parse_devices(value)
        return value
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError('"auto", a string such as "2xH100:80GiB", or a list of tables')
    static_devices(value)
    return tuple(value)


def gpus(value: Any, _: bool) -> int | tuple[Any, ...]:
    """A number of devices, a list of devices, or one list per replica."""
    expected = "a number of devices, a list of devices, or one list per replica"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(expected)
    if all(isinstance(item, (list, tuple)) for item in value):
        if len({len(item) for item in value}) != 1 or any(_is_nested(item) for item in value):
            raise ValueError("one list per replica, all of the same length")
        return tuple(_device_names(item, expected) for item in value)
    return _device_names(value, expected)


def _is_nested(items: Any) -> bool:
    return not items or any(isinstance(item, (list, tuple)) for item in items)


def _device_names(value: Any, expected: str) -> tuple[str, ...]:
    if any(isinstance(item, bool) or not isinstance(item, (int, str)) for item in value):
        raise ValueError(expected)
    return tuple(str(item) for item in value)


def gpu_memory(value: Any, _: bool) -> str:
    """A share of each device: "20GiB" or "50%"."""
    if not isinstance(value, str):
        raise ValueError('a share of a device, such as "20GiB" or "50%"')
    if not _GPU_MEMORY.fullmatch(value):
        parse_size(value)
    return value
