"""Serve a model of CatBoost, as `save_model` writes it (*.cbm, and its JSON).

The hooks are here, and import the other modules when they are called. `detection` recognises a file, `CatBoostModel` in
`model` answers predict, and `rows` makes what it reads.

Options in config.yaml: `classes`, other labels of a classifier than those in its file; `threads` of one call (default
1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

TARGET = "gateway_catboost.model:CatBoostModel"
FORMAT = Format(
    files="*.cbm, its *.json",
    routes=("predict", "/v2/models/{id}/infer", "/v1/decisions"),
    needs=("catboost",),
    install="pip install 'model-gateway[catboost]'",
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("catboost", FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_checkpoints.batching import batched
    from gateway_tabular.batching import BATCH, CONCURRENCY, SLOTS
    from gateway_tabular.files import is_ours, model_file

    from .detection import SAVE, is_model

    if not is_ours(path, "catboost", is_model):
        return None
    if place := peek_weights(path):
        model_file(place, path, "catboost", is_model, SAVE)
    spec = describe(
        path,
        target=TARGET,
        format="catboost",
        overrides=overrides,
        slots=SLOTS,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    return batched(spec, BATCH, CONCURRENCY)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report a file that is cut or something else. CatBoost is not imported."""
    from gateway_tabular.files import model_file

    from .detection import SAVE, check_whole, is_model

    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    try:
        check_whole(model_file(place, spec.root, "catboost", is_model, SAVE))
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="unloadable", model=spec.name)
