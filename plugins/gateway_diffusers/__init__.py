"""Serve a pipeline of diffusers that paints an image of a text: a directory with `model_index.json`.

The hooks are here, and import the other modules when they are called. `structure` finds a pipeline and checks it,
without diffusers. `ImagePipeline` in `model` answers /v1/images/generations; `fields` reads a request.

Options in config.yaml: `steps`, if a request has none; `max_steps`, `max_pixels` and `max_images` of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

FRAMEWORK = "diffusers"
TARGET = "gateway_diffusers.model:ImagePipeline"
FORMAT = Format(
    files="a directory with model_index.json and *.safetensors, of a pipeline that paints a text",
    routes=("/v1/images/generations",),
    needs=("diffusers", "torch", "transformers", "PIL", "starlette"),
    install="pip install 'model-gateway[diffusers]'",
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register(FRAMEWORK, FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from .structure import is_ours

    if not is_ours(path):
        return None
    return describe(
        path,
        target=TARGET,
        format=FRAMEWORK,
        overrides=overrides,
        slots=1,  # a pipeline keeps what it computes in itself
        needs=FORMAT.needs,
        install=FORMAT.install,
    )


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report parts that are missing, or code. diffusers is not imported."""
    from .structure import check_pipeline

    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    try:
        check_pipeline(place)
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="unloadable", model=spec.name)
