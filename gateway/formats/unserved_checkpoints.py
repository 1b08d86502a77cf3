"""Checkpoints of transformers and sentence-transformers that no plugin serves, by their config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .unserved_files import BESIDE, Unserved, begin_of, json_of, read_json, suffix, unfinished
from .unserved_kinds import CLASS, NO_MODEL

SAFE = "convert it: model.save_pretrained(folder) of transformers writes model.safetensors"


OTHER_MODULES = {b".sparse_encoder.": "SparseEncoder", b".cross_encoder.": "CrossEncoder"}


def sentence_transformers(path: Path, names: frozenset[str]) -> Unserved | None:
    kind = json_of(path / "config_sentence_transformers.json").get("model_type")
    if kind is None:  # older folders say it by their modules alone
        modules = begin_of(path / "modules.json")
        kind = next((what for module, what in OTHER_MODULES.items() if module in modules), None)
    if kind in (None, "SentenceTransformer"):
        return None
    what = f"a {kind} of sentence-transformers, which gives no vectors of texts"
    method = "rerank, see docs/rerank.md" if kind == "CrossEncoder" else "embeddings"
    return Unserved(what, f"{CLASS} with sentence_transformers and has a method {method}")


# The end of an architecture's name → what it is, and the method that would answer for it.
ARCHITECTURES = (
    ("GitForCausalLM", "a model that describes images", "predict"),
    ("TrOCRForCausalLM", "the half of a reader of images that writes", "predict"),
    ("MusicgenForCausalLM", "the half of a model that makes music", "speech, see docs/audio.md"),
    ("MusicgenMelodyForCausalLM", "the half of a model that makes music", "speech, see docs/audio.md"),
    ("MoshiForCausalLM", "the half of a model that hears and speaks", "speech, see docs/audio.md"),
    ("ForSequenceClassification", "a classifier of texts", "classify or rerank, see docs/rerank.md"),
    ("ForTokenClassification", "a classifier of words", "predict"),
    ("ForQuestionAnswering", "a finder of answers in texts", "predict"),
    ("ForMultipleChoice", "a classifier of choices", "predict"),
    ("ForMaskedLM", "a model that fills gaps in texts", "predict"),
    ("ForPreTraining", "a model to be trained further", "predict"),
    ("ForImageClassification", "a classifier of images", "predict"),
    ("ForObjectDetection", "a detector of objects", "predict"),
    ("ForAudioClassification", "a classifier of sound", "predict"),
    ("ForSpeechSeq2Seq", "a model of speech", "transcriptions, see docs/audio.md"),
    ("ForCTC", "a model of speech", "transcriptions, see docs/audio.md"),
    ("ForTextToSpeech", "a model that speaks", "speech, see docs/audio.md"),
    ("VitsModel", "a model that speaks", "speech, see docs/audio.md"),
    ("BarkModel", "a model that speaks", "speech, see docs/audio.md"),
)


HALVES = tuple(ending for ending, _, _ in ARCHITECTURES if ending.endswith("ForCausalLM"))


def checkpoint(path: Path, names: frozenset[str]) -> Unserved | None:
    if "config.json" not in names:
        return None
    config, failure = read_json(path / "config.json")
    weights = weights_of(names)
    if failure is not None:
        if not weights and not names & {"tokenizer.json", "tokenizer_config.json"}:
            return None  # some other program's
        return Unserved(f"a checkpoint whose config.json {failure}", "get the file again")
    architectures = config.get("architectures")
    if not architectures:
        return _without_architecture(config, weights)
    named = [str(name) for name in architectures] if isinstance(architectures, list) else [str(architectures)]
    name = named[0]
    if any(one.endswith("ForCausalLM") for one in named) and not name.endswith(HALVES):
        return _language_model(path, name, names, weights)
    if name.endswith("LMHeadModel") and weights != "safetensors":
        return _language_model(path, name, names, weights)
    if weights is None and all(_is_beside(path, each) for each in names):
        return _without_weights(path, name, names)
    what, method = _described(name, config)
    return Unserved(f"{name}, {what}", f"{CLASS} with transformers and has a method {method}")


def _without_architecture(config: Mapping[str, Any], weights: str | None) -> Unserved | None:
    kind = config.get("model_type")
    if kind is None and weights is None:
        return None  # some other program's
    if kind is None:
        what = "a checkpoint whose config.json has neither architectures nor a model_type, so that transformers cannot"
        return Unserved(f"{what} read it", f"{CLASS} with the library that it was made for")
    what = "a checkpoint whose config.json names no architectures, so that nobody knows what it does (its model_type is"
    safe = "" if weights == "safetensors" else f"{SAFE}, then "
    chat = f"a language model: {safe}write framework: transformers into a config.yaml beside it"
    return Unserved(f"{what} {kind})", f"if it is {chat}; otherwise {CLASS}")


def _language_model(path: Path, name: str, names: frozenset[str], weights: str | None) -> Unserved | None:
    if weights is None:
        return _without_weights(path, name, names)
    if weights == "pytorch":
        what = f"{name}, whose weights are a pickle, which runs code when it is opened"
        return Unserved(f"{what}; only *.safetensors are served", SAFE)
    return Unserved(f"{name}, whose weights are not *.safetensors but those of {weights}", SAFE)


def _without_weights(path: Path, name: str, names: frozenset[str]) -> Unserved:
    fetched = [file.name for file in path.glob(".cache/huggingface/download/*.incomplete")]
    half = unfinished([*names, *fetched])
    why = f"{half} is not finished" if half else "there is no *.safetensors"
    # a training keeps its checkpoints below, others their files for one library
    return Unserved(f"{name}, without its weights: {why}", "get the files that are missing", is_sure=False)


def _is_beside(path: Path, name: str) -> bool:
    """Whether it is none of the files that may hold weights."""
    words = r"(?i)tokenizer|spiece|sentencepiece|vocab|merges"
    return bool(
        name.startswith(".")
        or re.match(BESIDE, name)
        or re.match(words, name)
        or suffix(name) in NO_MODEL
        or (path / name).is_dir()
    )


def _described(name: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """What a model of this architecture is, and the method by which a class could serve it."""
    for ending, what, method in ARCHITECTURES:
        if name.endswith(ending):
            return what, method
    if "Whisper" in name:
        return "a model of speech", "transcriptions, see docs/audio.md"
    parts = config.keys() & {"vision_config", "audio_config", "image_token_id", "image_token_index"}
    if name.endswith("ForConditionalGeneration") or parts:
        if config.get("is_encoder_decoder") is True and not parts:
            return "a model with an encoder and a decoder", "predict"
        return "a model of more than texts; the plugin transformers serves texts alone", "chat_completions"
    if name.endswith("LMHeadModel"):
        return "a language model by an older name, served with framework: transformers in config.yaml", "completions"
    if name.endswith("Model") and config.keys() & {"image_size", "patch_size", "conv_dim", "sampling_rate"}:
        return "an encoder of images or sound", "predict"
    if name.endswith("Model"):
        return (
            "an encoder without a head; saved by sentence-transformers (with modules.json) it would give embeddings",
            "embeddings",
        )
    return "an architecture that no plugin serves", "predict"


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
    """What the weights are written for: "safetensors", "pytorch", "Flax" and others; None when there are none."""
    if any(name.endswith(".safetensors") for name in names):
        return "safetensors"
    if any(name.endswith(".bin") or Path(name).suffix in (".pt", ".pth") for name in names):
        return "pytorch"
    return next((what for end, what in OTHER_WEIGHTS if any(name.endswith(end) for name in names)), None)
