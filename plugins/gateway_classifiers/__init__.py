"""Serve a classifier of texts or a cross encoder of transformers: labels for a text, or a score for a pair of texts.

The hooks are here, and import the other modules when they are called. `Classifier` and `CrossEncoder` in `model`
answer; `detection` chooses between the two, `settings` reads what the checkpoint says of labels and scores, `loadable`
checks it before the load, `fields` reads a request, and `network` computes. Options, in config.yaml or [models.NAME]
of gateway.toml:

    options:
      truncate: true      # cut texts that are too long, unless the request says otherwise; default: 400
      task: rerank        # or classify: only needed while the weights are not on this machine; default: classify
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

FRAMEWORK = "classifiers"
TARGETS = {"classify": "gateway_classifiers.model:Classifier", "rerank": "gateway_classifiers.model:CrossEncoder"}
FORMAT = Format(
    files="a classifier of texts or a cross encoder (config.json with …ForSequenceClassification, *.safetensors)",
    routes=("/v1/classify", "/v1/decisions", "/v1/rerank", "/v1/score"),
    needs=("transformers", "torch"),
    install="pip install 'model-gateway[transformers]'",
)
BATCH = 32  # texts, unless the directory or the operator says otherwise


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register(FRAMEWORK, FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_checkpoints.weights import two_saves

    from .detection import is_ours, task_of

    if not is_ours(path, FRAMEWORK):
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
    return _batched(replace(spec, target=TARGETS[task], notes=notes))


def _batched(spec: ModelSpec) -> ModelSpec:
    """Set the default batch size, and the slots that belong to it."""
    if spec.batching.size is not None or spec.parity == "strict":  # which has no batches
        return spec
    batching = replace(spec.batching, size=BATCH)
    limits = spec.limits if batching.has_own_slots else replace(spec.limits, slots=batching.slots)
    return replace(spec, batching=batching, limits=limits)


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
