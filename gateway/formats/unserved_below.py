"""What lies below a model that nobody serves: its own parts, and models that are others.

A whole model is served wherever it lies there, but in what the model above names as its parts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from .unserved_adapters import MLX, PEFT
from .unserved_beginnings import begin_of
from .unserved_beside import is_another_model
from .unserved_files import Unserved, json_of

# What trainings, converters and libraries keep in directories below a model, and is no other one.
PARTS = re.compile(
    r"(checkpoint|step|epoch)[-_]\d+|global_step\d+|\d+_[A-Z]\w*|(optimizer|pytorch_model_fsdp)(_\d+)?|runs|logs"
    r"|onnx|openvino|coreml|tflite|original|blobs|refs|assets"
    r"|(tokenizer|text_encoder|feature_extractor|processor|scheduler|transformer|unet|vae)(_\d+)?"
)


def named_parts(path: Path, unserved: Unserved) -> frozenset[str]:
    """The names of the directories that are parts of the model, as its own files say."""
    modules = re.findall(rb'"path"\s*:\s*"([^"/]+)', begin_of(path / "modules.json"))
    return frozenset((*unserved.files, *json_of(path / "model_index.json"), *map(os.fsdecode, modules)))


def is_apart(place: Path, path: Path, *, is_broken: bool) -> bool:
    """Whether what is told of at `place` is another model than that of the directory `path` above it.

    One that is broken would be served if it were whole.
    """
    below = place.relative_to(path).parts
    if below and PARTS.fullmatch(below[0]):
        return False
    if is_broken or any((path / name).is_file() for name in PEFT | MLX):  # whose config.json is that of its base
        return True
    return is_another_model(place, path)
