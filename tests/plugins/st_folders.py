"""What the tests of folders of sentence-transformers share: the words of their tokenizers, and a load as a worker's."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_sentence_transformers import find_model
from gateway_sentence_transformers.model import SentenceTransformerModel

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + letter for letter in LETTERS), "cat", "dog"]


def loaded(place: Path, monkeypatch: pytest.MonkeyPatch) -> SentenceTransformerModel:
    monkeypatch.chdir(place)
    spec = find_model(place, {})
    assert spec is not None
    model = SentenceTransformerModel(spec.config)
    model.load()
    return model
