"""Requests of very many texts, each of which has a place in the answer."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.base import Dialect
from gateway.dialects.openai.embeddings import MAX_INPUTS
from gateway.dialects.openai.moderations import ModerationsDialect
from gateway.dialects.scoring.classify import ClassifyDialect
from gateway.dialects.scoring.rerank import RerankDialect
from gateway.dialects.scoring.score import ScoreDialect
from gateway.dialects.single_value import MAX_TEXTS
from gateway.errors import BadRequest


@pytest.mark.parametrize(
    ("dialect", "method", "name", "most", "rest"),
    [
        (RerankDialect(), "rerank", "documents", MAX_TEXTS, {"query": "q"}),
        (RerankDialect(), "embeddings", "documents", MAX_INPUTS, {"query": "q"}),
        (ScoreDialect(), "score", "text_1", MAX_TEXTS, {"text_2": ["b"]}),
        (ScoreDialect(), "score", "text_2", MAX_TEXTS, {"text_1": "a"}),
        (ClassifyDialect(), "classify", "input", MAX_TEXTS, {}),
        (ModerationsDialect(), "moderations", "input", MAX_TEXTS, {}),
    ],
)
def test_so_many_texts_are_read_and_no_more(
    dialect: Dialect, method: str, name: str, most: int, rest: dict[str, Any]
) -> None:
    """Where rerank is made of embeddings, its documents are their inputs, of which there are as many as anywhere."""
    with pytest.raises(BadRequest, match=f"'{name}' may hold at most {most} .*, not {most + 1}") as refused:
        dialect.read({name: ["a"] * (most + 1), **rest}, method)
    assert refused.value.param == name
    if name != "text_1":
        assert dialect.read({name: ["a"] * most, **rest}, method)
