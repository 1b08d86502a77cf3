"""Serve Whisper: recordings in, their words out, with times, and translated into English.

A checkpoint of transformers is computed by transformers, a directory of CTranslate2 by faster-whisper. The hooks are
here, and import the other modules when they are called. `detection` tells the two apart, `loadable` checks before the
load, `request` reads the form of a client, and `checkpoint` and `ctranslate` compute. Options, in config.yaml or
[models.NAME] of gateway.toml:

    options:
      max_seconds: 1800     # the longest recording
      beams: 5              # texts that are followed at once; 1 is faster, and hears a little less
      compute_type: int8    # of CTranslate2; default: as the weights were saved, or what the device can do
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_weights

FRAMEWORK = "whisper"
CHECKPOINT = "gateway_whisper.checkpoint:Checkpoint"
CONVERTED = "gateway_whisper.ctranslate:Converted"
NEEDS = {CHECKPOINT: ("transformers", "torch", "soundfile"), CONVERTED: ("faster_whisper", "ctranslate2", "soundfile")}
FORMAT = Format(
    files="Whisper: a checkpoint of transformers (config.json, *.safetensors), or of CTranslate2 (model.bin)",
    routes=("/v1/audio/transcriptions", "/v1/audio/translations"),
    needs=("transformers", "torch", "faster_whisper", "soundfile"),
    install="pip install 'model-gateway[whisper]'",
)


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register(FRAMEWORK, FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from .detection import is_converted, is_ours

    if not is_ours(path, FRAMEWORK):
        return None
    place = peek_weights(path)
    target = CONVERTED if place is not None and is_converted(place) else CHECKPOINT
    needs = NEEDS[target]
    return describe(path, target=target, format=FRAMEWORK, overrides=overrides, needs=needs, install=FORMAT.install)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report what the load would report before it reads the weights."""
    from . import loadable

    if spec.target not in NEEDS or spec.python is not None or (place := peek_weights(spec.root)) is None:
        return  # other environments may have another version of the library
    try:
        loadable.check(place, converted=spec.target == CONVERTED)
    except ConfigError as error:
        what = str(error).removeprefix(f"{spec.root}: ")
        yield Problem(where=str(spec.root), what=what, code="unloadable", model=spec.name)
