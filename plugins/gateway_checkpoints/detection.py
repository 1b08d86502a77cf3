"""Recognise a directory that is a checkpoint of transformers, as its config.json describes it. Opens no weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway import has_code, peek_architecture, peek_config, peek_weights

from .weights import is_adapter

EMBEDDING = ("modules.json", "1_Pooling/config.json")  # of an embedding model, whatever its config.json says


def is_ours(path: Path, framework: str, fits: Callable[[Any], bool]) -> bool:
    """Decide: 1. config.yaml names the framework  2. own code  3. a checkpoint whose architecture `fits`"""
    config = peek_config(path)
    if chosen := config.get("framework"):
        return bool(chosen == framework)
    if has_code(path):
        return False
    place = peek_weights(path)
    if place is None or not place.is_dir():
        return False
    found = peek_architecture(place)
    if found is None or not fits(found):
        return False
    if found.is_saved_by == "transformers" and any((place / name).is_file() for name in EMBEDDING):
        return False
    return any(not is_adapter(file) for file in place.glob("*.safetensors"))
