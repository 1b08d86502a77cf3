"""Serve a model of Keras 3, a `.keras` file: named tensors in, named tensors out. PyTorch computes it.

The hooks are here, and import the other modules when they are called. `structure` checks a file before Keras reads it,
without Keras. `KerasModel` in `model` answers predict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

FRAMEWORK = "keras"
TARGET = "gateway_keras.model:KerasModel"
SAVE = "model.save of Keras 3, as model.keras"
FORMAT = Format(
    files="*.keras",
    routes=("predict", "/v2/models/{id}/infer"),
    needs=("keras", "torch", "h5py", "numpy"),
    install="pip install 'model-gateway[keras]'",
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register(FRAMEWORK, FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_tabular.files import is_ours, model_file

    from .structure import is_model

    if not is_ours(path, FRAMEWORK, is_model):
        return None
    if place := peek_weights(path):
        model_file(place, path, FRAMEWORK, is_model, SAVE)
    return describe(
        path,
        target=TARGET,
        format=FRAMEWORK,
        overrides=overrides,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report a file that is damaged, or that has code. Keras is not imported."""
    from gateway_tabular.files import model_file

    from .structure import check_file, is_model

    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    try:
        check_file(model_file(place, spec.root, FRAMEWORK, is_model, SAVE))
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="unloadable", model=spec.name)
