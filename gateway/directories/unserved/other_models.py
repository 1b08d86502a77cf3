"""Find other models in the directory of a model that is served or broken: they are ignored, and reported.

A directory holds one model. Its copies for other libraries, and what its own plugin reports, are not listed here.
"""

from __future__ import annotations

import re
from pathlib import Path

from .companions import companions
from .file_headers import begin_of
from .files import json_of, suffix, unfinished, weights_among
from .kinds import WEIGHTS

ESTIMATOR = frozenset("joblib npy npz pickle pkl skops".split())
GGUF = frozenset(["gguf"])
# The weights of a checkpoint, and copies for other libraries that are distributed with it.
CHECKPOINT = frozenset(
    "bin ckpt engine h5 keras mlmodel msgpack npy npz onnx ort ot pdparams plan pt pte pth safetensors tflite".split()
)
# SetFit keeps the head of such a folder as a pickle. For other formats it is unknown which files belong to a model.
OWN = {
    "onnx": CHECKPOINT,
    "sentence-transformers": CHECKPOINT | {"pkl"},
    "classifiers": CHECKPOINT,
    "sklearn": ESTIMATOR,
    "transformers": GGUF,
    "catboost": frozenset("cbm json".split()),
    "fasttext": frozenset("bin ftz vec".split()),
    "keras": frozenset("h5 keras".split()),
    "llamacpp": GGUF,
    "lightgbm": frozenset("bst lgb lgbm model txt".split()),
    "torch": frozenset("jit pt pt2 pth torchscript ts".split()),
    "xgboost": frozenset("bst json ubj xgb".split()),
}


def other_weights(path: Path, format: str | None, fault: str) -> list[str]:
    """Return files with weights of other models, next to those that make the directory a model of `format`.

    `format` is None if the model is broken; `fault` is the error, which names the files that it is about.
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
    """Return unfinished or interrupted downloads next to a model that is served."""
    try:
        names = [child.name for child in path.iterdir() if child.is_file() and not child.name.startswith(".")]
    except OSError:
        return []
    return sorted(name for name in names if unfinished([name]))


def is_another_model(place: Path, path: Path) -> bool:
    """Return whether an unserved model at `place` is independent of the model in the directory `path` above it.

    Next to a checkpoint, it must declare what it is: parts of the checkpoint and copies for other libraries have
    weights too.
    """
    parts = begin_of(path / "modules.json") + begin_of(path / "router_config.json")  # of sentence-transformers
    if any(f'"{name}'.encode() in parts for name in place.relative_to(path).parts):
        return False
    if place.relative_to(path).parts[0] in json_of(path / "model_index.json"):  # of a pipeline of diffusers
        return False
    if _is_of_spacy(place.relative_to(path).parts[0], path):
        return False
    own = json_of(path / "config.json")
    if not own:
        return True
    if (place / "adapter_config.json").is_file() or (place / "model_index.json").is_file():
        return True
    named = json_of(place / "config.json").get("architectures")
    return bool(named) and named != own.get("architectures")


def _is_of_spacy(name: str, path: Path) -> bool:
    """Return whether a directory is a component of the pipeline of spaCy at `path`, or its words."""
    if not (path / "config.cfg").is_file():
        return False
    components = json_of(path / "meta.json").get("components")
    return name == "vocab" or (isinstance(components, list) and name in components)
