"""Serve a sentence-transformers directory: texts in, one vector for each out.

The hooks are here, and import the other modules when they are called. `SentenceTransformerModel` in `model` answers
/v1/embeddings. `gateway_embedding_batches` merges the texts of all callers into passes through the network, which
`encoder` computes; `gateway_embedding_fields` defines the request fields.

    options:
      truncate: true      # cut texts that are too long, unless the request says otherwise; default: 400
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import (
    ConfigError,
    Format,
    ModelSpec,
    Problem,
    describe,
    has_code,
    hookimpl,
    peek_architecture,
    peek_config,
    peek_json,
    peek_weights,
)

FRAMEWORK = "sentence-transformers"
TARGET = "gateway_sentence_transformers.model:SentenceTransformerModel"
FORMAT = Format(
    files="modules.json, config_sentence_transformers.json",
    routes=("/v1/embeddings",),
    needs=("sentence_transformers", "torch"),
    install="pip install 'model-gateway[sentence-transformers]'",
)
WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "[!.]*/*.safetensors", "[!.]*/pytorch_model.bin")
MADE_OF = ("modules.json", "1_Pooling/config.json")  # the load refuses one without the other


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("sentence-transformers", FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from .left_out import left_out, other_heads

    if not _is_ours(path):
        return None
    spec = describe(
        path,
        target=TARGET,
        format=FRAMEWORK,
        overrides=overrides,
        slots=64,  # callers whose texts may share a pass; they wait, they do not compute in parallel
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    # Not part of the options, which config.yaml may set too: only the operator may allow a directory to run code.
    place = peek_weights(path)
    spec = replace(spec, notes=(*spec.notes, *left_out(place)), asides=(*spec.asides, *other_heads(place)))
    return replace(spec, config={**spec.config, "trust_remote_code": bool(overrides.get("trust_remote_code"))})


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report what the load would report before it reads the weights, and tokenizers without a vocabulary."""
    from . import loadable

    if spec.target != TARGET or spec.python is not None or (place := peek_weights(spec.root)) is None:
        return  # other environments may have another version of the library
    try:
        loadable.check(place, trusted=bool(spec.config.get("trust_remote_code")))
    except ConfigError as error:
        where, _, what = str(error).partition(": ")  # possibly a folder in it
        yield Problem(where=where, what=what, code="unloadable", model=spec.name)
        return
    if note := loadable.assumed(place):
        yield Problem(where=str(spec.root), what=note, level="warning", code="assumed_pooling", model=spec.name)


def _is_ours(path: Path) -> bool:
    config = peek_config(path)
    if "framework" in config:  # overrides detection
        return bool(config["framework"] == FRAMEWORK)
    weights = peek_weights(path)
    if weights is None or has_code(path):
        return False
    if _has_only_onnx(weights):
        return False
    about = weights / "config_sentence_transformers.json"
    if not (about.is_file() or any((weights / name).is_file() for name in MADE_OF)):
        return False
    try:
        if about.is_file() and not isinstance(peek_json(about), dict):
            raise ValueError("it is a list, or a bare value")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{about} is not a JSON object ({error}); get the model's files again") from error
    found = peek_architecture(weights)
    return found is None or found.is_saved_by == "transformers"  # cross and sparse encoders give no such vectors


def _has_only_onnx(place: Path) -> bool:
    """Return whether the weights of a folder are an ONNX file, which another plugin serves."""
    if not any(next(place.glob(pattern), None) for pattern in ("*.onnx", "onnx/*.onnx")):
        return False
    return not any(next(place.glob(pattern), None) for pattern in WEIGHTS)
