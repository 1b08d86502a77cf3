"""Predict of any graph, with answers compared with those of the runtime, called directly."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fakes import PATIENT
from graphs import (
    FLOAT,
    INT64,
    ML,
    OPSET,
    STRING,
    direct,
    doubled,
    loaded,
    model_of,
    node,
    plain,
    refusal,
    same,
    save,
    value,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tensor_cases import ANYTHING, CELLS, NAMES, answers_or_refuses, nested

from gateway import ConfigError
from gateway.examples.values import example
from gateway.worker.bodies.truss import document

MODELS = Path(__file__).parents[3] / "models"
RANDOM = np.random.default_rng(7)
WHOLE = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
FLOATS = [np.float16, np.float32, np.float64]


def kind_of(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def copied(source: Path, place: Path) -> Path:
    return Path(shutil.copytree(source, place))


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_digits_are_those_of_the_runtime_for_random_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = copied(MODELS / "digits-cnn", tmp_path / "it")
    model = loaded(place, monkeypatch)
    for count in (0, 1, 2, 200):
        images = RANDOM.uniform(-1, 20, (count, 8, 8)).astype(np.float32)
        found = model.predict({"image": images.tolist(), "model": "digits-cnn"})
        assert plain(found) == plain(direct(place, {"image": images}))
    every = RANDOM.uniform(0, 16, (200, 8, 8)).astype(np.float32)
    alone = [model.predict({"image": [each.tolist()]})["digit"].tolist()[0] for each in every]
    assert alone == direct(place, {"image": every})["digit"].tolist()


def test_speech_is_told_as_by_the_runtime_for_random_sounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec("faster_whisper")
    if found is None or found.origin is None:
        pytest.skip("needs: pip install --no-deps -r requirements-demo.txt")
    (tmp_path / "vad").mkdir()
    shutil.copy(Path(found.origin).parent / "assets/silero_vad_v6.onnx", tmp_path / "vad")
    model = loaded(tmp_path / "vad", monkeypatch)
    shapes = {"input": (3, 576), "h": (1, 1, 128), "c": (1, 1, 128)}
    for _ in range(200):
        feed = {name: RANDOM.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        assert plain(model.predict(plain(feed))) == plain(direct(tmp_path / "vad", feed, "silero_vad_v6.onnx"))


@pytest.mark.parametrize("dtype", [*WHOLE, *FLOATS, np.bool_], ids=lambda dtype: dtype.__name__)
def test_every_type_comes_back_as_it_was(dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = save(same(kind_of(dtype), ["n", "m"]), tmp_path)
    model = loaded(place, monkeypatch)
    kind = np.dtype(dtype).kind
    for _ in range(200):
        shape = RANDOM.integers(0, 5, 2)
        limits = np.iinfo(dtype) if kind in "iu" else None
        if limits:
            array = RANDOM.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:
            array = (RANDOM.normal(size=shape) * 1000).astype(dtype) if kind == "f" else RANDOM.random(shape) < 0.5
        assert plain(model.predict({"x": array.tolist()})) == plain(direct(place, {"x": array}))
        answer = model.predict({"x": array})["y"]  # as in a body of msgpack
        assert answer.dtype == array.dtype and (answer == array).all()


def test_texts_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save(same(STRING), tmp_path), monkeypatch)
    for texts in ([], [""], ["ä😀", "b\0c", "null", " 5 "], ["x" * 100_000]):
        assert model.predict({"x": texts}) == {"y": texts}
    assert "x[1] has to be a text; it is 5" in refusal(model, {"x": ["a", 5]})
    assert "x[0] has to be a text; it is null" in refusal(model, {"x": [None]})
    assert "half a character" in refusal(model, {"x": ["\ud800"]})
    assert "unequal lengths" in refusal(model, {"x": [["a"], ["b", "c"]]})


def test_numbers_without_a_list_are_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save(same(FLOAT, []), tmp_path), monkeypatch)
    assert json.loads(document(model.predict({"x": -3}))) == {"y": -3.0}
    assert "x has the shape [1], but the model takes []" in refusal(model, {"x": [1]})


def test_any_shape_is_taken_where_the_graph_says_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save(same(FLOAT, None), tmp_path), monkeypatch)
    for value_ in (1.0, [1.0], [[[1.0, 2.0]]], []):
        assert plain(model.predict({"x": value_})) == {"y": value_}


def test_nan_and_infinity_are_sent_as_every_predict_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save(same(FLOAT), tmp_path), monkeypatch)
    found = model.predict({"x": [None, math.nan, math.inf, -math.inf]})["y"].tolist()
    assert math.isnan(found[0]) and math.isnan(found[1]) and found[2:] == [math.inf, -math.inf]


def classifier(labels: str) -> Any:
    """As skl2onnx makes of a classifier, with a list of objects for its probabilities."""
    names = {"strings": ["cat", "dog"], "int64s": [3, 5]}[labels]
    linear = node(
        "LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
        coefficients=[1.0, -1.0, -1.0, 1.0], intercepts=[0.0, 0.0], post_transform="SOFTMAX",
        **{f"classlabels_{'strings' if labels == 'strings' else 'ints'}": names},
    )  # fmt: skip
    zipmap = node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", **{f"classlabels_{labels}": names})
    key = STRING if labels == "strings" else INT64
    inner = helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, None))
    outputs = [
        value("label", key, ["n"]),
        helper.make_value_info("probabilities", helper.make_sequence_type_proto(inner)),
    ]
    return model_of([linear, zipmap], [value("x", FLOAT, ["n", 2])], outputs, opsets=[OPSET, ML])


@pytest.mark.parametrize("labels", ["strings", "int64s"])
def test_a_map_of_probabilities_becomes_objects(labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = save(classifier(labels), tmp_path)
    model = loaded(place, monkeypatch)
    rows = RANDOM.normal(size=(200, 2)).astype(np.float32)
    found = json.loads(document(model.predict({"x": rows.tolist()})))
    assert found == plain(direct(place, {"x": rows}))
    assert found["probabilities"][0].keys() == {"cat", "dog"} if labels == "strings" else {"3", "5"}
    assert model.output_schema["properties"]["probabilities"]["items"] == {"type": "object"}


def test_sequences_are_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = helper.make_tensor_sequence_value_info
    split = node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0)
    model = loaded(
        save(model_of([split], [value("x", FLOAT, ["n", 2])], [sequence("s", FLOAT, None)]), tmp_path / "a"),
        monkeypatch,
    )
    assert plain(model.predict({"x": [[1, 2], [3, 4]]})) == {"s": [[1, 2], [3, 4]]}
    joined = node("ConcatFromSequence", ["s"], ["y"], axis=0)
    model = loaded(
        save(model_of([joined], [sequence("s", FLOAT, ["n"])], [value("y", FLOAT, None)]), tmp_path / "b"), monkeypatch
    )
    assert plain(model.predict({"s": [[1, 2], [3]]})) == {"y": [1, 2, 3]}
    assert plain(model.predict(example(model.input_schema))) == {"y": [0.5]}
    assert "s has to be a list" in refusal(model, {"s": 5})
    assert "the model refused these inputs: running ConcatFromSequence" in refusal(model, {"s": []})


def test_an_optional_input_may_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["n"]))
    has = node("OptionalHasElement", ["x"], ["y"])
    graph = model_of(
        [has],
        [helper.make_value_info("x", kind)],
        [value("y", TensorProto.BOOL, [])],
        opsets=[helper.make_opsetid("", 18)],
    )
    model = loaded(save(graph, tmp_path), monkeypatch)
    assert [plain(model.predict(body))["y"] for body in ({}, {"x": None}, {"x": [1]})] == [False, False, True]


def test_a_default_may_be_overridden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = doubled()
    graph.graph.input.append(value("w", FLOAT, [2]))
    model = loaded(save(graph, tmp_path), monkeypatch)
    assert plain(model.predict({"x": [[1, 2]]})) == {"y": [[2, 4]]}
    assert plain(model.predict({"x": [[1, 2]], "w": [5, 6]})) == {"y": [[5, 12]]}
    assert model.input_schema["required"] == ["x"]


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────

BAD: dict[str, tuple[Any, str]] = {
    "no object": ("x", "send an object with the inputs of the model: x: float32 [n, 2]"),
    "nothing": ({}, "the input x is missing: it is a float32 [n, 2]"),
    "null": ({"x": None}, "the input x is missing"),
    "another input": ({"x": [[1, 2]], "X": 1}, "the model has no input 'X' (have: x: float32 [n, 2])"),
    "fewer dimensions": ({"x": [1, 2]}, "x has the shape [2], but the model takes [n, 2]"),
    "another length": ({"x": [[1, 2, 3]]}, "x has the shape [1, 3], but the model takes [n, 2]"),
    "ragged": ({"x": [[1, 2], [3]]}, "x is a list of lists of unequal lengths: it has to be a float32 [n, 2]"),
    "ragged below": ({"x": [[1, [2]], [3, 4]]}, "unequal lengths"),
    "a text": ({"x": [[1, "2"]]}, "x[0][1] has to be a number; it is '2'"),
    "an object": ({"x": [[1, {}]]}, "x[0][1] has to be a number; it is an object"),
    "too large": ({"x": [[1, 1e39]]}, "x has a number that is too large for float32"),
    "too large beside null": ({"x": [[None, 1e39]]}, "x has a number that is too large for float32"),
    "far too large": ({"x": [[1, 10**400]]}, "x has a number that is too large for float32"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_input_is_named_with_what_is_expected(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, told = BAD[name]
    assert told in refusal(loaded(save(doubled(), tmp_path), monkeypatch), body)


@pytest.mark.parametrize(
    ("dtype", "wrong", "told"),
    [
        (np.int8, 128, "x has 128, and int8 is from -128 to 127"),
        (np.uint8, -1, "x has -1, and uint8 is from 0 to 255"),
        (np.int64, 2**63, "int64 is from"),
        (np.int64, 1e300, "int64 is from"),
        (np.uint64, 2**64, "uint64 is from"),
        (np.int64, 1.5, "x[1] has to be a whole number; it is 1.5"),
        (np.int64, math.nan, "x[1] has to be a whole number; it is nan"),
        (np.int64, math.inf, "x[1] has to be a whole number; it is inf"),
        (np.int64, None, "x[1] has to be a whole number; it is null"),
        (np.int64, 10**400, "x has a number with very many digits"),
        (np.bool_, 1, "x[1] has to be true or false; it is 1"),
        (np.float16, 1e5, "x has a number that is too large for float16"),
        (np.float64, "nan", "x[1] has to be a number; it is 'nan'"),
    ],
)
def test_a_number_that_a_type_lacks_is_refused(
    dtype: Any, wrong: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(save(same(kind_of(dtype)), tmp_path), monkeypatch)
    first = True if dtype is np.bool_ else 1
    assert told in refusal(model, {"x": [first, wrong]})
    assert plain(model.predict({"x": [first]})) == {"y": [first]}


def test_a_whole_number_may_be_written_as_a_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save(same(INT64), tmp_path), monkeypatch)
    assert plain(model.predict({"x": [1.0, -0.0, 2.0**62, True]})) == {"y": [1, 0, 2**62, 1]}


def test_lengths_of_one_name_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = node("Concat", ["a", "b"], ["y"], axis=0)
    graph = model_of([joined], [value(name, FLOAT, ["n", 2]) for name in "ab"], [value("y", FLOAT, ["m", 2])])
    place = save(graph, tmp_path)
    model = loaded(place, monkeypatch)
    one, two = np.ones((1, 2), np.float32), np.ones((2, 2), np.float32)
    assert direct(place, {"a": one, "b": two})["y"].shape == (3, 2)  # the runtime does not compare them
    assert "b has the shape [2, 2], but the model takes [n, 2]: n is 2 here, but 1" in refusal(
        model, {"a": one.tolist(), "b": two.tolist()}
    )


def test_what_the_graph_itself_refuses_is_a_bad_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = model_of(
        [node("Gather", ["a", "b"], ["y"])],
        [value("a", FLOAT, ["n"]), value("b", INT64, ["m"])],
        [value("y", FLOAT, None)],
    )
    model = loaded(save(graph, tmp_path), monkeypatch)
    told = refusal(model, {"a": [1, 2], "b": [5]})
    assert (
        "the model refused these inputs: running Gather node" in told and "idx=5" in told and "onnxruntime/" not in told
    )


def test_memory_that_is_missing_is_no_fault_of_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = model_of([node("ConstantOfShape", ["x"], ["y"])], [value("x", INT64, ["n"])], [value("y", FLOAT, None)])
    model = loaded(save(graph, tmp_path), monkeypatch)
    with pytest.raises(MemoryError):
        model.predict({"x": [1 << 50]})


def test_a_graph_with_a_division_does_not_take_the_smallest_integer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [value(name, INT64, ["n"]) for name in "ab"]
    graph = model_of([node("Div", ["a", "b"], ["y"])], rows, [value("y", INT64, ["n"])])
    model = loaded(save(graph, tmp_path / "div"), monkeypatch)
    assert "int64 is from -9223372036854775807" in refusal(model, {"a": [-(2**63)], "b": [2]})
    assert "Integer division by zero" in refusal(model, {"a": [1], "b": [0]})
    assert plain(model.predict({"a": [-(2**63) + 1], "b": [-1]})) == {"y": [2**63 - 1]}


# ── schema and load ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_schema_has_a_request_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(copied(MODELS / "digits-cnn", tmp_path / "it"), monkeypatch)
    row = {"type": "array", "items": {"type": "number"}, "minItems": 8, "maxItems": 8}
    image = {"type": "array", "items": row, "minItems": 8, "maxItems": 8}
    assert model.input_schema["properties"]["image"] == {
        "type": "array", "items": image, "description": "float32 [images, 8, 8]"
    }  # fmt: skip
    request = example(model.input_schema)
    assert np.array(request["image"]).shape == (1, 8, 8)
    assert set(model.predict(request)) == set(model.output_schema["properties"]) == {"digit", "probabilities"}


def test_the_example_has_lengths_that_the_graph_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = helper.make_tensor("w", FLOAT, [1, 1, 3, 3], [0.0] * 9)
    shapes = [value("x", FLOAT, ["n", 1, "h", "w"])], [value("y", FLOAT, None)]
    graph = model_of([node("Conv", ["x", "w"], ["y"])], *shapes, constants=[weights])
    model = loaded(save(graph, tmp_path), monkeypatch)
    assert np.array(example(model.input_schema)["x"]).shape == (8, 1, 8, 8)


def test_a_long_example_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(save(same(FLOAT, ["n", 3, 224, 224]), tmp_path), monkeypatch)
    assert "examples" not in model.input_schema


def test_threads_are_those_of_the_options_or_a_share_of_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def threads(**options: Any) -> int:
        session = loaded(place, monkeypatch, options=options).session.inner
        assert session.get_session_options().get_session_config_entry("session.intra_op.allow_spinning") == "0"
        return int(session.get_session_options().intra_op_num_threads)

    place = save(doubled(), tmp_path)
    for cores, wanted in (("1", 1), ("4", 1), ("8", 2), ("many", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", cores)
        assert threads() == wanted
    assert threads(threads=1) == 1
    with pytest.raises(ConfigError, match="threads has to be a whole number"):
        threads(threads=0)


def test_settings_in_the_metadata_of_a_file_have_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = doubled()
    entry = graph.metadata_props.add()
    entry.key, entry.value = "ort_config", '{"session_options": {"intra_op_num_threads": 7, "enable_profiling": 1}}'
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    place = save(graph, tmp_path)
    options = loaded(place, monkeypatch).session.inner.get_session_options()
    assert options.intra_op_num_threads == 1 and not options.enable_profiling


def test_a_gpu_that_the_runtime_cannot_use_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    place = save(doubled(), tmp_path)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        model = loaded(place, monkeypatch)
        assert "this onnxruntime only computes on CPUs; run: pip install onnxruntime-gpu" in capsys.readouterr().out
        assert plain(model.predict({"x": [[1, 2]]})) == {"y": [[2, 4]]}


def test_a_file_that_the_runtime_refuses_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = model_of([node("Foo", ["x"], ["y"])], [value("x", FLOAT, [2])], [value("y", FLOAT, [2])])
    with pytest.raises(
        ConfigError, match=f"cannot be loaded by onnxruntime {onnxruntime.__version__}: .*No Op registered"
    ):
        loaded(save(graph, tmp_path), monkeypatch)


def test_a_library_of_operators_that_is_no_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = save(doubled(), tmp_path)
    with pytest.raises(ConfigError, match=r"custom_ops names '/nowhere/lib\.so', which cannot be loaded"):
        loaded(place, monkeypatch, options={"custom_ops": ["/nowhere/lib.so"]})
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime-extensions"):
        loaded(place, monkeypatch, options={"custom_ops": ["onnxruntime_extensions"]})


# ── any body ─────────────────────────────────────────────────────────────────────────────────────────────────────────

RIGHT = {
    "f": st.lists(st.lists(st.floats(width=32) | st.none() | st.integers(-9, 9), min_size=2, max_size=2), max_size=3),
    "i": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    "u": st.integers(0, 255),
    "h": st.lists(st.floats(width=16), max_size=3),
    "b": st.lists(st.booleans(), max_size=3),
    "s": st.lists(st.text(max_size=3), max_size=3),
    "l": st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=3),
}
BODIES = st.one_of(
    st.fixed_dictionaries(RIGHT),
    *(st.fixed_dictionaries({**RIGHT, name: nested(CELLS) | ANYTHING}) for name in RIGHT),
    st.dictionaries(st.sampled_from(NAMES), nested(CELLS), max_size=9),
    ANYTHING,
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A graph with inputs of all kinds."""
    kinds = {
        "f": (FLOAT, ["n", 2]),
        "i": (INT64, ["m"]),
        "u": (TensorProto.UINT8, []),
        "h": (TensorProto.FLOAT16, None),
    }
    kinds |= {"b": (TensorProto.BOOL, ["k"]), "s": (STRING, ["j"])}
    inputs = [value(name, *kind) for name, kind in kinds.items()]
    inputs.append(helper.make_tensor_sequence_value_info("l", INT64, None))
    nodes = [node("Identity", [name], [f"{name}_"]) for name in (*kinds, "l")]
    nodes += [node("Div", ["i", "i"], ["i2"]), node("Softmax", ["f"], ["f2"]), node("Gather", ["s", "i"], ["s2"])]
    outputs = [value(f"{name}_", kind, None) for name, (kind, _) in kinds.items()]
    outputs += [value("i2", INT64, None), value("f2", FLOAT, None), value("s2", STRING, None)]
    outputs.append(helper.make_tensor_sequence_value_info("l_", INT64, None))
    with pytest.MonkeyPatch.context() as patch:
        return loaded(save(model_of(nodes, inputs, outputs), tmp_path_factory.mktemp("wide")), patch)


@settings(PATIENT, max_examples=200)
@given(body=BODIES)
def test_a_body_is_answered_or_refused(wide: Any, body: Any) -> None:
    answers_or_refuses(wide, body)


@pytest.mark.slow
@settings(PATIENT, max_examples=2000)
@given(body=BODIES)
def test_two_thousand_bodies_are_answered_or_refused(wide: Any, body: Any) -> None:
    answers_or_refuses(wide, body)


def test_lists_of_any_depth_are_refused(wide: Any) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    for name in NAMES:
        refusal(wide, {name: deep})
