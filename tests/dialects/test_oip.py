"""Tensors of the Open Inference Protocol: read strictly, put into the fields of a schema, made of any answer."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import tracemalloc
from typing import Annotated, Any
from unittest import mock

import numpy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.oip import tensors as oip_tensors
from gateway.dialects.oip import values as oip_values
from gateway.dialects.oip.binary import pack, unpack
from gateway.dialects.oip.schema import Takes, kinds_of, metadata
from gateway.dialects.oip.tensors import DATATYPES, INTEGERS, MAX_ROWS, Tensor, read_tensor, to_tensor
from gateway.dialects.oip.values import InferRequest, answer, encode_inputs, from_predict, read, read_raw
from gateway.errors import BadRequest, InvalidOutput, TooLarge


class Inner(pydantic.BaseModel):
    a: int


class Input(pydantic.BaseModel):
    rows: list[list[float]]
    names: list[str] | None = None
    scale: float = 1.0
    label: str | None = None
    exact: bool = False
    inner: Inner | None = None
    anything: Any = None


SCHEMA = Input.model_json_schema()


def tensor(name: str = "rows", data: Any = None, shape: Any = None, datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def predicted(*tensors: dict[str, Any], **request: Any) -> Any:
    return json.loads(encode_inputs(read({"inputs": list(tensors), **request}), Takes(SCHEMA)))


def nested_of(tensor: Tensor) -> Any:
    return json.loads(b"".join(tensor.written()))


def answered(value: Any, request: InferRequest, model: str, request_id: str) -> tuple[dict[str, Any], bytes]:
    shown, raw = answer(value, request, model, request_id)
    return json.loads(shown), raw


def sent(request: InferRequest, schema: Any) -> Any:
    return json.loads(encode_inputs(request, Takes(schema)))


@pytest.mark.parametrize("data", [[1, 2], [[1], [2]], [[1, 2, 3], [1]]])
def test_a_shape_is_repeated_up_to_a_short_length(data: Any) -> None:
    for shape in ([1] * 31 + [2**62], [2**62], [0, *[1000] * 5]):
        with pytest.raises(BadRequest) as caught:
            read_tensor("inputs[0]", tensor(data=data, shape=shape))
        assert str(shape)[:20] in str(caught.value) and len(str(caught.value)) < 64 + 100


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "data", "nested"),
    [
        ([2, 2], [1, 2, 3, 4], [[1, 2], [3, 4]]),
        ([2, 2], [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ([1, 1], 5, [[5]]),
        ([], 5, 5),
        ([0, 3], [], []),
        ([2, 0], [], [[], []]),
        ([2, 0], [[], []], [[], []]),
        ([1, 0, 3], [], [[]]),
        ([2, 1, 2], [1, 2, 3, 4], [[[1, 2]], [[3, 4]]]),
    ],
)
def test_data_is_flat_or_nested_as_its_shape(shape: list[int], data: Any, nested: Any) -> None:
    assert nested_of(read_tensor("x", tensor(data=data, shape=shape))) == nested


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], [1, 2, 3]),
        ([2, 2], [[1, 2], [3]]),
        ([2, 2], [[1, 2, 3, 4]]),
        ([2, 2], [[[1, 2], [3, 4]]]),
        ([4], [[1, 2], [3, 4]]),
        ([2], [1, [2]]),
        ([10**9, 0], []),
        ([-1, 2], [1, 2]),
        ([True], [1]),
        ([1.0], [1]),
        ([1] * 33, [1]),
        ([10**18, 10**18], [1]),
    ],
)
def test_data_that_is_not_of_its_shape_is_refused(shape: list[Any], data: Any) -> None:
    with pytest.raises(BadRequest):
        read_tensor("x", tensor(data=data, shape=shape))


@pytest.mark.parametrize(
    ("datatype", "good", "bad"),
    [
        ("BOOL", True, 1),
        ("INT8", -128, 128),
        ("UINT8", 255, -1),
        ("INT64", 2**63 - 1, 1.0),
        ("UINT64", 2**64 - 1, True),
        ("FP16", 1, "1"),
        ("FP64", 1.5, True),
        ("FP32", 10**308, 10**400),
        ("BYTES", "text", 5),
        ("BYTES", "", None),
    ],
)
def test_elements_are_of_their_datatype(datatype: str, good: Any, bad: Any) -> None:
    assert read_tensor("x", tensor(data=[good], shape=[1], datatype=datatype)).data == [good]
    with pytest.raises(BadRequest):
        read_tensor("x", tensor(data=[bad], shape=[1], datatype=datatype))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": [5]}, "inputs[0]"),
        ({"inputs": [{"name": "a", "datatype": "FP32", "shape": [1]}]}, "inputs[0].data"),
        ({"inputs": [{"name": "a", "datatype": "FP32", "data": [1]}]}, "inputs[0].shape"),
        ({"inputs": [{"name": "a", "shape": [1], "data": [1]}]}, "inputs[0].datatype"),
        ({"inputs": [tensor("a", [1], [1], "FP8")]}, "inputs[0].datatype"),
        ({"inputs": [tensor("a", [1], [1])] * 2}, "inputs"),
        ({"inputs": [], "id": 5}, "id"),
        ({"inputs": [], "outputs": ["a"]}, "outputs[0]"),
        ({"inputs": [], "parameters": []}, "parameters"),
        (
            {"inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]},
            "inputs[0]",
        ),
    ],
)
def test_a_request_that_makes_no_sense_names_the_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(body)
    assert caught.value.param == param


ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text(),
    **{
        name: st.integers(0, 2**bits - 1) if sign else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for name, (sign, bits) in INTEGERS.items()
    },
}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(DATATYPES))
    shape = draw(st.lists(st.integers(1, 3), max_size=4))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    size = math.prod(shape)
    data = draw(st.lists(ELEMENTS.get(datatype, finite), min_size=size, max_size=size))
    return Tensor("x", datatype, tuple(shape), data)


@given(tensors())
def test_flat_and_nested_data_are_the_same_tensor(given_tensor: Tensor) -> None:
    written = {"name": "x", "datatype": given_tensor.datatype, "shape": list(given_tensor.shape)}
    assert read_tensor("x", {**written, "data": given_tensor.data}) == given_tensor
    assert read_tensor("x", {**written, "data": nested_of(given_tensor)}) == given_tensor


@given(tensors())
def test_what_a_model_gives_back_has_the_shape_it_came_in(given_tensor: Tensor) -> None:
    made = to_tensor("x", nested_of(given_tensor))
    assert made["shape"] == (list(given_tensor.shape) or [1])
    assert made["data"] == given_tensor.data
    back = read_tensor("x", {**made, "data": json.loads(json.dumps(made["data"]))})
    assert back.data == given_tensor.data


@given(tensors(), st.integers(1, 7))
def test_a_tensor_is_written_the_same_in_pieces_of_any_size(given_tensor: Tensor, piece: int) -> None:
    whole = nested_of(given_tensor)
    with mock.patch.object(oip_tensors, "PIECE", piece):
        parts = list(given_tensor.written())
        assert json.loads(b"".join(parts)) == whole
        again = read_tensor(
            "x", {"name": "x", "datatype": given_tensor.datatype, "shape": list(given_tensor.shape), "data": whole}
        )
    assert again == given_tensor


@pytest.mark.parametrize("shape", [[1 << 21], [1 << 10, 1 << 11], [1 << 19, 4]])
def test_of_a_large_tensor_no_list_is_made(shape: list[int]) -> None:
    size = 1 << 21
    written = {"name": "rows", "datatype": "INT8", "shape": shape, "parameters": {"binary_data_size": size}}
    request = read({"inputs": [written]}, bytes(size))
    tracemalloc.start()
    try:
        encoded = encode_inputs(request, Takes(SCHEMA))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert encoded.count(b"0") == size
    assert peak < 3 * len(encoded)  # its pieces, and the whole of them; lists have at least 8 bytes for each element
    with pytest.raises(TooLarge, match="of JSON"):
        encode_inputs(request, Takes(SCHEMA), len(encoded) - 1)


# ── into a predict ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_tensors_are_the_fields_of_their_names() -> None:
    fields = predicted(
        tensor("rows", [1, 2, 3, 4], [2, 2]),
        tensor("names", ["a", "b"], [2], "BYTES"),
        tensor("scale", [0.5], [1]),
        tensor("label", ["x"], [1, 1], "BYTES"),
        tensor("exact", [True], [1], "BOOL"),
        tensor("anything", [1], [1]),
    )
    assert fields == {
        "rows": [[1, 2], [3, 4]],
        "names": ["a", "b"],
        "scale": 0.5,
        "label": "x",
        "exact": True,
        "anything": [1],
    }
    Input.model_validate(fields)


def test_parameters_are_fields_where_the_model_has_them() -> None:
    assert predicted(tensor("rows", [1], [1, 1]), parameters={"scale": 2, "content_type": "np"}) == {
        "rows": [[1]],
        "scale": 2,
    }
    schema = {"type": "object", "properties": {"parameters": {"type": "object"}}}
    assert sent(read({"inputs": [], "parameters": {"a": 1}}), schema) == {"parameters": {"a": 1}}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (tensor("other", [1], [1]), r"no input 'other' \(have: "),
        (tensor("scale", [1, 2], [2]), "single value"),
        (tensor("inner", [1], [1]), "not a tensor"),
    ],
)
def test_a_tensor_that_fits_no_field_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        predicted(wrong)


def test_a_schema_of_very_many_fields_is_not_listed_to_who_misses_one() -> None:
    fields = {f"field {number}": {"type": "array"} for number in range(5000)}
    given = read({"inputs": [tensor("other", [1], [1])]})
    with pytest.raises(BadRequest, match=r"no input 'other'$"):
        encode_inputs(given, Takes({"type": "object", "properties": fields}))
    with pytest.raises(BadRequest, match=r"no output 'other'$"):
        answered(fields, read({"inputs": [], "outputs": [{"name": "other"}]}), "m", "")


def test_a_predict_that_takes_a_list_takes_one_tensor() -> None:
    schema = pydantic.RootModel[list[list[float]]].model_json_schema()
    assert sent(read({"inputs": [tensor("any", [1, 2], [1, 2])]}), schema) == [[1, 2]]
    with pytest.raises(BadRequest, match="one tensor"):
        sent(read({"inputs": []}), schema)


# ── out of a predict ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "data"),
    [
        (5, "INT64", [1], [5]),
        (2**63, "UINT64", [1], [2**63]),
        (0.5, "FP64", [1], [0.5]),
        (True, "BOOL", [1], [True]),
        ("text", "BYTES", [1], ["text"]),
        ([1, 2.5], "FP64", [2], [1, 2.5]),
        ([[1, 2], [3, 4]], "INT64", [2, 2], [1, 2, 3, 4]),
        ([["a"], ["b"]], "BYTES", [2, 1], ["a", "b"]),
        ([], "FP64", [0], []),
        ([[], []], "FP64", [2, 0], []),
    ],
)
def test_an_answer_is_a_tensor(value: Any, datatype: str, shape: list[int], data: list[Any]) -> None:
    made = to_tensor("x", value)
    assert made == {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    assert [type(item) for item in made["data"]] == [type(item) for item in data]


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, ["null"]),
        ({"a": 1}, ['{"a":1}']),
        ([{"a": 1}, {"b": 2}], ['{"a":1}', '{"b":2}']),
        ([[1], [2, 3]], ["[1]", "[2,3]"]),
        ([1, "a"], ["1", '"a"']),
        ([1, [2]], ["1", "[2]"]),
        ([True, 1], ["true", "1"]),
        ([-1, 2**63], ["-1", "9223372036854775808"]),
        ([0.5, 10**400], ["0.5", f"1{'0' * 400}"]),
    ],
)
def test_what_is_no_tensor_travels_as_json(value: Any, texts: list[str]) -> None:
    made = to_tensor("x", value)
    assert (made["datatype"], made["shape"], made["data"]) == ("BYTES", [len(texts)], texts)
    assert made["parameters"] == {"content_type": "application/json"}


def test_bytes_travel_as_base64() -> None:
    assert from_predict(b"\x00\xff", "application/octet-stream") == b"\x00\xff"
    assert to_tensor("x", b"\x00\xff") == {
        "name": "x",
        "datatype": "BYTES",
        "shape": [1],
        "data": ["AP8="],
        "parameters": {"content_type": "base64"},
    }


def test_the_keys_of_a_dict_are_the_names_of_its_tensors() -> None:
    request = read({"id": "42", "inputs": []})
    body, _ = answered({"a": [1], "b": "x"}, request, "m", "other")
    assert (body["model_name"], body["model_version"], body["id"]) == ("m", "1", "42")
    assert [output["name"] for output in body["outputs"]] == ["a", "b"]
    assert [output["name"] for output in answered([1], request, "m", "other")[0]["outputs"]] == ["output-0"]
    assert answered(1, read({"inputs": []}), "m", "made up")[0]["id"] == "made up"


@pytest.mark.parametrize("parameters", [{}, {"binary_data": True}])
def test_an_output_is_asked_for_once(parameters: dict[str, Any]) -> None:
    """One that is named again would be written again: a small request could ask for any number of bytes."""
    output = {"name": "image", "parameters": parameters}
    with pytest.raises(BadRequest, match="'image' is requested twice") as refused:
        read({"inputs": [], "outputs": [output, {"name": "other"}, output]})
    assert refused.value.param == "outputs[2].name"


@pytest.mark.parametrize("is_binary", [False, True])
def test_an_answer_is_no_larger_than_a_worker_may_send(monkeypatch: pytest.MonkeyPatch, is_binary: bool) -> None:
    request = read({"inputs": [], "parameters": {"binary_data_output": is_binary}})
    whole = {"a": [1.0] * 100, "b": ["text"] * 100}
    shown, raw = answer(whole, request, "m", "")
    monkeypatch.setattr(oip_values, "MAX_PAYLOAD", len(shown) + len(raw))
    assert answer(whole, request, "m", "") == (shown, raw)
    monkeypatch.setattr(oip_values, "MAX_PAYLOAD", len(shown) + len(raw) - 8)
    with pytest.raises(InvalidOutput, match="of tensors"):
        answer(whole, request, "m", "")


def test_a_tensor_is_written_in_pieces_and_is_what_it_was() -> None:
    numbers = [index / 8 for index in range(2 * oip_tensors.PIECE + 3)]
    found = {"x": numbers, "none": [], "texts": ["a"] * (oip_tensors.PIECE + 1)}
    outputs = answered(found, read({"inputs": []}), "m", "")[0]["outputs"]
    assert {output["name"]: output["data"] for output in outputs} == found


def test_an_answer_of_very_many_values_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oip_values, "MAX_VALUES", 8)
    assert from_predict(b"[1,2,3,4,5,6,7,8,9]", "application/json") == [*range(1, 10)]
    with pytest.raises(InvalidOutput, match="more than 8 values"):
        from_predict(b"[1,2,3,4,5,6,7,8,9,10]", "application/json")


def test_only_the_outputs_that_were_asked_for_are_sent() -> None:
    request = read({"inputs": [], "outputs": [{"name": "b"}]})
    assert [output["name"] for output in answered({"a": 1, "b": 2}, request, "m", "")[0]["outputs"]] == ["b"]
    with pytest.raises(BadRequest, match="no output 'b' \\(have: a\\)"):
        answered({"a": 1}, request, "m", "")


def test_nan_is_null_in_tensors_of_json_both_ways() -> None:
    given = read({"inputs": [tensor(shape=[2, 2], data=[[1, None], [math.nan, 4]])]})
    assert encode_inputs(given, Takes(SCHEMA)) == b'{"rows":[[1,NaN],[NaN,4]]}'
    found = from_predict(b'{"x": [[1.5, NaN], [NaN, 2]]}', "application/json")
    [output] = answered(found, read({"inputs": []}), "m", "")[0]["outputs"]
    assert output == {"name": "x", "datatype": "FP64", "shape": [2, 2], "data": [1.5, None, None, 2]}
    for datatype in ("INT32", "BOOL", "BYTES"):
        with pytest.raises(BadRequest):
            read({"inputs": [tensor(shape=[1], data=[None], datatype=datatype)]})


def test_infinity_is_an_answer_in_binary_only() -> None:
    for value in ([1.0, math.inf], {"x": [[-math.inf], [math.nan]]}, {"x": {"a": math.nan}}):
        found = from_predict(json.dumps(value).encode(), "application/json")
        with pytest.raises(InvalidOutput):
            answered(found, read({"inputs": []}), "m", "")
    found = from_predict(b"[NaN, 1e308, 1e308]", "application/json")
    _, raw = answered(found, read({"inputs": [], "parameters": {"binary_data_output": True}}), "m", "")
    assert numpy.isnan(numpy.frombuffer(raw, "<f8")).tolist() == [True, False, False]
    assert answered([1e308, 1e308], read({"inputs": []}), "m", "")[0]["outputs"][0]["data"] == [1e308, 1e308]
    with pytest.raises(InvalidOutput):
        from_predict(b"{", "application/json")


# ── binary ───────────────────────────────────────────────────────────────────────────────────────────────────────────

NUMPY = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    name: f"<{'u' if sign else 'i'}{bits // 8}" for name, (sign, bits) in INTEGERS.items()
}


@given(st.data(), st.sampled_from(sorted(NUMPY)))
def test_raw_bytes_are_the_elements_that_numpy_wrote(data: st.DataObject, datatype: str) -> None:
    shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
    size = math.prod(shape) * numpy.dtype(NUMPY[datatype]).itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    array = numpy.frombuffer(raw, NUMPY[datatype]).reshape(shape)
    if datatype == "BOOL":
        array = numpy.frombuffer(raw, "u1").reshape(shape) != 0
    written = {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    [found] = read({"inputs": [written]}, raw).inputs
    assert numpy.array_equal(numpy.array(nested_of(found), array.dtype).reshape(shape), array, equal_nan=True)
    if datatype != "BOOL":
        again = numpy.frombuffer(pack(datatype, found.data[:]), NUMPY[datatype]).reshape(shape)
        assert numpy.array_equal(again, array, equal_nan=True)


@given(st.lists(st.floats(width=32)))
def test_bf16_is_the_upper_half_of_a_float(values: list[float]) -> None:
    halves = (numpy.array(values, "<f4").view("<u4") >> 16).astype("<u2")
    expected = (halves.astype("<u4") << 16).view("<f4")
    found = unpack("x", "BF16", len(values), halves.tobytes())
    assert numpy.array_equal(numpy.array(found[:], "<f4"), expected, equal_nan=True)


@given(st.lists(st.text()))
def test_texts_have_their_lengths_before_them(texts: list[str]) -> None:
    assert unpack("x", "BYTES", len(texts), pack("BYTES", texts)) == texts


def binary(size: Any, datatype: str = "FP32", shape: Any = (2,), **more: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": "x", "datatype": datatype, "shape": list(shape), "parameters": parameters, **more}


@pytest.mark.parametrize(
    ("body", "data"),
    [
        ({"inputs": [binary(8)]}, b""),
        ({"inputs": [binary(8)]}, bytes(9)),
        ({"inputs": [binary(7)]}, bytes(7)),
        ({"inputs": [binary(-1)]}, b""),
        ({"inputs": [binary(8, data=[1, 2])]}, bytes(8)),
        ({"inputs": [binary(8, "BYTES", [1])]}, b"\x05\0\0\0abcd"),
        ({"inputs": [binary(5, "BYTES", [1])]}, b"\x01\0\0\0\xff"),
        ({"inputs": [binary(4, "BYTES", [2])]}, bytes(4)),
        ({"inputs": [binary(3, "BYTES", [1])]}, bytes(3)),
        ({"inputs": []}, b"x"),
        ({"inputs": [{**tensor(shape=[1]), "parameters": {"shared_memory_region": "r"}}]}, b""),
        ({"inputs": [], "outputs": [{"name": "a", "parameters": {"classification": 3}}]}, b""),
        ({"inputs": [], "outputs": [{"name": "a", "parameters": {"binary_data": 1}}]}, b""),
        ({"inputs": [], "parameters": {"binary_data_output": "yes"}}, b""),
    ],
)
def test_binary_data_that_makes_no_sense_is_refused(body: dict[str, Any], data: bytes) -> None:
    with pytest.raises(BadRequest):
        read(body, data)


def test_outputs_are_bytes_where_they_are_asked_for() -> None:
    value = {"a": [1, 2], "b": ["x"], "c": b"\xff"}
    everything = read({"inputs": [], "parameters": {"binary_data_output": True}})
    head, raw = answered(value, everything, "m", "")
    assert raw == struct.pack("<qq", 1, 2) + b"\x01\0\0\0x" + b"\x01\0\0\0\xff"
    assert [output["parameters"] for output in head["outputs"]] == [{"binary_data_size": size} for size in (16, 5, 5)]
    assert not any("data" in output for output in head["outputs"]) and everything.parameters == {}
    names = [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}]
    head, raw = answered(
        value, read({"inputs": [], "parameters": {"binary_data_output": True}, "outputs": names}), "m", ""
    )
    assert head["outputs"][0]["data"] == [1, 2] and raw == b"\x01\0\0\0x"


def test_nan_reaches_predict() -> None:
    raw = struct.pack("<ff", math.nan, 1)
    request = read({"inputs": [binary(8, shape=[1, 2], name="rows")]}, raw)
    assert encode_inputs(request, Takes(SCHEMA)) == b'{"rows":[[NaN,1.0]]}'


def scheme(kind: Any, **more: Any) -> dict[str, Any]:
    return pydantic.create_model("Scheme", x=(kind, ...), **more).model_json_schema()


Pixels = Annotated[list[float], pydantic.Field(min_length=3, max_length=3)]


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        (list[float], struct.pack("<3d", 1, math.inf, 2.5), [1.0, math.inf, 2.5]),
        (list[int], struct.pack("<2q", -1, 2), [-1, 2]),
        (list[bool], b"\0\1", [False, True]),
        (list[Pixels], struct.pack("<6d", *range(6)), [[0, 1, 2], [3, 4, 5]]),
        (list[Pixels], b"", []),
        (Pixels, struct.pack("<3d", *range(3)), [0, 1, 2]),
        (float, struct.pack("<d", 0.5), 0.5),
        (str, "Gr\u00fc\u00dfe".encode(), "Gr\u00fc\u00dfe"),
        (list[str], b"one\n", ["one\n"]),
    ],
)
def test_bytes_without_json_are_the_one_tensor_that_the_model_takes(kind: Any, raw: bytes, expected: Any) -> None:
    schema = scheme(kind, scale=(float, 1.0))
    request = read_raw(raw, schema)
    assert sent(request, schema) == {"x": expected} and request.all_binary
    field = schema["properties"]["x"]
    two_names = {"properties": {"x": field, "y": field}, "anyOf": [{"required": ["x"]}, {"required": ["y"]}]}
    assert sent(read_raw(raw, two_names), two_names) == {"x": expected}
    array = pydantic.TypeAdapter(list[float]).json_schema()
    assert sent(read_raw(struct.pack("<d", 2), array), array) == [2.0]


@pytest.mark.parametrize(
    ("schema", "raw", "told"),
    [
        (scheme(list[float], y=(list[float], ...)), bytes(8), "x, y"),
        (scheme(dict[str, int]), bytes(8), "takes no tensor"),
        (scheme(list[list[float]]), bytes(8), "more than one open length"),
        (scheme(list[float]), bytes(9), "9 bytes"),
        (scheme(Pixels), bytes(8), "8 bytes"),
        (scheme(str), b"\xff", "UTF-8"),
    ],
)
def test_bytes_without_json_that_could_be_anything_are_refused(schema: Any, raw: bytes, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        read_raw(raw, schema)


# ── schemas ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "refused"),
    [
        ([MAX_ROWS * 2], False),
        ([1, 1, MAX_ROWS], False),
        ([MAX_ROWS, 1], False),
        ([MAX_ROWS + 1, 1], True),
        ([MAX_ROWS // 2, 1, 1], False),
        ([MAX_ROWS // 2 + 1, 1, 1], True),
    ],
)
def test_tensors_may_have_many_rows_and_no_more(shape: list[int], refused: bool) -> None:
    size = math.prod(shape)
    item = {"name": "x", "datatype": "UINT8", "shape": shape, "parameters": {"binary_data_size": size}}
    with pytest.raises(TooLarge) if refused else contextlib.nullcontext():
        read({"inputs": [item]}, bytes(size))


def test_the_rows_of_all_tensors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    two = [tensor(name, [1, 2, 3], [3, 1]) for name in "ab"]
    for most, refused in ((6, False), (5, True)):
        monkeypatch.setattr(oip_tensors, "MAX_ROWS", most)
        with pytest.raises(TooLarge) if refused else contextlib.nullcontext():
            read({"inputs": two})


def test_a_schema_tells_the_tensors_that_it_takes() -> None:
    assert [(item["name"], item["datatype"], item["shape"]) for item in metadata(SCHEMA)] == [
        ("rows", "FP64", [-1, -1]),
        ("names", "BYTES", [-1]),
        ("scale", "FP64", [1]),
        ("label", "BYTES", [1]),
        ("exact", "BOOL", [1]),
    ]
    assert metadata(None) == []


def test_lengths_that_a_schema_fixes_are_told() -> None:
    row = {"type": "array", "items": {"type": "number"}, "minItems": 64, "maxItems": 64}
    schema = {"type": "object", "properties": {"inputs": {"anyOf": [{"type": "array", "items": row}, row]}}}
    assert metadata(schema) == [{"name": "inputs", "datatype": "FP64", "shape": [-1, 64]}]
    constant = {"properties": {"classes": {"const": [0, 1]}, "kind": {"enum": ["a"]}}}
    assert [(item["datatype"], item["shape"]) for item in metadata(constant)] == [("INT64", [2]), ("BYTES", [1])]
    assert metadata({"type": "array", "items": {"type": "integer"}})[0]["name"] == "output-0"


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$ref": "#/$defs/Missing"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"properties": {"a": {"$ref": "#/$defs/T"}}, "$defs": {"T": {"type": "array", "items": {"$ref": "#/$defs/T"}}}},
        {"properties": {"a": True, "b": None, "c": {"anyOf": [{}]}}},
    ],
)
def test_odd_schemas_end(schema: Any) -> None:
    assert metadata(schema) == []
    kinds_of(schema, schema)
