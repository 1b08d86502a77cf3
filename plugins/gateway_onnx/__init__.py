"""Serve an ONNX file: named inputs in, named outputs out; exports of transformers with their tokenizer take texts.

The hooks are here, and import the other modules when they are called. `detection` finds the file, `header` reads it
with `protobuf` and `faults` checks it, without the runtime. `OnnxModel` in `model` answers predict and decisions; it
uses `tables` and `values`, `schema` and `decisions`. The classes in `texts` answer embeddings, classify and rerank,
with `encoder` and `pooling`.

Options in config.yaml: `file`, the name of the model if there are several; `classes`, the labels of probabilities;
`threads` of one call; for texts `truncate`, whether too long ones are cut. In gateway.toml also `custom_ops`, libraries
with operators, which are code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_config, peek_weights

TARGETS = {
    "predict": "gateway_onnx.model:OnnxModel",
    "embeddings": "gateway_onnx.texts:OnnxEmbedder",
    "classify": "gateway_onnx.texts:OnnxClassifier",
    "rerank": "gateway_onnx.texts:OnnxReranker",
}
FORMAT = Format(
    files="*.onnx, also with tokenizer.json",
    routes=(
        *("predict", "/v2/models/{id}/infer", "/v1/decisions"),
        *("/v1/embeddings", "/v1/classify", "/v1/rerank", "/v1/score"),
    ),
    needs=("onnxruntime", "numpy"),
    install="pip install 'model-gateway[onnx]'",
)
SLOTS = 4  # a session is only read, so calls may share it, and it computes without the GIL
BATCH = 64  # texts of several calls; passes through the network are smaller


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("onnx", FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    from gateway_checkpoints.batching import batched

    from .detection import FRAMEWORK, is_ours, model_file, text_task

    if not is_ours(path):
        return None
    given = overrides.get("options") or {}
    task = "predict"
    if place := peek_weights(path):
        model_file(place, path, {**(peek_config(path).get("options") or {}), **given})
        task = text_task(place)
    spec = describe(
        path,
        target=TARGETS[task],
        format=FRAMEWORK,
        overrides=overrides,
        slots=SLOTS,
        needs=FORMAT.needs if task == "predict" else (*FORMAT.needs, "tokenizers"),
        install=FORMAT.install,
    )
    if task != "predict":
        spec = batched(spec, BATCH)
    # Not read from the class's options, which config.yaml may set too: a library is code, which the operator allows.
    return replace(spec, config={**spec.config, "custom_ops": [str(each) for each in given.get("custom_ops", ())]})


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report a file that is damaged, incomplete, too new, or needs code. The runtime is not imported."""
    from .detection import model_file
    from .faults import check_file

    if spec.target not in TARGETS.values() or (place := peek_weights(spec.root)) is None:
        return
    try:
        file = model_file(place, spec.root, spec.config.get("options") or {})
        header = check_file(file, custom=bool(spec.config.get("custom_ops")))
        if spec.target != TARGETS["predict"]:
            from .settings import read_settings

            read_settings(place, header, file)
    except ConfigError as error:
        yield Problem(where=str(spec.root), what=str(error), code="unloadable", model=spec.name)
