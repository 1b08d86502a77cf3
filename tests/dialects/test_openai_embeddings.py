"""Embeddings, judged by the official SDK: the vectors that the Model gave come out, in both encodings."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
import numpy
import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from gateway.dialects.base import Context
from gateway.dialects.openai import embeddings
from gateway.dialects.openai.embeddings import MAX_WIDTH, EmbeddingsDialect
from gateway.errors import BadRequest, GatewayError, HTTPError, InvalidOutput
from gateway.spec import Capabilities
from gateway.wire.values import Text, decode, encode
from gateway.worker.bodies import results
from gateway.worker.bodies import vectors as vectors_of

VECTORS = [[0.5, -1.0, 0.1], [2.0, 0.0, 3e-8]]
FLOAT32 = numpy.array(VECTORS, dtype=numpy.float32)


def answered(
    *values: Any, inputs: int = 2, capabilities: dict[str, Any] | None = None, **fields: Any
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Body and headers when the Model gives these values: the same whether the gateway or the worker writes vectors."""
    dialect = EmbeddingsDialect()
    prepared = dialect.read({"model": "m", "input": ["word"] * inputs, **fields}, "embeddings")
    declared = Capabilities(extra=capabilities or {})

    def by(pack: Callable[[Any], bytes]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        encoder = dialect.encoder(prepared, Context("m", "0" * 32, 1, capabilities=declared))
        for value in values:
            encoder.feed([decode(pack(value))])
        return encoder.whole()

    in_worker = partial(vectors_of.pack, form=prepared.vectors)
    try:
        found = by(results.pack)
    except GatewayError as error:
        with pytest.raises(type(error)) as caught:
            by(in_worker)
        assert caught.value.message == error.message
        raise
    assert by(in_worker) == found
    return found


def parse(body: bytes, **fields: Any) -> CreateEmbeddingResponse:
    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=body)

    transport = httpx2.Client(transport=httpx2.MockTransport(reply))
    with openai.OpenAI(base_url="http://test/v1", api_key="k", http_client=transport) as client:
        return client.embeddings.create(model="m", input="a", **fields)


def vectors(*values: Any, inputs: int = 2) -> list[list[float]]:
    """As the SDK reads them from base64, and the same from floats."""
    packed = parse(answered(*values, inputs=inputs, encoding_format="base64")[0])
    floats = parse(answered(*values, inputs=inputs)[0], encoding_format="float")
    assert [item.index for item in packed.data] == list(range(inputs))
    for one, other in zip(packed.data, floats.data, strict=True):
        assert numpy.array_equal(numpy.float32(one.embedding), numpy.float32(other.embedding))
    return [item.embedding for item in packed.data]


class Item(pydantic.BaseModel):
    index: int
    embedding: list[float]


@pytest.mark.parametrize(
    "value",
    [
        VECTORS,
        FLOAT32,
        FLOAT32.astype(numpy.float64),
        numpy.asfortranarray(FLOAT32),
        list(FLOAT32),
        [list(row) for row in FLOAT32],
        {"embeddings": FLOAT32},
        {"embeddings": VECTORS, "usage": {"prompt_tokens": 3}},
        {"embeddings": VECTORS, "prompt_tokens": 3},
        [{"embedding": row} for row in VECTORS],
        [{"embedding": row} for row in FLOAT32],
        {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": r} for i, r in enumerate(VECTORS)],
        },
        {"data": [{"index": 1, "embedding": VECTORS[1]}, {"index": 0, "embedding": VECTORS[0]}]},
        {"data": [Item(index=0, embedding=VECTORS[0]), Item(index=1, embedding=VECTORS[1])]},
    ],
)
def test_every_documented_shape_is_the_same_answer(value: Any) -> None:
    assert numpy.array_equal(numpy.float32(vectors(value)), FLOAT32)


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (["a", None], "not null"),
        (["a", ["b"]], "not an array"),
        (["a", 1], "not"),
        (["a", {"text": "b"}], "not an object"),
    ],
)
def test_an_input_that_is_no_text_is_told_by_its_place(texts: list[Any], what: str) -> None:
    with pytest.raises(BadRequest, match=rf"'input\[1\]' must be a string, {what}") as caught:
        EmbeddingsDialect().read({"model": "m", "input": texts}, "embeddings")
    assert caught.value.param == "input[1]"


def test_every_answer_has_an_id_of_its_own_kind() -> None:
    body = json.loads(answered(FLOAT32)[0])
    assert body["id"] == "embd-" + "0" * 32
    assert {"object", "model", "usage", "data"} <= body.keys()  # with it, all that mistralai cannot do without


def test_a_generator_of_vectors_is_an_answer() -> None:
    assert numpy.array_equal(numpy.float32(vectors(*FLOAT32)), FLOAT32)
    assert numpy.array_equal(numpy.float32(vectors(VECTORS[0], {"embedding": VECTORS[1]})), FLOAT32)
    assert numpy.array_equal(numpy.float32(vectors(FLOAT32, None, {"usage": {"prompt_tokens": 1}})), FLOAT32)


@pytest.mark.parametrize("value", [[1.0, 2.0], numpy.array([1.0, 2.0]), [numpy.array([1.0, 2.0])], [1, 2]])
def test_one_vector_is_enough_for_one_input(value: Any) -> None:
    assert vectors(value, inputs=1) == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "value",
    [
        "text",
        5,
        None,
        {},
        {"vectors": VECTORS},
        {"data": None},
        {"data": "x"},
        {"embeddings": {}},
        VECTORS[:1],
        [*VECTORS, VECTORS[0]],
        [[1.0], [1.0, 2.0]],
        [[], []],
        [["a"], ["b"]],
        [[1.0], None],
        [{"vector": [1.0]}, {"vector": [1.0]}],
        numpy.zeros((2, 3, 4)),
        numpy.zeros((2, 0)),
        [1.0, 2.0],
        [[float("nan")], [1.0]],
        [[1.0], [float("inf")]],
        numpy.array([[1.0], [numpy.inf]]),
        [[1e300], [1.0]],
        [[10**400], [1.0]],
    ],
)
def test_what_is_no_list_of_finite_vectors_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        try:
            answered(value)
        except Exception as error:  # a worker refuses what it cannot send, with the same code
            if type(error).__name__ == "Unserializable":
                raise InvalidOutput("unserializable") from error
            raise


def test_an_error_dict_is_the_models_own_failure() -> None:
    with pytest.raises(HTTPError, match="too long") as caught:
        answered({"error": {"message": "too long", "status": 400}})
    assert caught.value.status == 400


def test_dimensions_that_the_model_ignored_are_an_error_not_a_surprise() -> None:
    with pytest.raises(BadRequest) as caught:
        answered(VECTORS, dimensions=2)
    assert (caught.value.param, caught.value.code) == ("dimensions", "unsupported_value")
    answered(VECTORS, dimensions=3)


def test_vectors_that_may_be_cut_short_are_cut_and_made_long_again() -> None:
    rows = [[3.0, 4.0, 12.0], [0.0, 0.0, 5.0]]
    body, _ = answered(rows, dimensions=2, capabilities={"matryoshka": True})
    assert [item["embedding"] for item in json.loads(body)["data"]] == [[0.6, 0.8], [0.0, 0.0]]
    packed = parse(answered(rows, dimensions=2, encoding_format="base64", capabilities={"matryoshka": True})[0])
    assert numpy.allclose(packed.data[0].embedding, [0.6, 0.8])
    with pytest.raises(BadRequest):
        answered(rows, dimensions=4, capabilities={"matryoshka": True})


def test_token_ids_are_counted_as_what_they_are() -> None:
    body, headers = answered(VECTORS, input=[[1, 2, 3], [4]])
    assert headers == [] and json.loads(body)["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


def test_usage_is_the_models_or_an_estimate_that_says_so() -> None:
    body, headers = answered({"embeddings": VECTORS, "usage": {"prompt_tokens": 7}})
    assert headers == [] and json.loads(body)["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    body, headers = answered(VECTORS)
    assert headers == [(b"x-gateway-usage", b"estimated")] and json.loads(body)["usage"]["prompt_tokens"] == 2


def test_the_object_has_every_field_of_the_contract() -> None:
    body = json.loads(answered([[0.5]], inputs=1)[0])
    assert body["object"] == "list" and body["model"] == "m"
    assert body["data"] == [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    assert set(body["usage"]) == {"prompt_tokens", "total_tokens"}


@pytest.mark.parametrize(("encoding", "told"), [("float", "ask for base64"), ("base64", "more than")])
def test_an_answer_has_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch, encoding: str, told: str) -> None:
    """Text is several times as long as the vectors that a worker may send."""
    rows = [[1 / 3] * 64] * 4
    size = len(answered(rows, inputs=4, encoding_format=encoding)[0])
    monkeypatch.setattr(embeddings, "MAX_PAYLOAD", size)
    answered(rows, inputs=4, encoding_format=encoding)
    monkeypatch.setattr(embeddings, "MAX_PAYLOAD", size // 2)
    with pytest.raises(InvalidOutput, match=told):
        answered(rows, inputs=4, encoding_format=encoding)


@pytest.mark.parametrize("shape", ["array", "arrays", "lists"])
def test_a_vector_longer_than_any_model_has_is_no_vector(shape: str) -> None:
    long = MAX_WIDTH + 1
    value = {
        "array": numpy.zeros((1, long), "float32"),
        "arrays": [numpy.zeros(long, "float32")],
        "lists": [[0.0] * long],
    }
    with pytest.raises(InvalidOutput, match=f"a vector of {long} numbers"):
        answered(value[shape], inputs=1)


@given(
    st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_any_finite_vectors_survive_both_encodings(rows: list[list[float]]) -> None:
    assert numpy.array_equal(numpy.float32(vectors(rows, inputs=len(rows))), numpy.float32(rows))


# ── text that the worker has made ────────────────────────────────────────────────────────────────────────────────────


def fed(*texts: Text, inputs: int = 2, **fields: Any) -> bytes:
    dialect = EmbeddingsDialect()
    prepared = dialect.read({"model": "m", "input": ["word"] * inputs, **fields}, "embeddings")
    encoder = dialect.encoder(prepared, Context("m", "0" * 32, 1))
    for text in texts:
        encoder.feed([decode(encode(text))])
    body: bytes = encoder.whole()[0]
    return body


def test_text_stands_in_the_answer_as_the_worker_made_it() -> None:
    data = json.loads(fed(Text(2, [b"[0.5,1.5]"]), Text(2, [b"[2.5,3.5]"])))["data"]
    assert [item["embedding"] for item in data] == [[0.5, 1.5], [2.5, 3.5]]


@pytest.mark.parametrize(
    "texts", [(Text(2, [b"[1,2]"]),), (Text(2, [b"[1,2]"] * 3),), (Text(2, [b"[1,2]"]), Text(1, [b"[1]"]))]
)
def test_text_for_too_few_too_many_or_unequal_vectors_is_refused(texts: tuple[Text, ...]) -> None:
    with pytest.raises(InvalidOutput, match="vector"):
        fed(*texts)


def test_text_of_a_width_that_no_model_has_is_refused() -> None:
    with pytest.raises(InvalidOutput, match=f"the limit is {MAX_WIDTH}"):
        fed(Text(MAX_WIDTH + 1, [b"[]"]), inputs=1)


def test_text_that_nobody_asked_for_is_no_vector_to_compute_with() -> None:
    dialect = EmbeddingsDialect()
    encoder = dialect.encoder(dialect.read({"input": "a"}, "embeddings"), Context("m", "0" * 32, 1))
    encoder.feed([Text(1, [b"[1.0]"])])
    with pytest.raises(InvalidOutput, match="text where vectors belong"):
        encoder.vectors()


def test_text_is_copied_and_not_read() -> None:
    encoder = EmbeddingsDialect().encoder(
        EmbeddingsDialect().read({"input": "a"}, "embeddings"), Context("m", "0" * 32, 1)
    )
    assert encoder.work([Text(1, [b"[1.0]"])], 1 << 20) < encoder.work([[1.0]], 1 << 20) == 1 << 20
