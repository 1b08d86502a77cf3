"""Recognise Whisper, of transformers or for CTranslate2. Reads small files, and the first bytes of weights."""

from __future__ import annotations

from pathlib import Path

from gateway_checkpoints import detection

from gateway import has_code, opened, peek_config, peek_weights

TASK = "automatic-speech-recognition"
BINARY = "model.bin"
SPECIFICATION = b"WhisperSpec\0"  # the name in the header of CTranslate2's weights, after two numbers


def is_ours(path: Path, framework: str) -> bool:
    """Decide: 1. config.yaml names the framework  2. own code  3. a checkpoint of Whisper, of one of the two kinds"""
    if detection.is_ours(path, framework, lambda found: found.task == TASK):
        return True
    if peek_config(path).get("framework") or has_code(path):
        return False
    place = peek_weights(path)
    return place is not None and is_converted(place)


def is_converted(place: Path) -> bool:
    """Return whether a folder has weights of Whisper for CTranslate2."""
    try:
        with opened(place / BINARY) as file:
            return SPECIFICATION in file.read(64)
    except OSError:
        return False
