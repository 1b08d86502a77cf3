"""Read what an MLflow model directory says about itself: its flavors, the file of each, and its signature.

MLflow is not imported. A flavor whose file is the library's own format is served by the plugin of that library; a
pickle only where the operator allows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import ConfigError, named_file, peek_yaml

NAME = "MLmodel"
FILES = ("data", "pickled_model")  # fields of a flavor that name its file
GENERIC = "python_function"  # the flavor of code that loads the model of any other
MOST_COLUMNS = 100_000


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a signature."""

    name: str
    type: str  # as MLflow writes it: double, long, string, …
    is_required: bool


def is_mlflow(place: Path) -> bool:
    return place.is_dir() and (place / NAME).is_file()


def flavors_of(place: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the flavors of a directory by name; none if it is not of MLflow, or its MLmodel cannot be read."""
    found = _about(place).get("flavors") if is_mlflow(place) else None
    if not isinstance(found, Mapping):
        return {}
    return {str(name): about for name, about in found.items() if isinstance(about, Mapping)}


def file_of(place: Path, flavor: str) -> Path | None:
    """Return the file of a flavor; None if the directory has no such flavor.

    Raises:
        ConfigError: its MLmodel names no file in the directory for it.
    """
    about = flavors_of(place).get(flavor)
    if about is None:
        return None
    name = next((about[field] for field in FILES if about.get(field) is not None), None)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{place / NAME} names no file for its flavor {flavor}")
    file = named_file(place, name, NAME)
    if not file.is_file():
        raise ConfigError(f"{place / NAME} names {name}, which is missing: get the model's files again")
    return file


def fields_of(place: Path) -> Sequence[Field]:
    """Return the columns in the signature of a model; none if it has no signature, or one of tensors.

    Raises:
        ConfigError: the signature cannot be read.
    """
    signature = _about(place).get("signature") if is_mlflow(place) else None
    text = signature.get("inputs") if isinstance(signature, Mapping) else None
    if text is None:
        return ()
    try:
        columns = json.loads(text)
        if not isinstance(columns, list) or len(columns) > MOST_COLUMNS:
            raise ValueError("it is not a list of columns")
        return [
            Field(str(column["name"]), str(column["type"]), column.get("required", True) is not False)
            for column in columns
            if column["type"] != "tensor" and "name" in column
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{place / NAME} has a signature that cannot be read ({error})") from error


def _about(place: Path) -> Mapping[str, Any]:
    try:
        found = peek_yaml(place / NAME)
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}
