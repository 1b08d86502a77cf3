"""Serve a pipeline of spaCy, a directory that `nlp.to_disk` wrote: texts in, documents as JSON out.

The hooks are here, and import the other modules when they are called. `settings` reads and checks config.cfg, without
spaCy. `SpacyModel` in `model` answers predict, with `texts`, which reads a request.

Options in config.yaml: `disable`, components that are not run; `include`, the parts of a document that an answer has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

FRAMEWORK = "spacy"
TARGET = "gateway_spacy.model:SpacyModel"
FORMAT = Format(
    files="a directory with config.cfg and meta.json",
    routes=("predict",),
    needs=("spacy",),
    install="pip install 'model-gateway[spacy]'",
)
BATCH = 32  # requests whose texts are computed together


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register(FRAMEWORK, FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_checkpoints.batching import batched

    from .settings import is_ours

    if not is_ours(path):
        return None
    spec = describe(
        path,
        target=TARGET,
        format=FRAMEWORK,
        overrides=overrides,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    # Not read from config.yaml, whose author may be another person than the operator.
    spec = replace(spec, config={**spec.config, "trust_remote_code": bool(overrides.get("trust_remote_code"))})
    return batched(spec, BATCH)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report damaged settings, components that are code, and weights that are missing. spaCy is not imported."""
    from .settings import check_pipeline, version_note

    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    where = str(spec.root)
    try:
        check_pipeline(place, trusted=bool(spec.config.get("trust_remote_code")))
    except ConfigError as error:
        yield Problem(where=where, what=str(error), code="unloadable", model=spec.name)
        return
    if note := version_note(place):
        yield Problem(where=where, what=note, code="version", model=spec.name, level="warning")
