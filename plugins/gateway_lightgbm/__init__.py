"""Serve a model of LightGBM, as `Booster.save_model` writes it (*.txt, *.lgb, *.lgbm).

The hooks are here, and import the other modules when they are called. `detection` recognises a file, `structure` reads
and checks it without the library, and `LightGBMModel` in `model` answers predict.

Options in config.yaml: `classes`, the labels of a classifier, which the file does not have (default 0, 1, …);
`category_columns`, the columns that were categories of pandas, if that is not clear; `threads` of one call (default 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

TARGET = "gateway_lightgbm.model:LightGBMModel"
FORMAT = Format(
    files="*.txt and *.model that begin with tree, *.lgb, *.lgbm",
    routes=("predict", "/v2/models/{id}/infer", "/v1/decisions"),
    needs=("lightgbm",),
    install="pip install 'model-gateway[lightgbm]'",
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("lightgbm", FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_checkpoints.batching import batched
    from gateway_tabular.batching import BATCH, CONCURRENCY, SLOTS
    from gateway_tabular.files import is_ours, model_file

    from .detection import is_model
    from .structure import SAVE

    if not is_ours(path, "lightgbm", is_model):
        return None
    if place := peek_weights(path):
        model_file(place, path, "lightgbm", is_model, SAVE)
    spec = describe(
        path,
        target=TARGET,
        format="lightgbm",
        overrides=overrides,
        slots=SLOTS,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    return batched(spec, BATCH, CONCURRENCY)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report a file that is damaged. LightGBM is not imported."""
    from gateway_tabular.files import model_file

    from .detection import is_model
    from .structure import SAVE, read_model

    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    try:
        read_model(model_file(place, spec.root, "lightgbm", is_model, SAVE))
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="unloadable", model=spec.name)
