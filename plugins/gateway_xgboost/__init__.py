"""Serve a model of XGBoost, as `Booster.save_model` and `XGBModel.save_model` write it (*.ubj, *.json).

The hooks are here, and import the other modules when they are called. `detection` recognises a file, `structure` reads
and checks it without the library, `XGBoostModel` in `model` answers predict, and `fast` computes.

Options in config.yaml: `classes`, the labels of a classifier, which the file does not have (default 0, 1, …); `rounds`,
the number of rounds to use (default: all, or up to the best after early stopping); `threads` of one call (default 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

TARGET = "gateway_xgboost.model:XGBoostModel"
FORMAT = Format(
    files="*.ubj, *.json, *.xgb, *.bst, xgboost-model",
    routes=("predict", "/v2/models/{id}/infer", "/v1/decisions"),
    needs=("xgboost",),
    install="pip install 'model-gateway[xgboost]'",
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("xgboost", FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_checkpoints.batching import batched
    from gateway_tabular.batching import BATCH, CONCURRENCY, SLOTS
    from gateway_tabular.files import is_ours, model_file

    from .detection import is_model
    from .structure import SAVE

    if not is_ours(path, "xgboost", is_model):
        return None
    if place := peek_weights(path):
        model_file(place, path, "xgboost", is_model, SAVE)
    spec = describe(
        path,
        target=TARGET,
        format="xgboost",
        overrides=overrides,
        slots=SLOTS,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    return batched(spec, BATCH, CONCURRENCY)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report a file that is damaged. XGBoost is not imported."""
    from gateway_tabular.files import model_file

    from .detection import is_model
    from .structure import SAVE, read_model

    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    try:
        read_model(model_file(place, spec.root, "xgboost", is_model, SAVE))
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="unloadable", model=spec.name)
