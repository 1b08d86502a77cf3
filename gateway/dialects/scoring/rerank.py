"""POST /v1/rerank, /v2/rerank, /rerank: rank documents by their relevance to a query.

The clients of Jina, Cohere and vLLM can all read the answer. A model with embeddings may answer by cosine similarity,
if its `derive` says so. `embeddings` is then called once for the query and once for the documents, because some models
encode the two differently.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import mul
from typing import Any

from ...errors import BadRequest, GatewayError, InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Capabilities, Endpoint
from ...wording import counted
from .. import answer_schemas
from ..base import Context, Dialect, Encoder, Prepared
from ..fields import missing, take, take_range, wrong_type
from ..openai.embeddings import MAX_INPUTS, EmbeddingsEncoder
from ..single_value import MAX_TEXTS, ValueEncoder, finite, floats, is_number, rows

# If rerank is derived from embeddings, no method reads the fields of rerank, so they are checked here. Names of other
# services for fields of this route:
RENAMED = {
    **dict.fromkeys(
        "input inputs inputText text texts sentences content contents queries passages messages".split(), "documents"
    ),
    "top_k": "top_n",
    **dict.fromkeys(("return_text", "return_input"), "return_documents"),
}
# Fields that the client may not set, because the gateway does. The last ones may be "".
SAID = ("input_type", "prompt", "prompt_name", "task", "task_type", "taskType", "text_type")
SAID_UNLESS_EMPTY = ("instruction", "instruct", "prompt_template", "query_instruction")
# Fields that cosine similarity cannot support, and the values that do not request them.
REFUSED: dict[str, tuple[Any, ...]] = {
    "rank_fields": ([], ["text"]),
    **dict.fromkeys(("raw_scores", "rewrite_query", "return_embeddings"), (False,)),
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["query", "documents"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "query": {"type": "string"},
        "documents": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_TEXTS,
            "items": {"type": ["string", "object"], "properties": {"text": {"type": "string"}}},
        },
        "top_n": {"type": "integer", "minimum": 1},
        "return_documents": {"type": "boolean", "default": True},
    },
    "additionalProperties": True,
    "example": {"query": "capital of France", "documents": ["Paris", "Berlin"]},
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        register(
            Endpoint(
                path=path,
                method="rerank",
                dialect="rerank",
                summary="Documents by relevance, as Jina, Cohere and vLLM answer.",
                derived_from="embeddings",
            )
        )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("rerank", RerankDialect())


class RerankDialect(Dialect):
    request_schema = SCHEMA
    response_schema = answer_schemas.RERANK

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        query = take(inputs, "query", str)
        for name in ("query", "documents"):
            if name not in inputs:
                raise missing(name, inputs.keys() - {"model"})
        most = MAX_INPUTS if method == "embeddings" else MAX_TEXTS
        documents = inputs["documents"] = read_documents(inputs["documents"], most)
        top_n = take_range(inputs, "top_n", 1, None)
        shown = take(inputs, "return_documents", bool, True)
        inputs.pop("return_documents", None)
        inputs.pop("stream", None)
        options = {"query": query, "documents": documents, "top_n": top_n, "shown": shown, "base64": False}
        options["derived"] = method == "embeddings"
        if options["derived"]:
            inputs = _for_embeddings(inputs)
        return Prepared(model, inputs, options=options, vectors="array" if options["derived"] else "")

    def calls(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        return [part.inputs for part in _parts(prepared)] if prepared.options["derived"] else [prepared.inputs]

    def encoder(self, prepared: Prepared, context: Context) -> Encoder:
        derived = prepared.options["derived"]
        return DerivedRerankEncoder(prepared, context) if derived else RerankEncoder(prepared, context)


def _for_embeddings(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the fields for both calls: all that embeddings may support or refuse."""
    for name, value in inputs.items():
        if name in RENAMED:
            what = f"'{name}' is called '{RENAMED[name]}' here"
        elif name in SAID or (name in SAID_UNLESS_EMPTY and value != ""):
            what = f"'{name}' cannot be set here: the query is embedded as a query, the documents as documents"
        elif name in REFUSED and not any(value == each and type(value) is type(each) for each in REFUSED[name]):
            what = f"'{name}' is not supported for a rerank that is derived from embeddings"
        else:
            continue
        raise BadRequest(what, param=name, code="unsupported_value")
    kept = {"query", "documents", "top_n", *REFUSED}
    return {name: value for name, value in inputs.items() if name not in kept}


def _parts(prepared: Prepared) -> list[Prepared]:
    """Split the request into two for embeddings, of the query and of the documents."""
    query, documents = prepared.options["query"], prepared.options["documents"]
    return [
        replace(prepared, inputs={**prepared.inputs, "input": [query], "input_type": "query"}),
        replace(prepared, inputs={**prepared.inputs, "input": documents, "input_type": "document"}),
    ]


def read_documents(value: Any, most: int) -> list[str]:
    """Return the texts of the documents."""
    if not isinstance(value, list):
        raise wrong_type("documents", "an array", value)
    if not value:
        raise BadRequest("'documents' must hold at least one document", param="documents")
    if len(value) > most:
        told = f"'documents' may hold at most {most} documents, not {len(value)}; send them in several requests"
        raise BadRequest(told, param="documents")
    texts = []
    for index, item in enumerate(value):
        text = item.get("text") if isinstance(item, dict) else item
        if not isinstance(text, str):
            raise wrong_type(f"documents[{index}]", "a string or an object with a text", item)
        texts.append(text)
    return texts


class RerankEncoder(ValueEncoder):
    """Accepts scores in the order of the documents, pairs of index and score, or a dict of either."""

    method = "rerank"

    def texts(self) -> Sequence[str]:
        return (self.options["query"], *self.options["documents"])

    def answer(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            for name in ("results", "scores", "data"):
                if name in value:
                    return self._body(self._pairs(value[name]), value.get("id"))
        return self._body(self._pairs(value), None)

    def _pairs(self, value: Any) -> list[tuple[int, float]]:
        documents = len(self.options["documents"])
        scores = floats(value)
        if scores is not None:
            if len(scores) != documents:
                raise InvalidOutput(
                    f"rerank returned {counted(len(scores), 'score')} for {counted(documents, 'document')}"
                )
            return list(enumerate(scores))
        items = rows(value)
        if items is None:
            raise self.invalid(value, "a list of scores")
        pairs = [self._pair(item) for item in items]
        indices = {index for index, _ in pairs}
        if len(indices) != len(pairs) or not all(0 <= index < documents for index in indices):
            raise InvalidOutput(f"rerank returned indices that repeat, or are not between 0 and {documents - 1}")
        expected = min(documents, self.options["top_n"] or documents)
        if len(pairs) < expected:
            raise InvalidOutput(f"rerank returned {counted(len(pairs), 'result')}, {expected} asked for")
        return pairs

    def _pair(self, item: Any) -> tuple[int, float]:
        if isinstance(item, dict):
            score: Any = item.get("relevance_score", item.get("score"))
            index: Any = item.get("index", item.get("corpus_id"))
        else:
            found = floats(item)  # an array has only floats
            if found is None or len(found) != 2:
                raise self.invalid(item, "a pair of index and score")
            index, score = found
            index = int(index) if index == int(index) else None
        if type(index) is not int or not is_number(score):
            raise self.invalid(item, "an index and a score")
        finite(score)
        return index, float(score)

    def _body(self, pairs: list[tuple[int, float]], given_id: Any) -> dict[str, Any]:
        documents: list[str] = self.options["documents"]
        best = sorted(pairs, key=lambda pair: -pair[1])[: self.options["top_n"]]  # stable: ties keep their order
        results: list[dict[str, Any]] = [{"index": index, "relevance_score": score} for index, score in best]
        if self.options["shown"]:
            for result in results:
                result["document"] = {"text": documents[result["index"]]}
        tokens = self.prompt_tokens
        return {
            "id": given_id if isinstance(given_id, str) and given_id else f"rerank-{self.context.hex_id}",
            "object": "list",
            "model": self.context.model,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": tokens}},
        }


class DerivedRerankEncoder(RerankEncoder):
    """Computes scores from vectors. The first call has the vector of the query."""

    def __init__(self, prepared: Prepared, context: Context) -> None:
        super().__init__(prepared, context)
        self._vectors = [EmbeddingsEncoder(part, context) for part in _parts(prepared)]

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        return self._vectors[call].feed(items)

    def retell(self, error: GatewayError, call: int) -> None:
        ours = "documents" if call else "query"

        def named(found: re.Match[str]) -> str:
            return f"documents[{found[1]}]" if call else "query"

        error.message = re.sub(r"\binput\[(\d+)\]", named, error.message).replace("'input'", f"'{ours}'")
        if error.param is not None:
            error.param = ours if error.param == "input" else re.sub(r"^input\[(\d+)\]", named, error.param)

    def _counted(self) -> int | None:
        counts = [vectors.prompt_tokens for vectors in self._vectors]
        return None if None in counts else sum(filter(None, counts))

    def uncounted(self, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {} if self._counted() is not None else super().uncounted(inputs)

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        [query], documents = (vectors.vectors() for vectors in self._vectors)
        if len(query) != len(documents[0]):
            raise InvalidOutput("embeddings returned a vector of another length for the query than for the documents")
        scores = cosines(query, documents)
        count = self._counted()
        super().feed([{"scores": scores, **({} if count is None else {"prompt_tokens": count})}])
        return super().whole()


def cosines(one: bytes, others: list[bytes]) -> list[float]:
    """Return the cosine similarity of rows of little-endian float32, to seven digits; 0 if one of them is zero."""
    a = memoryview(one).cast("f").tolist()
    length = sum(map(mul, a, a))
    found = []
    for other in others:
        b = memoryview(other).cast("f").tolist()
        lengths = math.sqrt(length * sum(map(mul, b, b)))
        found.append(round(sum(map(mul, a, b)) / lengths, 7) if lengths else 0.0)
    return found
