"""Small models of tables: what each library makes of the iris flowers, and the library itself as a class calls it.

The servers of the peers import this in environments of their own, with the library of one kind at a time.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROW = [5.1, 3.5, 1.4, 0.2]
NAMES = {"xgboost": "model.json", "lightgbm": "model.txt", "onnx": "model.onnx"}  # of the files, by kind
Predict = Callable[[list[list[float]]], list[list[float]]]  # of rows: the probabilities of the three classes


@contextlib.contextmanager
def models(kind: str) -> Iterator[Path]:
    """A directory of models with one, `model`, that is a file of its library only."""
    with tempfile.TemporaryDirectory(prefix="tables-bench-") as name:
        file = Path(name, "model", NAMES[kind])
        file.parent.mkdir()
        _MAKERS[kind](file)
        yield Path(name)


def _flowers() -> tuple[Any, Any]:
    from sklearn.datasets import load_iris

    return load_iris(return_X_y=True)


def _xgboost(file: Path) -> None:
    import xgboost

    rows, labels = _flowers()
    made = xgboost.XGBClassifier(n_estimators=50, max_depth=3, n_jobs=1, random_state=1).fit(rows, labels)
    made.save_model(file)


def _lightgbm(file: Path) -> None:
    import lightgbm

    rows, labels = _flowers()
    asked = {
        "objective": "multiclass",
        "num_class": 3,
        "num_threads": 1,
        "verbose": -1,
        "seed": 1,
        "deterministic": True,
    }
    lightgbm.train(asked, lightgbm.Dataset(rows, labels), 50).save_model(file)


def _onnx(file: Path) -> None:
    """One hidden layer of 64 whose weights are those of a logistic regression, split in two."""
    import numpy
    import onnx
    from onnx import helper, numpy_helper
    from sklearn.linear_model import LogisticRegression

    rows, labels = _flowers()
    found = LogisticRegression(max_iter=500).fit(rows, labels)
    spread = numpy.random.default_rng(1).normal(size=(3, 64))
    weights = {
        "w1": found.coef_.T @ spread,
        "b1": found.intercept_ @ spread,
        "w2": numpy.linalg.pinv(spread),
        "b2": numpy.zeros(3),
    }
    nodes = [
        helper.make_node("Gemm", ["inputs", "w1", "b1"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "iris",
        [helper.make_tensor_value_info("inputs", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value.astype(numpy.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


_MAKERS = {"xgboost": _xgboost, "lightgbm": _lightgbm, "onnx": _onnx}


def load(kind: str, file: str) -> Predict:
    """The library's own call, as its documentation shows it for single rows, on one thread."""
    import numpy

    if kind == "xgboost":
        import xgboost

        booster = xgboost.Booster({"nthread": 1}, model_file=file)
        return lambda rows: booster.inplace_predict(numpy.array(rows, numpy.float32)).tolist()  # type: ignore[no-any-return]
    if kind == "lightgbm":
        import lightgbm

        trees = lightgbm.Booster(model_file=file)
        return lambda rows: trees.predict(numpy.array(rows), num_threads=1).tolist()  # type: ignore[union-attr,no-any-return]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda rows: session.run(None, {"inputs": numpy.array(rows, numpy.float32)})[0].tolist()  # type: ignore[no-any-return]


def is_first(body: str, answer: bytes, binary_from: int | None) -> bool:
    """One row of probabilities, of which the first class has the largest, which is right for `ROW`."""
    (row,) = json.loads(answer)["probabilities"]
    return len(row) == 3 and row[0] > 0.9 and abs(sum(row) - 1) < 1e-5
