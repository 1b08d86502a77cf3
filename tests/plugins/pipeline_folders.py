"""Tiny checkpoints with random weights for the tasks of transformers' pipelines, as the library saves them."""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any

import gateway_pipelines
import pytest
from classifier_folders import LENGTH, SIZES, save_words

ENTITIES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC", 5: "MISC"}
ANIMALS = {0: "cat", 1: "dog", 2: "fish"}


def named(labels: dict[int, str]) -> dict[str, Any]:
    return {"id2label": labels, "label2id": {name: number for number, name in labels.items()}}


def save_texts(folder: Path, task: str, kind: str = "bert", **settings: Any) -> Path:
    """A model that reads texts, opened by a class of the library: "AutoModelForMaskedLM"."""
    import torch
    import transformers

    size = save_words(folder)
    given = {
        **SIZES,
        "vocab_size": size,
        "max_position_embeddings": LENGTH,
        "initializer_range": 0.4,
        "pad_token_id": 0,
    }
    torch.manual_seed(len(kind) + len(task))
    config = transformers.AutoConfig.for_model(kind, **{**given, **settings})
    model = getattr(transformers, task).from_config(config).eval()
    with torch.no_grad():  # heads begin with zeros, which would make all labels alike
        for name, each in model.named_parameters():
            if name.endswith("bias") and each.dim() == 1 and not each.any():
                each.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


def save_images(folder: Path, **settings: Any) -> Path:
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(1)
    sizes = {"image_size": 16, "patch_size": 4, "num_channels": 3, "initializer_range": 0.4}
    config = ViTConfig(**{**SIZES, **sizes, **named(ANIMALS), **settings})
    ViTForImageClassification(config).eval().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def save_sounds(folder: Path, **settings: Any) -> Path:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    torch.manual_seed(2)
    convolutions = {"conv_dim": [16, 16], "conv_kernel": [10, 8], "conv_stride": [10, 8], "num_conv_pos_embeddings": 8}
    sizes = {"num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16, "num_feat_extract_layers": 2}
    config = Wav2Vec2Config(
        **{**SIZES, **convolutions, **sizes, "initializer_range": 0.4, "vocab_size": 8, **named(ANIMALS), **settings}
    )
    Wav2Vec2ForSequenceClassification(config).eval().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    return folder


def load(path: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Any:
    """The model of a directory, loaded as a worker does."""
    spec = gateway_pipelines.find_model(path, overrides)
    assert spec is not None, f"{path} is not recognised"
    monkeypatch.chdir(path)
    module, _, name = spec.target.partition(":")
    model = getattr(importlib.import_module(module), name)(spec.config)
    model.load()
    return model


def near(one: Any, other: Any, within: float = 1e-5) -> bool:
    """Whether two answers are equal, numbers within a tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key], within) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(near(*both, within) for both in zip(one, other, strict=True))
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return bool(abs(float(one) - float(other)) <= within)


def masked(texts: list[str], seed: int = 3) -> list[str]:
    """The same texts, each with one or two masks."""
    of = random.Random(seed)
    found = []
    for text in texts:
        words = text.split(" ")[:10]
        for _ in range(of.choice([1, 1, 2])):
            words.insert(of.randrange(len(words) + 1), "[MASK]")
        found.append(" ".join(words)[:150])
    return [text if "[MASK]" in text else f"[MASK] {text}"[:100] for text in found]
