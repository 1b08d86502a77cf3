"""Truss model directories: config.yaml and model/model.py.

The last format but one to be asked, so that a directory with a config.yaml may belong to a framework's plugin first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..hookspecs import hookimpl
from ..spec import ModelSpec
from ..weights import missing_weights, peek_weights
from ..wording import instead_of
from .config import ModelConfig, is_of_another_program, read_config
from .describe import UNLIMITED, describe
from .source import ClassInfo, SourceError, read_class
from .unserved import find_unserved

SAY = (
    "write framework: transformers into config.yaml for a language model, sentence-transformers for embeddings, "
    "sklearn for a scikit-learn model, or a class in model/model.py for anything else"
)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    """Claims every directory with a config.yaml, but for those with a model.py at their top and none in model/, and
    those without a class where the config.yaml is of another program.
    """
    if not (path / "config.yaml").is_file() and not (path / "config.yml").is_file():
        return None
    config = read_config(path)
    module_dir, filename = config.data["model_module_dir"], config.data["model_class_filename"]
    source = path / module_dir / filename
    if not os.path.isfile(source) and (path / "model.py").is_file():
        return None  # `python` takes it, and reports what is wrong with its config.yaml
    if not os.path.isfile(source) and is_of_another_program(path):
        return None
    if config.errors:
        raise ConfigError("\n".join(str(problem) for problem in config.errors))
    if not source.is_relative_to(path) or ".." in source.relative_to(path).parts:
        raise ConfigError(f"{config.path}: model_module_dir must lie inside the model directory")
    if (framework := config.data.get("framework")) not in (None, "truss"):
        near = instead_of(str(framework), {point.name for point in entry_points(group="gateway")})
        told = f"{path}: no plugin serves the framework {framework!r}{near}; `gateway plugins` lists those there"
        raise ConfigError(told)
    if not os.path.isfile(source):
        near = instead_of(source.name, [each.name for each in source.parent.glob("*.py")])
        what = f"{path}: No module class file found: {source.relative_to(path)}{near}"
        absent = missing_weights(path)  # which may be why no framework's plugin knew the directory
        reason = f"{absent}, so that nobody knows what they are: {SAY}" if absent else _unserved(path)
        raise ConfigError(f"{what}; {reason}" if reason else what)
    return describe_class(path, source, config.data["model_class_name"], overrides, format="truss")


def _unserved(path: Path) -> str | None:
    found = find_unserved(peek_weights(path) or path)
    return f"its weights are {found.what} ({found.fix})" if found else None


def describe_class(
    path: Path, source: Path, class_name: str, overrides: Mapping[str, Any], *, format: str
) -> ModelSpec:
    """Return the spec of the class in a file below `path`. Raises `ConfigError` when the file lacks the class."""
    config = read_config(path)
    if config.errors:  # before the file is looked at: a model of another server need not have one
        raise ConfigError("\n".join(str(problem) for problem in config.errors))
    try:
        found = read_class(source, class_name)
    except SourceError as error:
        raise ConfigError(str(error)) from error
    module = ".".join(source.relative_to(path).with_suffix("").parts)
    slots = UNLIMITED if _is_websocket(found, config) else None
    return describe(
        path, target=f"{module}:{class_name}", format=format, overrides=overrides, own_code=True, slots=slots
    )


def _is_websocket(found: ClassInfo | None, config: ModelConfig) -> bool:
    """By the class as far as its text tells: a transport makes no websocket of a class that has `predict` alone."""
    if found is not None and (found.whole or found.has("websocket") or found.has("predict")):
        return found.has("websocket")
    return bool(config.data["runtime"]["transport"]["kind"] == "websocket")
