"""What JSON refuses of a result is written all the same, or refused with its path and what would make it fit."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import json
import uuid
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from gateway.worker.bodies import results, truss
from gateway.worker.bodies.failures import Unserializable, to_failure
from gateway.worker.bodies.rules import Rules, Strict


@dataclasses.dataclass
class Row:
    image: bytes


class Picture(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: str = "x"
    data: Any = None


class Size(enum.Enum):
    LARGE = "large"


def refused(value: Any) -> str:
    with pytest.raises(Unserializable) as caught:
        truss.write(value, False)
    failure = to_failure(caught.value)
    assert (failure.status, failure.code) == (500, "invalid_model_output")
    return failure.message


PNG = b"\x89PNG\xff"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"image": PNG}, "$.image"),
        ([{"rows": [Row(b"text"), Row(bytearray(PNG))]}], "$[0].rows[1].image"),
        ({"a b": {1: memoryview(PNG)}}, "$['a b']['1']"),
        (Picture(data=PNG), "$.data"),
        ({"p": (1, Picture(data=[PNG]))}, "$.p[1].data[0]"),
        ({"array": np.array([b"a", PNG])}, "$.array[1]"),
        ({"np": {np.int64(2): PNG}}, "$.np['2']"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_path_and_never_replaced(value: Any, path: str) -> None:
    message = refused(value)
    assert f"(at {path}: " in message
    assert "base64.b64encode" in message
    assert "�" not in message


@given(st.binary())
def test_bytes_are_their_own_text_or_an_error(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        assert "(at $.a[0]: not UTF-8" in refused({"a": [data]})
    else:
        assert json.loads(truss.write({"a": [data]}, False)[0]) == {"a": [text]}


def test_a_collected_stream_that_is_no_text_is_refused_too() -> None:
    assert Rules().text("ä".encode()) == "ä"
    with pytest.raises(Unserializable, match=r"base64\.b64encode"):
        Rules().text(PNG)
    with pytest.raises(UnicodeDecodeError):  # what Truss raises there
        Strict().text(PNG)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({np.int64(1): "x", np.uint8(2): {np.bool_(True): 3}}, '{"1": "x", "2": {"true": 3}}'),
        ({"counts": {np.float32(0.5): np.int8(4)}}, '{"counts": {"0.5": 4}}'),
        ({b"name": 1}, '{"name": 1}'),
        ({Size.LARGE: 1, dt.date(2024, 5, 6): 2}, '{"large": 1, "2024-05-06": 2}'),
        ([{uuid.UUID(int=0): Row(b"x")}], '[{"00000000-0000-0000-0000-000000000000": {"image": "x"}}]'),
        (Picture(data={np.int64(1): np.array([1.5])}), '{"name": "x", "data": {"1": [1.5]}}'),
    ],
)
def test_keys_that_are_numbers_or_have_a_text_are_written_as_that(value: Any, text: str) -> None:
    assert truss.write(value, False) == (text.encode(), "application/json")


def test_keys_without_a_text_and_keys_that_would_hide_another_are_refused() -> None:
    assert "not tuple (at $.a: (1, 2); send str(key))" in refused({"a": {(1, 2): 3}})
    assert "base64.b64encode" in refused({PNG: 1})
    assert "two keys 'large' (at $)" in refused({"large": 1, Size.LARGE: 2})


class Known:
    """Classes of frameworks that the worker does not import, by where they say they come from."""

    def __init__(self, module: str, name: str) -> None:
        base = type(name, (), {"__module__": module})
        self.value = type("Sub", (base,), {"__module__": "users"})()


@pytest.mark.parametrize(
    ("module", "name", "hint"),
    [
        ("pandas.core.frame", "DataFrame", 'value.to_dict(orient="records")'),
        ("pandas.core.series", "Series", "value.tolist()"),
        ("polars.dataframe.frame", "DataFrame", "value.to_dicts()"),
        ("PIL.Image", "Image", "base64.b64encode(buffer.getvalue()).decode()"),
        ("torch", "Tensor", "value.tolist()"),
        ("tensorflow.python.framework.tensor", "Tensor", "value.numpy().tolist()"),
        ("pyarrow.lib", "Table", "value.to_pylist()"),
    ],
)
def test_values_of_frameworks_are_refused_with_the_call_that_makes_them_plain(
    module: str, name: str, hint: str
) -> None:
    value = Known(module, name).value
    assert "(at $.found[0]: " in (message := refused({"found": [value]}))
    assert hint in message
    with pytest.raises(Unserializable) as caught:
        results.pack({"found": value})  # a chat or embeddings method
    assert hint in str(caught.value)


def test_a_promise_an_iterator_and_other_odd_values_say_what_to_do() -> None:
    promise = asyncio.sleep(0)
    assert "await it" in refused({"a": promise})
    promise.close()
    assert "send list(value)" in refused({"a": iter([1])})
    assert "send [value.real, value.imag]" in refused(1j)
    assert "send dict(value)" in refused([MappingProxyType({})])
    assert refused([object()]).endswith(
        "Object of type object is not JSON serializable (at $[0]: convert it to a dict, a list or a str)"
    )
    assert refused(object()).endswith(
        "Object of type object is not JSON serializable (convert it to a dict, a list or a str)"
    )


def test_a_result_that_holds_itself_or_nests_without_end_is_refused() -> None:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    assert "it contains itself (at $.a[0])" in refused(value)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deep" in refused(deep)
    shared = {np.int64(1): 2}
    assert truss.write([shared, shared], False)[0] == b'[{"1": 2}, {"1": 2}]'


# ── msgpack, and the values of chats and their like ──────────────────────────────────────────────────────────────────


class Holds:
    """An instance that nothing knows how to write."""


def looped() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"rows": [0, {"image": Holds()}]}, "'Holds' object (at $.rows[1].image: send vars(value), or "),
        ({"rows": [Picture(data=[Holds()])]}, "'Holds' object (at $.rows[0].data[0]: send vars(value), or "),
        ([Known("pandas.core.frame", "DataFrame").value], "'pandas.DataFrame' object (at $[0]: send value.to_dict("),
        ({"a": np.array([None])}, "'numpy.ndarray of dtype object' object (at $.a: send value.tolist())"),
        ({"a": Known("torch", "Tensor").value}, "'torch.Tensor' object (at $.a: send value.numpy(force=True))"),
        ({"a": Known("PIL.Image", "Image").value}, "'PIL.Image' object (at $.a: save it to an io.BytesIO"),
        ({"a": [2**70]}, "'int' object (at $.a[0]: more than 64 bits; send str(value))"),
        ({"a": "half \ud83d"}, "'str' object (at $.a: half of a character; send value.encode("),
        ({"a": looped()}, "the result cannot be written as msgpack: it contains itself (at $.a[0])"),
    ],
)
def test_what_msgpack_refuses_has_its_path_the_name_of_its_type_and_what_to_send(value: Any, told: str) -> None:
    with pytest.raises(Unserializable) as caught:
        truss.write(value, True)
    assert told in str(caught.value)


def test_msgpack_takes_bytes_arrays_and_numbers_of_numpy() -> None:
    value = {"image": PNG, "view": memoryview(PNG), "array": np.zeros(2), "number": np.float32(0.5), 7: {"x"}}
    body, _ = truss.write(value, True)
    assert truss.unpack(body)["image"] == PNG


def test_strict_parity_keeps_trusss_words() -> None:
    with pytest.raises(Unserializable, match=r"^TypeError: can not serialize 'Holds' object$"):
        Strict().write({"rows": [Holds()]}, True)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"content": "x", "extra": [Holds()]}, "type Holds cannot be sent (at $.extra[0]: send vars(value), or "),
        ([[0.1, Holds()]], "type Holds cannot be sent (at $[0][1]: send vars(value), or "),
        (
            {"data": [Row(Picture(data=Holds()))]},
            "type Holds cannot be sent (at $.data[0].image.data: send vars(value), or ",
        ),  # type: ignore[arg-type]
        (MappingProxyType({"a": {1, 2}}), "type set cannot be sent (at $.a: send list(value))"),
        ({"at": dt.datetime(2024, 5, 6)}, "type datetime cannot be sent (at $.at: send value.isoformat())"),
        ({"a": np.array([None])}, "type numpy.ndarray of dtype object cannot be sent (at $.a: send value.tolist())"),
        ({"a": [-(2**70)]}, "type int cannot be sent (at $.a[0]: more than 64 bits; send str(value))"),
        ({"a": ["half \ud83d"]}, "type str cannot be sent (at $.a[0]: half of a character"),
        ({"a": looped()}, "the result cannot be sent: it contains itself (at $.a[0])"),
    ],
)
def test_what_other_methods_return_or_yield_has_them_too(value: Any, told: str) -> None:
    with pytest.raises(Unserializable) as caught:
        results.pack(value)
    assert told in str(caught.value)
