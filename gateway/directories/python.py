"""The format of a directory with only a model.py: the smallest model. A config.yaml is optional."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..hookspecs import hookimpl
from ..spec import Format, ModelSpec
from .config.config import read_config
from .truss import describe_class

LOST_TRUSS = "looks like the inside of a Truss; add a config.yaml (it may be empty) next to this directory"


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("python", Format(files="model.py with a class Model", routes=("one for each of its methods",)))


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    source = path / "model.py"
    if not source.is_file():
        return None
    class_name = read_config(path).data["model_class_name"]
    spec = describe_class(path, source, class_name, overrides, format="python")
    if path.name == "model":
        spec = replace(spec, notes=(*spec.notes, LOST_TRUSS))
    return spec
