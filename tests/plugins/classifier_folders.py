"""Tiny classifiers and cross encoders with random weights, as transformers saves them, and texts for them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gateway_classifiers
import pytest
from gateway_classifiers import model as served

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "film", "good", "bad", *LETTERS, *("##" + letter for letter in LETTERS), *"0123456789!?.,"]
LENGTH = 64  # tokens that the models read
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MOODS = {0: "negative", 1: "positive"}


def save_words(folder: Path, **settings: Any) -> int:
    """A WordPiece tokenizer with pairs, as BERT's; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, numbers[name]) for name in ("[CLS]", "[SEP]")],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    given = {"model_max_length": LENGTH, **names, **settings}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given).save_pretrained(folder)
    return len(numbers)


def save(folder: Path, kind: str = "bert", labels: Mapping[int, str] | int = MOODS, **settings: Any) -> Path:
    """A model of `labels`, their number or their names, with its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    size = save_words(folder)
    named: dict[str, Any] = {"num_labels": labels}
    if not isinstance(labels, int):
        named = {"id2label": dict(labels), "label2id": {name: number for number, name in labels.items()}}
    given = {**SIZES, "vocab_size": size, "max_position_embeddings": LENGTH, "initializer_range": 0.4, **named}
    torch.manual_seed(len(kind))
    config = AutoConfig.for_model(kind, **{"pad_token_id": 0, **given, **settings})
    AutoModelForSequenceClassification.from_config(config).eval().save_pretrained(folder)
    return folder


def texts(count: int = 200, seed: int = 0) -> list[str]:
    """Texts of all lengths, most shorter than the models read: empty, odd, and far too long ones among them."""
    of = random.Random(seed)
    odd = ["", " ", "\n\t", "[SEP] [CLS] a", "é漢\U0001f600\u200b", "\x00", "a" * 300, "good film " * 100, "!" * 90]
    rest = [
        "".join(of.choice("abc good bad film 1é!") for _ in range(of.choice([1, 5, 20, 60, 200])))
        for _ in range(count - len(odd))
    ]
    return [*odd, *rest]


def load(path: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Any:
    """The model of a directory, loaded as a worker does."""
    spec = gateway_classifiers.find_model(path, overrides)
    assert spec is not None, f"{path} is not recognised"
    monkeypatch.chdir(path)
    model = getattr(served, spec.target.rpartition(":")[2])(spec.config)
    model.load()
    return model
