"""Find the file of a directory that is the model, among those that a plugin of models on tables may serve."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from gateway import (
    ConfigError,
    distinct,
    has_code,
    opened,
    peek_config,
    peek_mismatch,
    peek_patterns,
    peek_weights,
    placeholder,
)

from . import mlflow

BEGINNING = 4096  # bytes that reveal what a file is
LARGEST = 4 << 30  # bytes of a file that are read
MOST_FILES = 16  # files whose beginning is read
# With one of these, a directory is a model of another kind, for which a file of ours is a copy or a part.
OTHERS = frozenset(("modules.json", "model_index.json", "MLmodel", "predictor.pkl"))
OTHER_KINDS = (".skops", ".gguf", ".safetensors", ".onnx")
ANY_NAME = "it.model"  # the libraries use it too, so that the beginning decides
Judge = Callable[[str, bytes], bool]


def is_ours(path: Path, framework: str, is_model: Judge) -> bool:
    """Return whether a directory is for a framework: by its config.yaml, otherwise by the files in it."""
    config = peek_config(path)
    if "framework" in config:  # overrides detection
        return bool(config["framework"] == framework)
    if has_code(path) or (place := peek_weights(path)) is None:
        return False
    if mlflow.flavors_of(place):
        return _of_mlflow(place, framework, is_model) is not None
    if any(name in OTHERS or name.endswith(OTHER_KINDS) for name in names_in(place)):
        return False
    return bool(candidates(place, path, is_model))


def names_in(place: Path) -> list[str]:
    """Return the names in a directory that are not hidden; none if it cannot be read or is a file."""
    try:
        return sorted(name for name in os.listdir(place) if not name.startswith("."))
    except OSError:
        return []


def _of_mlflow(place: Path, flavor: str, is_model: Judge) -> Path | None:
    """Return the file of a flavor of MLflow, if it is in the library's own format, whatever its name is.

    Raises:
        ConfigError: the flavor has no file.
    """
    file = mlflow.file_of(place, flavor)
    return file if file is not None and is_model(ANY_NAME, begin_of(file)) else None


def candidates(place: Path, root: Path, is_model: Judge) -> list[Path]:
    """Return the files that may be the model of the directory `root`, whose weights are at `place`."""
    if place.is_file():
        return [place] if is_model(place.name, begin_of(place)) else []
    chosen = peek_patterns(root)
    likely = [name for name in names_in(place) if is_model(name, b"") and (chosen is None or chosen(name))]
    likely.sort(key=lambda name: not name.startswith("model."))  # a directory may have very many texts
    return distinct(place / name for name in likely[:MOST_FILES] if is_model(name, begin_of(place / name)))


def model_file(place: Path, root: Path, framework: str, is_model: Judge, save: str) -> Path:
    """Return the file that is the model: the one called `model`, or the only one. `save` is how to make one.

    Raises:
        ConfigError: there is none, or several.
    """
    if mlflow.flavors_of(place) and (file := _of_mlflow(place, framework, is_model)):
        found = [file]
    else:
        found = candidates(place, root, is_model)
    found = [file for file in found if file.stem == "model"] or found
    if len({file.stem for file in found}) == 1:  # one model in several formats: JSON is the largest and slowest
        found = sorted(found, key=lambda file: file.suffix == ".json")[:1]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        fix = f"name it model{found[0].suffix}"
        raise ConfigError(f"{place}: several models ({names}); one directory holds one: {fix}")
    if not found:
        raise ConfigError(f"{root}: {peek_mismatch(place, framework) or f'no model; save it with {save}'}")
    if there := placeholder(found[0]):
        raise ConfigError(f"{root}: {found[0].name} {there.what}: {there.fix}")
    return found[0]


def read_whole(file: Path) -> bytes:
    """Return what is in a file.

    Raises:
        ConfigError: it cannot be read, or is too large.
    """
    try:
        with opened(file) as found:
            data = found.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    if len(data) > LARGEST:
        raise ConfigError(f"{file} has more than {LARGEST:,} bytes")
    return data


def begin_of(file: Path) -> bytes:
    """Return the beginning of a file; a text that is no model if it cannot be read."""
    try:
        with opened(file) as found:
            return found.read(BEGINNING) or b"\0"
    except OSError:
        return b"\0"
