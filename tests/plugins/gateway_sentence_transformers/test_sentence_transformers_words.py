"""Folders of sentence-transformers whose first module cuts a text into words by a class that its config names."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from gateway_sentence_transformers import check_model, find_model
from st_folders import loaded

from gateway import ConfigError

CONFIG = "wordembedding_config.json"


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """As the library saves it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    tokenizer = WhitespaceTokenizer(vocab=["cat", "dog", "new_york"], stop_words=[])
    modules = [WordEmbeddings(tokenizer, torch.rand(3, 8)), Pooling(8)]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "it"))
    return tmp_path / "it"


def told(place: Path) -> list[str]:
    spec = find_model(place, {})
    assert spec is not None
    return [problem.what for problem in check_model(spec) if problem.level == "error"]


def with_tokenizer(place: Path, name: str) -> Path:
    config = json.loads((place / CONFIG).read_text())
    (place / CONFIG).write_text(json.dumps({**config, "tokenizer_class": name}))
    return place


def test_words_that_are_cut_by_the_library_are_served(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(words) == []
    loaded(words, monkeypatch).unload()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("os.path.Words", "cuts texts with os.path.Words, code that comes with it, or of another package"),
        pytest.param(
            "sentence_transformers.models.tokenizer.PhraseTokenizer.PhraseTokenizer",
            "cuts texts with a PhraseTokenizer; run: pip install nltk",
            marks=pytest.mark.skipif(find_spec("nltk") is not None, reason="nltk is installed"),
        ),
    ],
)
def test_a_tokenizer_that_cannot_be_had_is_told_before_the_load(
    name: str, says: str, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = with_tokenizer(words, name)
    with pytest.raises(ConfigError, match=says) as refused:
        loaded(place, monkeypatch)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]
