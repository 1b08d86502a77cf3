"""A small pipeline of spaCy, trained on sentences of a few words: entities, tags, sentences and categories."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_spacy
import pytest
from gateway_spacy.model import SpacyModel

NAMES, CITIES = "Ada Grace Alan Edsger Barbara".split(), "London Paris Oslo Rome Reykjavik".split()
VERBS = {"likes": "good", "loves": "good", "hates": "bad", "fears": "bad"}


def sentence(chance: random.Random) -> str:
    return f"{chance.choice(NAMES)} {chance.choice([*VERBS])} {chance.choice(CITIES)} ."


def texts(count: int = 200) -> list[str]:
    """Random texts, odd ones among them."""
    chance = random.Random(1)
    odd = ["", " ", "\n\n", "Ada", "☕ in Oslo …", "a" * 300, "Zoë\x00 likes 北京 ."]
    return odd + [" ".join(sentence(chance) for _ in range(chance.randint(1, 4))) for _ in range(count - len(odd))]


def train(place: Path) -> Path:
    """Write a trained pipeline."""
    import spacy
    from spacy.tokens import Doc
    from spacy.training import Example

    chance = random.Random(0)
    nlp = spacy.blank("en")
    small = {"@architectures": "spacy.HashEmbedCNN.v2", "width": 16, "depth": 2, "embed_size": 200, "window_size": 1}
    small |= {"maxout_pieces": 2, "subword_features": True, "pretrained_vectors": None}
    nlp.add_pipe("tok2vec", config={"model": small})
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 16, "upstream": "tok2vec"}
    nlp.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": listener}})
    parser = {"@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner", "extra_state_tokens": False}
    parser |= {"hidden_width": 16, "maxout_pieces": 2, "use_upper": True, "tok2vec": listener}
    nlp.add_pipe("ner", config={"model": parser})
    nlp.add_pipe("textcat")
    nlp.add_pipe("sentencizer")
    ruler = nlp.add_pipe("entity_ruler", before="ner")
    examples = []
    for _ in range(60):
        words = sentence(chance).split()
        tags = ["NNP", "VBZ", "NNP", "."]
        wanted = Doc(nlp.vocab, words=words, tags=tags, ents=["B-PERSON", "O", "B-CITY", "O"])
        wanted.cats = {kind: float(VERBS[words[1]] == kind) for kind in ("good", "bad")}
        examples.append(Example(nlp.make_doc(wanted.text), wanted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = nlp.initialize(lambda: examples)
        for _ in range(100):
            nlp.update(chance.sample(examples, 8), sgd=optimizer)
    ruler.add_patterns([{"label": "DRINK", "pattern": [{"ORTH": "☕"}], "id": "coffee"}])
    nlp.to_disk(place)
    return place


def changed(source: Path, place: Path, change: Callable[[str], str]) -> Path:
    """A copy of a pipeline with another config.cfg."""
    shutil.copytree(source, place)
    old = (place / "config.cfg").read_text()
    new = change(old)
    assert new != old
    (place / "config.cfg").write_text(new)
    return place


def problems(place: Path, **overrides: Any) -> list[str]:
    """What discovery and the check say of a directory."""
    try:
        spec = gateway_spacy.find_model(place, overrides)
    except Exception as error:
        return [str(error)]
    assert spec is not None, f"{place} is not recognised"
    return [problem.what for problem in gateway_spacy.check_model(spec)]


def loaded(place: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> SpacyModel:
    spec = gateway_spacy.find_model(place, overrides)
    assert spec is not None
    monkeypatch.chdir(place)
    model = SpacyModel(spec.config)
    model.load()
    return model
