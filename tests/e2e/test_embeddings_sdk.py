"""The openai SDK's embeddings against the real command: what a class declares decides what it can be asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.testing import Gateway

from .conftest import write_models

PLAIN = """
class Model:
    def embeddings(self, inputs):
        return [[float(len(item)), 3.0, 4.0] for item in inputs["input"]]
"""
DECLARED = PLAIN.replace(
    "class Model:", "class Model:\n    capabilities = {'token_ids': True, 'matryoshka': True}\n", 1
)
MODELS = {"plain": PLAIN, "declared": DECLARED}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    root: Path = tmp_path_factory.mktemp("gateway")
    write_models(root / "models", {name: {"model.py": text} for name, text in MODELS.items()})
    with (
        Gateway(root / "models", cwd=root) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="unused", max_retries=0, timeout=30) as client,
    ):
        yield client


@pytest.mark.parametrize(("given", "sizes"), [("", [0]), ("abc", [3]), (["a", "bc"], [1, 2])])
def test_texts_are_embedded_in_both_encodings(client: openai.OpenAI, given: Any, sizes: list[int]) -> None:
    for encoding in ({}, {"encoding_format": "float"}):  # the SDK asks for base64 by itself
        answer = client.embeddings.create(model="plain", input=given, **encoding)
        assert [item.embedding for item in answer.data] == [[size, 3.0, 4.0] for size in sizes]


@pytest.mark.parametrize(("given", "sizes"), [([5, 6, 7], [3]), ([[5], [6, 7]], [1, 2])])
def test_token_ids_are_for_classes_that_take_them(client: openai.OpenAI, given: Any, sizes: list[int]) -> None:
    answer = client.embeddings.create(model="declared", input=given)
    assert [item.embedding[0] for item in answer.data] == sizes
    assert answer.usage.prompt_tokens == 3
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as caught:
        client.embeddings.create(model="plain", input=given)
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "input")


def test_dimensions_are_cut_where_that_is_declared_and_refused_elsewhere(client: openai.OpenAI) -> None:
    [item] = client.embeddings.create(model="declared", input="abc", dimensions=2).data
    assert item.embedding == pytest.approx([2**-0.5, 2**-0.5])
    assert client.embeddings.create(model="plain", input="abc", dimensions=3).data[0].embedding == [3.0, 3.0, 4.0]
    for model, dimensions in (("plain", 2), ("declared", 4)):
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=model, input="abc", dimensions=dimensions)
        assert (caught.value.code, caught.value.param) == ("unsupported_value", "dimensions")
