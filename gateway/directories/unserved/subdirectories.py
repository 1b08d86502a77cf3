"""Distinguish the parts of a model that no plugin serves from other models below its directory.

A complete model below it is served, unless the model above names it as one of its parts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from .adapters import MLX, PEFT
from .file_headers import begin_of
from .files import Unserved, json_of
from .other_models import is_another_model

# Directories that trainings, converters and libraries create below a model, and that are not other models.
PARTS = re.compile(
    r"(checkpoint|step|epoch)[-_]\d+|global_step\d+|\d+_[A-Z]\w*|(optimizer|pytorch_model_fsdp)(_\d+)?|runs|logs"
    r"|onnx|openvino|coreml|tflite|original|blobs|refs|assets"
    r"|(tokenizer|text_encoder|feature_extractor|processor|scheduler|transformer|unet|vae)(_\d+)?"
)


def named_parts(path: Path, unserved: Unserved) -> frozenset[str]:
    """Return the names of the directories that are parts of the model, according to its own files."""
    modules = re.findall(rb'"path"\s*:\s*"([^"/]+)', begin_of(path / "modules.json"))
    return frozenset((*unserved.files, *json_of(path / "model_index.json"), *map(os.fsdecode, modules)))


def is_apart(place: Path, path: Path, *, is_broken: bool) -> bool:
    """Return whether a problem at `place` is about another model than that of the directory `path` above it.

    A broken model would be served if it were intact.
    """
    below = place.relative_to(path).parts
    if below and PARTS.fullmatch(below[0]):
        return False
    if is_broken or any((path / name).is_file() for name in PEFT | MLX):  # their config.json is that of the base
        return True
    return is_another_model(place, path)
