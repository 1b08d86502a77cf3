"""MLServer over the class with batches and over models of tables, in its own environment.

It joins the tensors of a batch along their first dimension. Its own runtimes for tables decode and encode as here, and
need libraries of an older version.
"""

from __future__ import annotations

import os

from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
    ResponseOutput,
)

from .answers import computed
from .tables import load


class Echo(MLModel):  # type: ignore[misc]
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = payload.inputs[0]
        data = computed(list(given.data))
        output = ResponseOutput(name="y", shape=given.shape, datatype=given.datatype, data=data)
        return InferenceResponse(model_name=self.name, outputs=[output])


class Table(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self._predict = load(*os.environ["BENCH_TABLE"].split(":", 1))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = self._predict(NumpyCodec.decode_input(payload.inputs[0]))
        shape, data = [len(rows), len(rows[0])], [value for row in rows for value in row]
        output = ResponseOutput(name="probabilities", shape=shape, datatype="FP32", data=data)
        return InferenceResponse(model_name=self.name, outputs=[output])
