"""A tiny Whisper with random weights, as transformers saves it and as CTranslate2 has it."""

from __future__ import annotations

import importlib
import io
import random
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gateway_whisper
import numpy as np
import pytest
import soundfile

RATE = 16_000
WINDOW = 5  # seconds, of 30 that real ones have: faster-whisper needs these
CONTROL = "endoftext startoftranscript en de translate transcribe startoflm startofprev nospeech notimestamps".split()
TIMES = [f"{step * 0.02:.2f}" for step in range(1501)]


def save_whisper(folder: Path, *, multilingual: bool = True, window: int = WINDOW, **settings: Any) -> Path:
    """A checkpoint that hears plain letters in any noise."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters.append("")  # by this token CTranslate2 knows that a model has several languages
    marks = [f"<|{name}|>" for name in CONTROL]
    words = {word: number for number, word in enumerate([*letters, *marks, *(f"<|{time}|>" for time in TIMES)])}
    end = marks[0]
    names = dict.fromkeys(("unk_token", "bos_token", "eos_token", "pad_token"), end)
    WhisperTokenizer(vocab=words, merges=[], **names, extra_special_tokens=marks[1:]).save_pretrained(folder)
    number = {name: words[f"<|{name}|>"] for name in CONTROL}
    ids = {
        "bos_token_id": words[end],
        "eos_token_id": words[end],
        "pad_token_id": words[end],
        "decoder_start_token_id": number["startoftranscript"],
        "begin_suppress_tokens": [words[end]],
    }
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": 16, "init_std": 0.3}
    lengths = {"max_source_positions": window * 50, "max_target_positions": 448, "vocab_size": len(words)}
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(**{**sizes, **heads, **lengths, **ids, **settings})).eval()
    several = {
        "lang_to_id": {f"<|{name}|>": number[name] for name in ("en", "de")},
        "task_to_id": {name: number[name] for name in ("translate", "transcribe")},
    }
    model.generation_config = GenerationConfig(
        max_length=16,
        no_timestamps_token_id=number["notimestamps"],
        prev_sot_token_id=number["startofprev"],
        is_multilingual=multilingual,
        max_initial_timestamp_index=50,
        alignment_heads=[[0, 0], [1, 1]],
        suppress_tokens=[words[letter] for letter in letters if letter != "Ġ" and not (letter and letter.isascii())],
        return_timestamps=False,
        **ids,
        **(several if multilingual else {}),
    )
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=window).save_pretrained(folder)
    return folder


def convert(folder: Path, into: Path) -> Path:
    """The same model for CTranslate2."""
    from ctranslate2.converters import TransformersConverter

    files = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(folder), copy_files=files).convert(str(into))
    return into


def load(path: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Any:
    """The model of a directory, loaded as a worker does."""
    spec = gateway_whisper.find_model(path, overrides)
    assert spec is not None, f"{path} is not recognised"
    monkeypatch.chdir(path)
    module, _, name = spec.target.partition(":")
    model = getattr(importlib.import_module(module), name)(spec.config)
    model.load()
    return model


def noises(count: int = 200) -> list[Any]:
    """Recordings of all lengths, some longer than a window."""
    of, noise = random.Random(8), np.random.default_rng(8)
    lengths = [of.choice([0.05, 0.5, 1, 3, 4.99, 5, 5.01, 7]) for _ in range(count)]
    return [noise.normal(0, 0.3, int(RATE * length)).clip(-1, 1).astype(np.float32) for length in lengths]


def recorded(samples: Any, rate: int = RATE, kind: str = "WAV", **how: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **how)
    return file.getvalue()


def asked(data: bytes, **fields: Any) -> Mapping[str, Any]:
    """The inputs that the gateway makes of a form."""
    file = {"filename": "it.wav", "content_type": "audio/wav", "data": data}
    return {"file": file, "response_format": "json", "stream": False, **fields}


def packaged(module: str, *inside: str) -> Path:
    """A file or folder of an installed package, found without importing it."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent.joinpath(*inside)
