"""Serve a classifier of texts or a cross encoder of transformers: labels for a text, or a score for a pair of texts.

The hooks are here, and import the other modules when they are called. `Classifier` and `CrossEncoder` in `model`, and
`ZeroShot` in `zero_shot`, answer; `detection` chooses among them, `settings` reads what the checkpoint says of labels
and scores, `loadable` checks it before the load, and `fields` reads a request. Options, in config.yaml or [models.NAME]
of gateway.toml:

    options:
      truncate: true      # cut texts that are too long, unless the request says otherwise; default: 400
      task: rerank        # or classify, zero-shot: only needed while the weights are not on this machine
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

FRAMEWORK = "classifiers"
TARGETS = {
    "classify": "gateway_classifiers.model:Classifier",
    "rerank": "gateway_classifiers.model:CrossEncoder",
    "zero-shot": "gateway_classifiers.zero_shot:ZeroShot",
}
FORMAT = Format(
    files="a classifier of texts or a cross encoder (config.json with …ForSequenceClassification, *.safetensors)",
    routes=("/v1/classify", "/v1/decisions", "/v1/rerank", "/v1/score", "predict"),
    needs=("transformers", "torch"),
    install="pip install 'model-gateway[transformers]'",
)
BATCH = 32  # texts, unless the directory or the operator says otherwise


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register(FRAMEWORK, FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_checkpoints.batching import batched
    from gateway_checkpoints.detection import is_ours
    from gateway_checkpoints.weights import two_saves

    from .detection import task_of

    if not is_ours(path, FRAMEWORK, lambda found: found.judges):
        return None
    spec = describe(
        path,
        target=TARGETS["classify"],
        format=FRAMEWORK,
        overrides=overrides,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    place = peek_weights(path)
    task = task_of(place, (spec.config.get("options") or {}).get("task"), path)
    told = two_saves(place) if place is not None else None
    notes = (*spec.notes, *filter(None, [told]))
    return batched(replace(spec, target=TARGETS[task], notes=notes), BATCH)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report what the load would report before it reads the weights."""
    from . import loadable

    if spec.target not in TARGETS.values() or spec.python is not None or (place := peek_weights(spec.root)) is None:
        return  # other environments may have another version of the library
    try:
        loadable.check(place)
    except ConfigError as error:
        what = str(error).removeprefix(f"{spec.root}: ")
        yield Problem(where=str(spec.root), what=what, code="unloadable", model=spec.name)
