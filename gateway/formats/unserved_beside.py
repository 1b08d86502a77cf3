"""What lies in the directory of a model that is served, or broken, and is another model: passed over, and told.

A directory holds one model. Copies of it for other libraries, and what its own plugin tells of, have no line here.
"""

from __future__ import annotations

import re
from pathlib import Path

from .unserved_beginnings import begin_of
from .unserved_companions import companions
from .unserved_files import json_of, suffix, unfinished, weights_among
from .unserved_kinds import WEIGHTS

ESTIMATOR = frozenset("joblib npy npz pickle pkl skops".split())
GGUF = frozenset(["gguf"])
# The weights of a checkpoint, and the copies for other libraries that are handed on beside them.
CHECKPOINT = frozenset(
    "bin ckpt engine h5 keras mlmodel msgpack npy npz onnx ort ot pdparams plan pt pte pth safetensors tflite".split()
)
# SetFit keeps the head of such a folder as a pickle. Of other formats nobody here knows which files are a model's own.
OWN = {"sentence-transformers": CHECKPOINT | {"pkl"}, "sklearn": ESTIMATOR, "transformers": GGUF}


def other_weights(path: Path, format: str | None, fault: str) -> list[str]:
    """The files with weights of other models, beside those that make the directory one of `format`.

    `format` is None where they make none, for a reason: `fault` names the files that it is about.
    """
    try:
        names = frozenset(child.name for child in path.iterdir() if child.is_file() and not child.name.startswith("."))
    except OSError:
        return []
    names -= companions(path, names)
    own = OWN.get(format or "", frozenset())
    if format is None:
        named = {word.lower() for word in re.findall(r"\.(\w+)\b", fault)}
        own = frozenset().union(*(kinds for kinds in (ESTIMATOR, GGUF, CHECKPOINT) if kinds & named))
    if not own:
        return []
    if format == "transformers" and "config.json" in names:
        own |= CHECKPOINT
    others = [name for name in names if suffix(name) not in own and unfinished([name]) is None]
    told = {*weights_among(path, others), *(name for name in others if suffix(name) in WEIGHTS)}
    return sorted(told)


def unfinished_beside(path: Path) -> list[str]:
    """The downloads beside what is served that have not ended, or were broken off."""
    try:
        names = [child.name for child in path.iterdir() if child.is_file() and not child.name.startswith(".")]
    except OSError:
        return []
    return sorted(name for name in names if unfinished([name]))


def is_another_model(place: Path, path: Path) -> bool:
    """Whether what lies at `place`, and nobody serves, is another model than that of the directory `path` above it.

    Beside a checkpoint only what says what it is: its parts have weights too, and so have copies for other libraries.
    """
    parts = begin_of(path / "modules.json") + begin_of(path / "router_config.json")  # of sentence-transformers
    if any(f'"{name}'.encode() in parts for name in place.relative_to(path).parts):
        return False
    own = json_of(path / "config.json")
    if not own:
        return True
    if (place / "adapter_config.json").is_file() or (place / "model_index.json").is_file():
        return True
    named = json_of(place / "config.json").get("architectures")
    return bool(named) and named != own.get("architectures")
