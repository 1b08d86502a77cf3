"""The format of Truss model directories: config.yaml and model/model.py.

It is asked second to last, so that the plugin of a framework can claim a directory with a config.yaml first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..hookspecs import hookimpl
from ..spec import Format, ModelSpec
from ..wording import instead_of
from .code.source import ClassInfo, SourceError, read_class
from .config.config import ModelConfig, is_of_another_program, read_config
from .describe import UNLIMITED, describe
from .unserved.unserved import find_unserved
from .weights import missing_weights, peek_weights

SAY = (
    "write framework: transformers into config.yaml for a language model, sentence-transformers for embeddings, "
    "classifiers for a classifier or cross encoder of transformers, "
    "sklearn for a scikit-learn model, or a class in model/model.py for anything else"
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("truss", Format(files="config.yaml with model/model.py", routes=("one for each of its methods",)))


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    """Claim every directory with a config.yaml, with two exceptions.

    Not claimed are directories with a model.py at the top and none in model/, and directories without a class whose
    config.yaml belongs to another program.
    """
    if not (path / "config.yaml").is_file() and not (path / "config.yml").is_file():
        return None
    config = read_config(path)
    module_dir, filename = config.data["model_module_dir"], config.data["model_class_filename"]
    source = path / module_dir / filename
    if not os.path.isfile(source) and (path / "model.py").is_file():
        return None  # the format `python` claims it, and reports problems in its config.yaml
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
        absent = missing_weights(path)  # perhaps why no plugin recognised the directory
        reason = f"{absent}, so their format is unknown: {SAY}" if absent else _unserved(path)
        raise ConfigError(f"{what}; {reason}" if reason else what)
    return describe_class(path, source, config.data["model_class_name"], overrides, format="truss")


def _unserved(path: Path) -> str | None:
    found = find_unserved(peek_weights(path) or path)
    return f"its weights are {found.what} ({found.fix})" if found else None


def describe_class(
    path: Path, source: Path, class_name: str, overrides: Mapping[str, Any], *, format: str
) -> ModelSpec:
    """Return the spec of the class in a file below `path`. Raises `ConfigError` if the file lacks the class."""
    config = read_config(path)
    if config.errors:  # checked first: a model of another server need not have the file
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
    """Return whether the class serves a websocket.

    Its source decides if it tells: the transport setting does not make a websocket of a class that only has `predict`.
    """
    if found is not None and (found.whole or found.has("websocket") or found.has("predict")):
        return found.has("websocket")
    return bool(config.data["runtime"]["transport"]["kind"] == "websocket")
