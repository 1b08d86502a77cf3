"""Tables as the inputs of a graph, and its probabilities as decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gateway_onnx
import gateway_sklearn
import gateway_xgboost
import numpy as np
import pytest
from closeness import assert_near
from fakes import PATIENT
from graphs import FLOAT, INT64, ML, OPSET, STRING, direct, loaded, model_of, node, plain, refusal, save, value
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow_cases import NAMES, bodies, mlmodel
from onnx import helper
from tabular_cases import TABLE, WIDTH

from gateway import BadRequest, ConfigError

RECORDS = [{"size": 1.5, "colour": "red"}, {"size": 2, "colour": "blue"}]
ROWS = [[1.5, "red"], [2, "blue"]]
COLUMNS = {"size": [1.5, 2], "colour": ["red", "blue"]}
SPLIT = {"columns": ["colour", "size"], "data": [["red", 1.5], ["blue", 2]]}


def by_column() -> Any:
    """A graph with an input for each column: of rows of one value, and of bare values."""
    inputs = [value("size", FLOAT, ["n", 1]), value("colour", STRING, ["n"])]
    outputs = [value("s", FLOAT, ["n", 1]), value("c", STRING, ["n"])]
    return model_of([node("Identity", ["size"], ["s"]), node("Identity", ["colour"], ["c"])], inputs, outputs)


def linear(labels: Any = None, *, zipped: bool) -> Any:
    """A classifier of three classes over a matrix, as converters of scikit-learn write it."""
    classes = {"classlabels_strings": labels} if labels else {"classlabels_ints": [0, 1, 2]}
    weights = np.random.default_rng(3).normal(size=(3, WIDTH))
    judge = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "p" if zipped else "probabilities"],
        domain="ai.onnx.ml",
        coefficients=weights.ravel().tolist(),
        intercepts=[0.1, 0.2, 0.3],
        multi_class=0,
        post_transform="SOFTMAX",
        **classes,
    )
    outputs = [value("label", STRING if labels else INT64, ["n"])]
    nodes = [judge]
    if zipped:
        names = {"classlabels_strings": labels} if labels else {"classlabels_int64s": [0, 1, 2]}
        nodes.append(helper.make_node("ZipMap", ["p"], ["output_probability"], domain="ai.onnx.ml", **names))
        key = STRING if labels else INT64
        inner = helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, None))
        outputs.append(helper.make_value_info("output_probability", helper.make_sequence_type_proto(inner)))
    else:
        outputs.append(value("probabilities", FLOAT, ["n", 3]))
    return model_of(nodes, [value("x", FLOAT, ["n", WIDTH])], outputs, opsets=[OPSET, ML])


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("word", ["inputs", "instances", "records", "dataframe_records"])
@pytest.mark.parametrize("form", [RECORDS, ROWS, COLUMNS, SPLIT], ids=["records", "rows", "columns", "split"])
def test_every_form_gives_each_input_its_column(
    form: Any, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(save(by_column(), tmp_path), monkeypatch)
    answer = model.predict({word: form, "model": "it"})
    assert plain(answer["s"]) == [[1.5], [2.0]] and plain(answer["c"]) == ["red", "blue"]


def test_rows_are_the_only_input_and_may_stand_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save(linear(zipped=False), tmp_path), monkeypatch)
    rows = TABLE.tolist()
    wanted = direct(tmp_path, {"x": TABLE})
    for body in ({"inputs": rows}, {"instances": rows}, rows, {"dataframe_split": {"data": rows}}, {"x": rows}):
        answer = model.predict(body)
        assert all(np.array_equal(answer[name], wanted[name]) for name in ("probabilities", "label"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": ROWS, "instances": ROWS}, "inputs and instances both hold rows"),
        ({"inputs": ROWS, "size": [[1]]}, "'size' is sent beside inputs"),
        ({"inputs": 5}, "inputs has to have a column for each input: size, colour"),
        ({"inputs": [[1.5]]}, "inputs has to have a column for each input"),
        ({"inputs": [{"size": 1}, {"colour": "red"}]}, "inputs[1] has other names than inputs[0]"),
        ({"inputs": [{"size": 1}]}, "the input colour is missing"),
        ({"inputs": [{**RECORDS[0], "more": 1}]}, "the model has no input 'more'"),
        ({"inputs": {**COLUMNS, "size": [1.5]}}, "n is 2 here, but 1 in an input before it"),
        ({"dataframe_split": ROWS}, "dataframe_split has to be an object with columns and data"),
        ({"dataframe_split": {"columns": ["size", "size"], "data": [[1, 2]]}}, "columns has size more than once"),
        ([1, 2], "the body has to have a column for each input"),
    ],
)
def test_tables_that_do_not_fit_are_told_why(
    body: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in refusal(loaded(save(by_column(), tmp_path), monkeypatch), body)


def test_a_graph_may_have_an_input_of_the_name_of_a_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = model_of([node("Identity", ["inputs"], ["y"])], [value("inputs", FLOAT, ["n"])], [value("y", FLOAT, ["n"])])
    model = loaded(save(one, tmp_path), monkeypatch)
    assert plain(model.predict({"inputs": [1, 2]})["y"]) == plain(model.predict({"instances": [1, 2]})["y"]) == [1, 2]


def test_names_of_columns_need_the_signature_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = save(linear(zipped=False), tmp_path)
    model = loaded(place, monkeypatch)
    split, named, *_ = bodies()
    for body in (split, named):
        assert "has names of columns, which the model does not have" in refusal(model, body)
    mlmodel(place, "onnx", {"data": "model.onnx", "onnx_version": "1.23.2"})
    assert gateway_xgboost.find_model(place, {}) is None is gateway_sklearn.find_model(place, {})
    model = loaded(place, monkeypatch)
    chances = direct(place, {"x": TABLE})["probabilities"]
    for body in bodies():
        assert np.array_equal(model.predict(body)["probabilities"], chances)
    assert "lacks e" in refusal(model, {"dataframe_split": {"columns": NAMES[:4], "data": [[1, 1, 1, 1]]}})
    assert "has unknown 'f'" in refusal(model, {"inputs": [dict.fromkeys([*NAMES, "f"], 1)]})


def test_a_graph_of_mlflow_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(by_column(), tmp_path, "best.onnx")
    save(by_column(), tmp_path, "other.onnx")
    mlmodel(tmp_path, "onnx", {"data": "best.onnx"})
    assert loaded(tmp_path, monkeypatch).predict({"inputs": RECORDS})
    (tmp_path / "best.onnx").unlink()
    with pytest.raises(ConfigError, match=r"MLmodel names best\.onnx, which is missing"):
        gateway_onnx.find_model(tmp_path, {})


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────────

LABELS = ["cat", "dog", "owl"]


@pytest.mark.parametrize("zipped", [True, False], ids=["maps", "a matrix"])
def test_questions_have_the_probabilities_of_the_graph(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = save(linear(LABELS, zipped=zipped), tmp_path)
    model = loaded(place, monkeypatch, options={} if zipped else {"classes": LABELS})
    choice = {"type": "choice", "instructions": "?", "choices": [{"value": name} for name in LABELS[::-1]]}
    statement = {"type": "predicate", "instructions": "dog"}
    chances = direct(place, {"x": TABLE})["output_probability" if zipped else "probabilities"]
    for row, wanted in zip(TABLE, chances, strict=True):
        wanted = [wanted[name] for name in LABELS] if zipped else wanted.tolist()
        text = ",".join(map(str, row.tolist()))
        for one in (text, f"[{text}]", f"[[{text}]]", json.dumps({"x": [row.tolist()]})):
            found = model.decide({"input": one, "questions": [choice, statement]})["answers"]
            assert_near(found[0], wanted[::-1], 1e-5)
            assert_near(found[1], wanted[1], 1e-5)


def test_labels_that_the_file_lacks_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save(linear(zipped=False), tmp_path), monkeypatch)
    ask = {"type": "predicate", "instructions": "owl"}
    with pytest.raises(BadRequest, match="have: 0, 1, 2"):
        model.decide({"input": "1,2,3,4,5", "questions": [ask]})
    with pytest.raises(ConfigError, match="classes has to be a list of 3 different labels"):
        loaded(tmp_path, monkeypatch, options={"classes": ["a", "b"]})


def test_a_record_is_a_row_of_a_graph_by_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = model_of(
        [node("Concat", ["a", "b"], ["probabilities"], axis=1)],
        [value("a", FLOAT, ["n", 1]), value("b", FLOAT, ["n", 1])],
        [value("probabilities", FLOAT, ["n", 2])],
    )
    model = loaded(save(halves, tmp_path), monkeypatch, options={"classes": ["no", "yes"]})
    ask = {"type": "predicate", "instructions": "Is it?"}
    assert_near(model.decide({"input": '{"a": 0.25, "b": 0.75}', "questions": [ask]})["answers"], [0.75], 1e-6)
    for text, told in (
        ("x", "send JSON, or numbers"),
        ('{"a": [1, 2], "b": [1, 2]}', "it holds 2 rows"),
        ("{", "JSON"),
    ):
        with pytest.raises(BadRequest, match=told) as caught:
            model.decide({"input": text, "questions": [ask]})
        assert caught.value.param == "input"


def test_a_graph_without_probabilities_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hasattr(loaded(save(by_column(), tmp_path), monkeypatch), "decide")


def test_whatever_a_body_is_it_is_answered_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save(by_column(), tmp_path), monkeypatch)
    cells = st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.sampled_from(["red", 1.5])
    names = st.sampled_from(["size", "colour", "columns", "data", "more"])
    words = st.sampled_from(["inputs", "instances", "records", "dataframe_split", "dataframe_records", "size"])
    anything = st.recursive(
        cells, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
    )

    @settings(PATIENT, max_examples=500)
    @given(anything | st.dictionaries(words, anything, max_size=2))
    def all_are(body: Any) -> None:
        try:
            model.predict(body)
        except BadRequest as error:
            assert error.message

    all_are()
