"""Serve what transformers has a pipeline for: entities, gaps, answers in a text, vectors of tokens, images, sounds.

The hooks are here, and import the other modules when they are called. `tasks` lists the tasks and their classes,
`detection` chooses one, and `loadable` checks a checkpoint before the load. Each task is a file: `entities`, `gaps`,
`answers`, `features` and `sparse` read texts (`pipeline`), `images` and `sounds` files (`signals`). Options, in
config.yaml or [models.NAME] of gateway.toml:

    options:
      truncate: true            # cut texts that are too long, unless the request says otherwise; default: 400
      task: feature-extraction  # or another one; only needed where config.json does not say it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

FRAMEWORK = "pipelines"
FORMAT = Format(
    files="a checkpoint of transformers whose architecture is …ForTokenClassification, …ForQuestionAnswering, "
    "…ForMaskedLM, …ForImageClassification or …ForAudioClassification, or a sparse encoder of sentence-transformers "
    "(config.json, *.safetensors)",
    routes=("predict", "/v1/classify", "/v1/decisions"),
    needs=("transformers", "torch"),
    install="pip install 'model-gateway[pipelines]'",
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register(FRAMEWORK, FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_checkpoints.batching import batched
    from gateway_checkpoints.detection import is_ours
    from gateway_checkpoints.weights import two_saves

    from .detection import notes_of, task_of
    from .tasks import BY_NAME, TASKS

    if not is_ours(path, FRAMEWORK, lambda found: found.task in BY_NAME):
        return None
    spec = describe(
        path, target=TASKS[0].target, format=FRAMEWORK, overrides=overrides, needs=FORMAT.needs, install=FORMAT.install
    )
    place = peek_weights(path)
    task = task_of(place, (spec.config.get("options") or {}).get("task"), path)
    told = two_saves(place) if place is not None else None
    notes = (*spec.notes, *filter(None, [told]))
    asides = (*spec.asides, *notes_of(place, task, path))
    spec = replace(spec, target=task.target, needs=(*FORMAT.needs, *task.needs), notes=notes, asides=asides)
    return batched(spec, task.batch)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report what the load would report before it reads the weights."""
    from . import loadable
    from .tasks import of_target

    task = of_target(spec.target)
    if task is None or spec.python is not None or (place := peek_weights(spec.root)) is None:
        return  # other environments may have another version of the library
    try:
        loadable.check(place, task)
    except ConfigError as error:
        what = str(error).removeprefix(f"{spec.root}: ")
        yield Problem(where=str(spec.root), what=what, code="unloadable", model=spec.name)
