"""The classes of every kind, as the gateway and Truss read them: files of a model directory.

The kinds: `async64` and `sync64` (an echo with 64 slots), `one` (with one), `batch` (with batches), `lists` and `numpy`
(embeddings), `tensor` (an echo of typed numbers), `stream`, and `neighbour` (a light model and one that burns, in
processes of their own).
"""

from __future__ import annotations

from collections.abc import Mapping

from .answers import BATCH

SLOTS = 64
_SLOTS = f"runtime:\n  predict_concurrency: {SLOTS}\n"
_ECHO = "class Model:\n    def predict(self, x):\n        return x\n"
_STREAM = """
from benchmarks.peers.answers import CHUNK

class Model:
    def predict(self, x):
        for _ in range(x["chunks"]):
            yield CHUNK
"""
_BATCH = """
from benchmarks.peers.answers import computed

class Model:
    def predict_batch(self, inputs):
        return computed(inputs)
"""
_TENSOR = """
import pydantic

class Inputs(pydantic.BaseModel):
    x: list[float]

class Model:
    def predict(self, inputs: Inputs):
        return {"y": inputs.x}
"""
_BURN = """
from benchmarks.peers.answers import burn

class Model:
    def predict(self, x):
        return burn(x["until"])
"""
_VECTORS = """
import numpy
from benchmarks.peers.answers import embeddings, rows

class Model:
    def load(self):
        self.rows = {made}

    def embeddings(self, {given}):
        return {returned}
"""
_MADE = {"lists": "rows()", "numpy": "numpy.array(rows(), numpy.float32)"}
_FILES: dict[str, dict[str, str]] = {
    "async64": {"model/model.py": _ECHO.replace("def", "async def"), "config.yaml": _SLOTS},
    "sync64": {"model/model.py": _ECHO, "config.yaml": _SLOTS},
    "one": {"model/model.py": _ECHO, "config.yaml": ""},
    "stream": {"model/model.py": _STREAM, "config.yaml": _SLOTS},
    "batch": {"model/model.py": _BATCH, "config.yaml": f"runtime:\n  batch_size: {BATCH}\n"},
    "tensor": {"model/model.py": _TENSOR, "config.yaml": ""},
    **{
        kind: {"model/model.py": _VECTORS.format(made=made, given="inputs", returned="self.rows"), "config.yaml": ""}
        for kind, made in _MADE.items()
    },
}
SETTINGS = {"neighbour": "[models.burn]\nreplicas = 2\n"}


def directories(kind: str) -> Mapping[str, str]:
    """The files of the gateway's directory of models."""
    if kind == "neighbour":
        return {"light/model.py": _ECHO, "burn/model.py": _BURN}
    return {f"model/{file}": text for file, text in _FILES[kind].items()}


def truss(kind: str) -> Mapping[str, str]:
    """The files of a Truss. Its server sends what the model returns, so the model writes the answer of embeddings."""
    if kind not in _MADE:
        return _FILES[kind]
    written = _VECTORS.format(made=_MADE[kind], given="body", returned="embeddings(self.rows, body)")
    # Truss loads no class without it.
    return {"model/model.py": f"{written}\n    def predict(self, x):\n        return x\n", "config.yaml": ""}
