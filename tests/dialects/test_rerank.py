"""Reranking: whatever way a Model says its scores, the clients of three services read the same order."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.scoring.rerank import REFUSED, RENAMED, SAID, SAID_UNLESS_EMPTY, SCHEMA, RerankDialect
from gateway.errors import BadRequest, HTTPError, InvalidOutput
from gateway.spec import Capabilities
from gateway.wire.values import decode
from gateway.worker.bodies.results import pack

from .values import CONTEXT, answered

ASK = {"query": "capital of France", "documents": ["Berlin", {"text": "Paris"}, "Rome"]}
SCORES = [0.25, 0.9, 0.5]


def ranked(*values: Any, **fields: Any) -> list[tuple[int, float]]:
    body, _ = answered(RerankDialect(), {**ASK, **fields}, *values, method="rerank")
    return [(item["index"], item["relevance_score"]) for item in body["results"]]


@pytest.mark.parametrize(
    "value",
    [
        SCORES,
        tuple(SCORES),
        numpy.array(SCORES, dtype="float32"),
        numpy.array([[score] for score in SCORES]),
        list(numpy.array(SCORES)),
        [(0, 0.25), (1, 0.9), (2, 0.5)],
        [(1, 0.9), [2, 0.5], (0, 0.25)],
        numpy.array([[2, 0.5], [1, 0.9], [0, 0.25]]),
        [{"corpus_id": 2, "score": 0.5}, {"corpus_id": 1, "score": 0.9}, {"corpus_id": 0, "score": 0.25}],
        {"scores": SCORES},
        {"scores": numpy.array(SCORES)},
        {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 2, "score": 0.5}, {"index": 0, "score": 0.25}]},
    ],
)
def test_every_documented_shape_is_the_same_order(value: Any) -> None:
    assert ranked(value) == [(1, 0.9), (2, 0.5), (0, 0.25)]


def test_the_object_holds_what_each_of_three_clients_looks_for() -> None:
    body, headers = answered(RerankDialect(), {**ASK, "top_n": 1}, SCORES, method="rerank")
    assert body["results"] == [{"index": 1, "relevance_score": 0.9, "document": {"text": "Paris"}}]
    assert body["model"] == "m" and body["id"]
    assert body["usage"]["total_tokens"] == body["meta"]["tokens"]["input_tokens"] > 0
    assert body["meta"]["billed_units"] == {"search_units": 1}
    assert headers == {b"x-gateway-usage": b"estimated"}


def test_the_models_own_count_is_the_usage() -> None:
    body, headers = answered(
        RerankDialect(), ASK, {"scores": SCORES, "usage": {"total_tokens": 9}, "id": "mine"}, method="rerank"
    )
    assert (body["id"], body["usage"]["total_tokens"], body["meta"]["tokens"]) == ("mine", 9, {"input_tokens": 9})
    assert headers == {}


@pytest.mark.parametrize(("method", "values"), [("rerank", [SCORES]), ("embeddings", [[[1.0]], [[1.0]] * 3])])
def test_the_models_tokenizer_counts_where_its_method_does_not(method: str, values: list[Any]) -> None:
    dialect = RerankDialect()
    encoder = dialect.encoder(dialect.read(ASK, method), CONTEXT)
    for run, value in enumerate(values):
        encoder.feed([value], run)
    assert encoder.uncounted([{}]) == {"prompt": {"prompt": ["capital of France", "Berlin", "Paris", "Rome"]}}
    encoder.counted({"prompt": 11})
    body, headers = encoder.whole()
    assert json.loads(body)["usage"]["total_tokens"] == 11 and headers == []
    assert encoder.usage() == (11, 0, "stop", False)


def test_nobody_counts_again_what_the_model_counted() -> None:
    query, documents = {"embeddings": [[1.0]], "prompt_tokens": 2}, {"embeddings": [[1.0]] * 3, "prompt_tokens": 7}
    for method, values in (
        ("rerank", [{"scores": SCORES, "usage": {"prompt_tokens": 9}}]),
        ("embeddings", [query, documents]),
    ):
        dialect = RerankDialect()
        encoder = dialect.encoder(dialect.read(ASK, method), CONTEXT)
        for run, value in enumerate(values):
            encoder.feed([value], run)
        assert encoder.uncounted([{}]) == {}
        assert json.loads(encoder.whole()[0])["usage"]["total_tokens"] == 9


def test_documents_are_left_out_when_nobody_wants_them() -> None:
    body, _ = answered(RerankDialect(), {**ASK, "return_documents": False}, SCORES, method="rerank")
    assert all(set(item) == {"index", "relevance_score"} for item in body["results"])


def test_the_method_gets_texts_and_everything_else_as_sent() -> None:
    prepared = RerankDialect().read({**ASK, "top_n": 2, "return_documents": True, "mine": 1, "x": None}, "rerank")
    assert prepared.inputs == {
        "query": "capital of France",
        "documents": ["Berlin", "Paris", "Rome"],
        "top_n": 2,
        "mine": 1,
    }


def test_equal_scores_stay_in_order() -> None:
    assert [index for index, _ in ranked([1.0, 1.0, 1.0])] == [0, 1, 2]


def test_a_model_may_answer_no_more_than_was_asked() -> None:
    assert ranked([(1, 0.9), (2, 0.5)], top_n=2) == [(1, 0.9), (2, 0.5)]
    with pytest.raises(InvalidOutput, match="2 results, 3 asked for"):
        ranked([(1, 0.9), (2, 0.5)])


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        0.5,
        [],
        {},
        {"ranks": [1]},
        SCORES[:2],
        [*SCORES, 0.1],
        [0.5, None, 0.1],
        [0.5, "high", 0.1],
        [0.5, float("nan"), 0.1],
        [0.5, float("inf"), 0.1],
        numpy.array([0.5, numpy.nan, 0.1]),
        numpy.zeros((3, 3)),
        [(0, 0.1), (0, 0.2), (1, 0.3)],
        [(0, 0.1), (1, 0.2), (3, 0.3)],
        [(0, 0.1), (1, 0.2), (-1, 0.3)],
        [(0, 0.1), (1.5, 0.2), (2, 0.3)],
        [(0, 0.1), (1, float("nan")), (2, 0.3)],
        [(0, 0.1), (1, True), (2, 0.3)],
        [{"index": 0}, {"index": 1}, {"index": 2}],
    ],
)
def test_what_ranks_nothing_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        ranked(value)


def test_several_values_are_no_answer() -> None:
    with pytest.raises(InvalidOutput, match="several"):
        ranked(SCORES, SCORES)
    assert ranked(None, SCORES, None) == ranked(SCORES)


def test_an_error_dict_is_the_models_own_failure() -> None:
    with pytest.raises(HTTPError, match="too long"):
        ranked({"error": {"message": "too long", "status": 400}})


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"query": None}, "query", "missing_required_parameter"),
        ({"query": 5}, "query", "invalid_type"),
        ({"documents": None}, "documents", "missing_required_parameter"),
        ({"documents": "one"}, "documents", "invalid_type"),
        ({"documents": []}, "documents", "invalid_value"),
        ({"documents": ["a", 5]}, "documents[1]", "invalid_type"),
        ({"documents": [{"title": "a"}]}, "documents[0]", "invalid_type"),
        ({"top_n": 0}, "top_n", "invalid_value"),
        ({"top_n": True}, "top_n", "invalid_type"),
        ({"return_documents": "yes"}, "return_documents", "invalid_type"),
    ],
)
def test_a_request_that_makes_no_sense_names_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        RerankDialect().read({**ASK, **fields}, "rerank")
    assert (caught.value.param, caught.value.code) == (param, code)


# ── from embeddings ──────────────────────────────────────────────────────────────────────────────────────────────────


def derived(query: Any, documents: Any, **fields: Any) -> Any:
    dialect = RerankDialect()
    encoder = dialect.encoder(dialect.read({**ASK, **fields}, "embeddings"), CONTEXT)
    for run, value in ((1, documents), (0, query)):  # they come in any order
        encoder.feed([decode(pack(value))], run)
    return json.loads(encoder.whole()[0])


def test_embeddings_are_asked_for_the_query_and_for_the_documents_each_as_what_they_are() -> None:
    dialect = RerankDialect()
    prepared = dialect.read({**ASK, "model": "m", "top_n": 2, "mine": 1}, "embeddings")
    assert dialect.calls(prepared, Capabilities()) == [
        {"model": "m", "mine": 1, "input": ["capital of France"], "input_type": "query"},
        {"model": "m", "mine": 1, "input": ["Berlin", "Paris", "Rome"], "input_type": "document"},
    ]


@pytest.mark.parametrize("name", [*SAID, *SAID_UNLESS_EMPTY])
def test_what_is_said_for_the_client_it_cannot_say_itself(name: str) -> None:
    with pytest.raises(BadRequest, match="embedded as a query") as caught:
        RerankDialect().read({**ASK, name: "query"}, "embeddings")
    assert (caught.value.param, caught.value.code) == (name, "unsupported_value")
    assert RerankDialect().read({**ASK, name: "query"}, "rerank").inputs[name] == "query"


@pytest.mark.parametrize(("name", "ours"), RENAMED.items())
def test_a_word_of_another_service_is_refused_with_ours(name: str, ours: str) -> None:
    with pytest.raises(BadRequest, match=f"'{name}' is called '{ours}' here") as caught:
        RerankDialect().read({**ASK, name: 1}, "embeddings")
    assert (caught.value.param, caught.value.code) == (name, "unsupported_value")
    assert ours in SCHEMA["properties"]
    assert RerankDialect().read({**ASK, name: 1}, "rerank").inputs[name] == 1


@pytest.mark.parametrize(("name", "neutral"), REFUSED.items())
def test_what_no_cosine_answers_is_refused_unless_it_asks_for_nothing(name: str, neutral: Any) -> None:
    with pytest.raises(BadRequest, match=f"'{name}' is not supported") as caught:
        RerankDialect().read({**ASK, name: True}, "embeddings")
    assert (caught.value.param, caught.value.code) == (name, "unsupported_value")
    for value in (*neutral, None):
        assert name not in RerankDialect().read({**ASK, name: value}, "embeddings").inputs


@pytest.mark.parametrize("method", ["rerank", "embeddings"])
def test_without_documents_it_says_what_came_instead(method: str) -> None:
    with pytest.raises(BadRequest, match=r"missing required parameter: 'documents' \(got: query, texts\)"):
        RerankDialect().read({"model": "m", "query": "q", "texts": ["a"]}, method)


@pytest.mark.parametrize(
    ("run", "said", "param", "told", "named"),
    [
        (0, "input[0] is too long", "input", "query is too long", "query"),
        (1, "input[12] is too long", "input", "documents[12] is too long", "documents"),
        (1, "'input' must hold texts", "input[3]", "'documents' must hold texts", "documents[3]"),
        (
            1,
            "dimensions must be 3, put input aside",
            "dimensions",
            "dimensions must be 3, put input aside",
            "dimensions",
        ),
        (0, "no", None, "no", None),
    ],
)
def test_an_error_of_embeddings_is_told_in_the_words_of_rerank(
    run: int, said: str, param: str | None, told: str, named: str | None
) -> None:
    dialect, error = RerankDialect(), BadRequest(said, param=param)
    dialect.encoder(dialect.read(ASK, "embeddings"), CONTEXT).retell(error, run)
    assert (error.message, error.param) == (told, named)


def test_the_cosine_of_embeddings_is_the_score() -> None:
    query, documents = [[2.0, 0.0]], [[0.0, 1.0], [5.0, 0.0], [1.0, 1.0]]
    for one, others in (
        (query, documents),
        (numpy.array(query), numpy.array(documents)),
        ({"embeddings": query, "prompt_tokens": 3}, {"embeddings": documents, "usage": {"prompt_tokens": 4}}),
    ):
        body = derived(one, others)
        scores = [(item["index"], item["relevance_score"]) for item in body["results"]]
        assert scores == [(1, 1.0), (2, 0.7071068), (0, 0.0)]
    assert body["usage"]["total_tokens"] == 7
    body = derived(query, documents, top_n=1)
    assert [item["document"] for item in body["results"]] == [{"text": "Paris"}]


def test_a_vector_without_direction_scores_zero() -> None:
    body = derived([[1.0]], [[0.0], [1.0], [-1.0]])
    assert [item["relevance_score"] for item in body["results"]] == [1.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        ([[1.0]], [[1.0]] * 2, "2 vectors for 3 inputs"),
        ([[1.0]] * 2, [[1.0]] * 3, "2 vectors for 1 input; "),
        ([[1.0, 2.0]], [[1.0]] * 3, "another length for the query"),
    ],
)
def test_vectors_that_do_not_fit_are_invalid_output(query: Any, documents: Any, message: str) -> None:
    with pytest.raises(InvalidOutput, match=message):
        derived(query, documents)


@given(st.lists(st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100), min_size=3, max_size=3))
def test_any_finite_scores_come_out_sorted_and_unchanged(scores: list[float]) -> None:
    pairs = ranked(numpy.array(scores, dtype="float32"))
    assert [score for _, score in pairs] == sorted((score for _, score in pairs), reverse=True)
    assert all(numpy.float32(score) == numpy.float32(scores[index]) for index, score in pairs)
