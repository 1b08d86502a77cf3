"""Graphs of a few nodes, made with the library of the format, and directories with them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_onnx
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from gateway import BadRequest

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
OPSET = helper.make_opsetid("", 17)
ML = helper.make_opsetid("ai.onnx.ml", 3)
value = helper.make_tensor_value_info
node = helper.make_node
Serve = Callable[..., Any]


def model_of(
    nodes: Any, inputs: Any, outputs: Any, *, constants: Any = (), opsets: Any = (OPSET,), ir: int = 8, **more: Any
) -> Any:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(constants))
    found = helper.make_model(graph, opset_imports=list(opsets), **more)
    found.ir_version = ir
    return found


def same(kind: int, dims: Any = ("n",), **more: Any) -> Any:
    """A graph that returns its input."""
    return model_of([node("Identity", ["x"], ["y"])], [value("x", kind, dims)], [value("y", kind, dims)], **more)


def doubled(**more: Any) -> Any:
    """A graph of rows of two numbers, with weights."""
    weight = helper.make_tensor("w", FLOAT, [2], [2.0, 2.0])
    rows = [value("x", FLOAT, ["n", 2])], [value("y", FLOAT, ["n", 2])]
    return model_of([node("Mul", ["x", "w"], ["y"])], *rows, constants=[weight], **more)


def external(location: str = "weights.bin", **entries: Any) -> Any:
    """`doubled` with its weights in another file."""
    found = doubled()
    weight = found.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, told in {"location": location, **entries}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, str(told)
    return found


def save(model: Any, place: Path, name: str = "model.onnx") -> Path:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return place


def problems(place: Path, **overrides: Any) -> list[str]:
    """What discovery and the check say of a directory."""
    try:
        spec = gateway_onnx.find_model(place, overrides)
    except Exception as error:
        return [str(error)]
    assert spec is not None, f"{place} is not recognised"
    return [problem.what for problem in gateway_onnx.check_model(spec)]


def loaded(place: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Any:
    """The model of a directory, found as discovery does, checked, and loaded as a worker does."""
    spec = gateway_onnx.find_model(place, overrides)
    assert spec is not None, f"{place} is not recognised"
    assert list(gateway_onnx.check_model(spec)) == []
    monkeypatch.chdir(place)
    module, _, name = spec.target.partition(":")
    model = getattr(importlib.import_module(module), name)(spec.config)
    model.load()
    return model


def direct(place: Path, feed: Any, name: str = "model.onnx") -> dict[str, Any]:
    """The answer of the library itself."""
    session = onnxruntime.InferenceSession(str(place / name), providers=["CPUExecutionProvider"])
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feed), strict=True))


def plain(found: Any) -> Any:
    """Arrays as JSON has them."""
    if isinstance(found, dict):
        return {str(key): plain(each) for key, each in found.items()}
    if isinstance(found, list):
        return [plain(each) for each in found]
    return found.tolist() if isinstance(found, np.ndarray | np.generic) else found


def refusal(model: Any, body: Any) -> str:
    try:
        model.predict(body)
    except BadRequest as error:
        assert 0 < len(error.message) < 2000
        return error.message
    raise AssertionError(f"{body} was answered")
