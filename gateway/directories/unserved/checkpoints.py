"""Recognise checkpoints of transformers and sentence-transformers that no plugin serves, by their config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .architectures import describe_architecture, other_encoder
from .companions import STATE
from .files import BESIDE, Unserved, read_json, suffix, unfinished
from .kinds import CLASS, NO_MODEL

SAFE = "convert it: model.save_pretrained(folder) of transformers writes model.safetensors"


def sentence_transformers(path: Path, names: frozenset[str]) -> Unserved | None:
    found = other_encoder(path)
    return Unserved(f"a {found.name}, {found.what}", found.fix, is_whole=False) if found else None


def checkpoint(path: Path, names: frozenset[str]) -> Unserved | None:
    if "config.json" not in names:
        return None
    config, failure = read_json(path / "config.json")
    weights = weights_of(names)
    if failure is not None:
        if not weights and not names & {"tokenizer.json", "tokenizer_config.json"}:
            return None  # of another program
        return Unserved(f"a checkpoint whose config.json {failure}", "download the file again", is_whole=False)
    found = describe_architecture(config)
    if found is None:
        return _without_architecture(config, weights)
    if (found.judges or found.task) and weights not in (None, "safetensors"):
        return _unsafe(found.name, weights)
    if found.writes and (found.name.endswith("ForCausalLM") or weights != "safetensors"):
        return _language_model(path, found.name, names, weights)
    if weights is None and all(_is_beside(path, each) for each in names):
        return _without_weights(path, found.name, names)
    return Unserved(f"{found.name}, {found.what}", found.fix, is_whole=False)


def _without_architecture(config: Mapping[str, Any], weights: str | None) -> Unserved | None:
    kind = config.get("model_type")
    if kind is None and weights is None:
        return None  # of another program
    if kind is None:
        what = "a checkpoint whose config.json has neither architectures nor a model_type, so that transformers cannot"
        return Unserved(f"{what} read it", f"{CLASS} with the library that it was made for", is_whole=False)
    what = "a checkpoint whose config.json names no architectures, so its task is unknown (its model_type is"
    safe = "" if weights == "safetensors" else f"{SAFE}, then "
    chat = f"a language model: {safe}write framework: transformers into a config.yaml next to it"
    return Unserved(f"{what} {kind})", f"if it is {chat}; otherwise {CLASS}", is_whole=False)


def _language_model(path: Path, name: str, names: frozenset[str], weights: str | None) -> Unserved | None:
    if weights is None:
        return _without_weights(path, name, names)
    return _unsafe(name, weights)


def _unsafe(name: str, weights: str) -> Unserved:
    if weights == "pytorch":
        what = f"{name}, whose weights are a pickle, which runs code when it is opened"
        return Unserved(f"{what}; only *.safetensors are served", SAFE, is_whole=False)
    return Unserved(f"{name}, whose weights are not *.safetensors but those of {weights}", SAFE, is_whole=False)


def _without_weights(path: Path, name: str, names: frozenset[str]) -> Unserved:
    fetched = [file.name for file in path.glob(".cache/huggingface/download/*.incomplete")]
    half = unfinished([*names, *fetched])
    why = f"{half} is not complete" if half else "there is no *.safetensors"
    # trainings keep their checkpoints in directories below, others their files for a particular library
    return Unserved(f"{name}, without its weights: {why}", "get the files that are missing", is_sure=False)


def _is_beside(path: Path, name: str) -> bool:
    """Return whether the file cannot hold weights."""
    words = r"(?i)tokenizer|spiece|sentencepiece|vocab|merges"
    return bool(
        name.startswith(".")
        or re.match(BESIDE, name)
        or re.match(words, name)
        or suffix(name) in NO_MODEL
        or STATE.fullmatch(name)
        or (path / name).is_dir()
    )


OTHER_WEIGHTS = (
    (".h5", "TensorFlow"),
    (".msgpack", "Flax"),
    (".pdparams", "Paddle"),
    (".npz", "MLX"),
    (".onnx", "ONNX"),
    (".neuron", "AWS Neuron"),
    (".ot", "Rust (tch)"),
)


def weights_of(names: frozenset[str]) -> str | None:
    """Return the format of the weights: "safetensors", "pytorch", "Flax" and others; None if there are none."""
    if any(name.endswith(".safetensors") for name in names):
        return "safetensors"
    if any(name.endswith((".bin", ".pt", ".pth")) and not STATE.fullmatch(name) for name in names):
        return "pytorch"
    return next((what for end, what in OTHER_WEIGHTS if any(name.endswith(end) for name in names)), None)
