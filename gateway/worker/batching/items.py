"""Split requests that contain lists into items, and join the results of the items into one answer.

method        an item of its batch            the result of an item
embeddings    the request with one `input`    a vector, or a dict with `embedding` and perhaps `usage`
classify      the request with one `input`    what `classify` returns for one text
moderations   the request with one `input`    what `moderations` returns for one text
rerank        `query` and one `document`      a score, or a dict with it
score         one `text_1`, one `text_2`      a score, or a dict with it
others        the request                     what the method returns

All items of a request refer to the same values, but each has a dict of its own, so its fields times its items are
bounded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...field_copies import check_copies

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Form:
    """How the requests of one method are split, and the results joined."""

    split: Callable[[Body], list[Any] | None]  # None: the request is one item, and its result is the answer
    join: Callable[[list[Any]], Any]


def form_of(method: str) -> Form | None:
    """Return the form of a method whose requests may contain lists; None for other methods."""
    return _FORMS.get(method)


def _inputs(body: Body) -> list[Any] | None:
    texts = body.get("input")
    if not isinstance(texts, list):
        return None
    check_copies(len(body), len(texts), "inputs")
    return [{**body, "input": text} for text in texts]


def _texts(body: Body) -> list[Any] | None:
    """Content parts of one message belong together."""
    texts = body.get("input")
    return _inputs(body) if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else None


def _documents(body: Body) -> list[Any] | None:
    rest = {name: value for name, value in body.items() if name != "documents"}
    check_copies(len(body), len(body["documents"]), "documents")
    return [{**rest, "document": document} for document in body["documents"]]


def _pairs(body: Body) -> list[Any] | None:
    check_copies(len(body), len(body["text_1"]), "pairs")
    pairs = zip(body["text_1"], body["text_2"], strict=True)
    return [{**body, "text_1": first, "text_2": second} for first, second in pairs]


def _vectors(results: list[Any]) -> Any:
    if all(isinstance(result, Mapping) for result in results):
        counts = [_prompt_tokens(result) for result in results]
        rows = [{"embedding": result.get("embedding")} for result in results]
        usage = {"usage": {"prompt_tokens": sum(counts)}} if None not in counts else {}  # type: ignore[arg-type]
        return {"data": rows, **usage}
    numpy = sys.modules.get("numpy")
    if numpy is not None and all(type(result) is numpy.ndarray for result in results):
        shapes = {(result.shape, result.dtype) for result in results}
        return numpy.stack(results) if len(shapes) == 1 and results[0].ndim == 1 else results
    return results


def _prompt_tokens(result: Mapping[str, Any]) -> int | None:
    usage = result.get("usage", result)
    count = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) else None


def _scores(results: list[Any]) -> list[Any]:
    """Number the dicts: the routes know their order by that."""
    return [{**result, "index": i} if isinstance(result, Mapping) else result for i, result in enumerate(results)]


_FORMS = {
    "embeddings": Form(_inputs, _vectors),
    "classify": Form(_inputs, list),
    "moderations": Form(_texts, list),
    "rerank": Form(_documents, _scores),
    "score": Form(_pairs, _scores),
}
