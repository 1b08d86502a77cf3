"""The Open Inference Protocol against real workers: typed predicts, and lazy models that come and go."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing import Gateway

from .conftest import write_models

PATIENCE = 60.0  # seconds for what should come at once
TYPED = """
from typing import Any

import numpy
from pydantic import BaseModel

class Table(BaseModel):
    rows: list[list[float]]
    names: list[str] = []
    scale: float = 1.0
    exact: bool = False

class Sums(BaseModel):
    sums: list[float]
    names: list[str]
    exact: bool

class Model:
    def predict(self, table: Table) -> Sums:
        if not table.rows:
            raise ValueError("secret details")
        sums = [table.scale * sum(row) for row in table.rows]
        return Sums(sums=sums, names=table.names, exact=table.exact)
"""
ARRAY = """
import numpy
from pydantic import BaseModel

class Input(BaseModel):
    x: list[float]

class Model:
    def predict(self, inputs: Input):
        return numpy.outer(inputs.x, inputs.x).astype("float32")
"""
STREAM = """
from pydantic import BaseModel

class Input(BaseModel):
    words: list[str]

class Model:
    def predict(self, inputs: Input):
        yield from inputs.words
"""
MODELS = {"typed": TYPED, "array": ARRAY, "stream": STREAM, "lazy": ARRAY}
SETTINGS = '[models.lazy]\nload = "lazy"\n'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("gateway")
    write_models(root / "models", {name: {"model.py": text} for name, text in MODELS.items()})
    (root / "gateway.toml").write_text(SETTINGS)
    with Gateway(root / "models", cwd=root) as running:
        yield running


def ask(gateway: Gateway, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def tensor(name: str, datatype: str, *data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": list(data)}


def test_tensors_become_the_fields_of_a_pydantic_model(gateway: Gateway) -> None:
    body = {
        "id": "42",
        "parameters": {"scale": 0.5},
        "inputs": [
            tensor("rows", "FP32", 1, 2, 3, 4, shape=[2, 2]),
            tensor("names", "BYTES", "a", "b"),
            tensor("exact", "BOOL", True),
        ],
    }
    status, answer = ask(gateway, "POST", "/v2/models/typed/versions/1/infer", body)
    assert status == 200
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "typed", "1")
    assert answer["outputs"] == [
        {"name": "sums", "datatype": "FP64", "shape": [2], "data": [1.5, 3.5]},
        {"name": "names", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
        {"name": "exact", "datatype": "BOOL", "shape": [1], "data": [True]},
    ]


def test_an_array_is_a_tensor_of_its_shape(gateway: Gateway) -> None:
    status, answer = ask(gateway, "POST", "/v2/models/array/infer", {"inputs": [tensor("x", "FP32", 1, 2)]})
    assert (status, answer["outputs"]) == (
        200,
        [{"name": "output-0", "datatype": "FP64", "shape": [2, 2], "data": [1.0, 2.0, 2.0, 4.0]}],
    )


def test_a_stream_is_one_text(gateway: Gateway) -> None:
    body = {"inputs": [tensor("words", "BYTES", "a", "b")]}
    status, answer = ask(gateway, "POST", "/v2/models/stream/infer", body)
    assert (status, answer["outputs"][0]["data"]) == (200, ["ab"])


def test_what_pydantic_refuses_is_400_and_what_the_model_raises_is_500(gateway: Gateway) -> None:
    status, answer = ask(gateway, "POST", "/v2/models/typed/infer", {"inputs": [tensor("rows", "FP32", 1.0)]})
    assert status == 400 and "rows" in answer["error"]
    status, answer = ask(gateway, "POST", "/v2/models/typed/infer", {"inputs": [tensor("rows", "FP32", shape=[0])]})
    assert status == 500 and "secret" not in answer["error"]


def test_the_schema_is_the_metadata(gateway: Gateway) -> None:
    status, answer = ask(gateway, "GET", "/v2/models/typed")
    assert (status, answer["platform"]) == (200, "python")
    assert [(item["name"], item["datatype"], item["shape"]) for item in answer["inputs"]] == [
        ("rows", "FP64", [-1, -1]),
        ("names", "BYTES", [-1]),
        ("scale", "FP64", [1]),
        ("exact", "BOOL", [1]),
    ]
    assert [item["name"] for item in answer["outputs"]] == ["sums", "names", "exact"]


def test_a_lazy_model_is_loaded_and_unloaded_by_name(gateway: Gateway) -> None:
    def state() -> str:
        _, index = ask(gateway, "POST", "/v2/repository/index", {})
        return next(str(item["state"]) for item in index if item["name"] == "lazy")

    body = {"inputs": [tensor("x", "FP32", 3)]}
    for _ in range(2):
        assert state() == "UNAVAILABLE" and ask(gateway, "GET", "/v2/models/lazy/ready")[0] == 503
        assert ask(gateway, "POST", "/v2/repository/models/lazy/load", {}) == (200, {})
        assert state() == "READY" and ask(gateway, "GET", "/v2/models/lazy/ready")[0] == 200
        status, answer = ask(gateway, "POST", "/v2/models/lazy/infer", body)
        assert (status, answer["outputs"][0]["data"]) == (200, [9.0])
        assert ask(gateway, "POST", "/v2/repository/models/lazy/unload", {}) == (200, {})
    status, answer = ask(gateway, "POST", "/v2/models/lazy/infer", body)  # which loads it
    assert (status, answer["outputs"][0]["data"]) == (200, [9.0])
