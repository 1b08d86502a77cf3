"""Explain what a directory holds if its config.yaml chose a framework that does not serve it. The framework's plugin
asks.

Naming missing files of the framework would not help: another framework serves the content, or none does.
"""

from __future__ import annotations

from pathlib import Path

from ...wording import few
from .adapters import adapter
from .architectures import STATIC, describe_architecture, other_encoder
from .checkpoints import weights_of
from .files import json_of, suffix
from .gguf import gguf_files
from .unserved import find_unserved

OTHERS = (
    "sklearn",
    "xgboost",
    "lightgbm",
    "catboost",
    "onnx",
    "torch",
    "spacy",
    "fasttext",
    "keras",
    "diffusers",
)  # which have no checkpoint of transformers


def peek_mismatch(place: Path, framework: str) -> str | None:
    """Return what a folder holds instead of a model of the framework, with advice; None if it may be such a model."""
    try:
        names = frozenset(child.name for child in place.iterdir() if child.name not in ("config.yaml", "config.yml"))
    except OSError:
        return None
    found = describe_architecture(json_of(place / "config.json"))
    if (served := _served(place, names, framework)) is not None:
        what, by, fix = served
        writes = found is not None and found.writes  # it fits two frameworks, and config.yaml chose one
        return None if by == framework or (writes and framework not in OTHERS) else f"{what}: {fix}"
    is_checkpoint = "config.json" in names and framework not in OTHERS and found is not STATIC
    if is_checkpoint and (adapter(place, names) is None or weights_of(_weights(names))):
        return None  # its own plugin explains more
    if framework == "sentence-transformers" and "peft_type" in json_of(place / "adapter_config.json"):
        return None  # the library applies it itself, with peft
    told = find_unserved(place)
    return f"{told.what}: {told.fix}" if told else None


def _weights(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in names if not name.startswith(("adapter", "pytorch_adapter")))


def _served(place: Path, names: frozenset[str], framework: str) -> tuple[str, str, str] | None:
    """Return what a plugin would serve, and what to write into config.yaml for that."""
    if "modules.json" in names and other_encoder(place) is None:
        what = "modules.json makes it a model of sentence-transformers, for embeddings"
        return what, "sentence-transformers", _write("sentence-transformers")
    if skops := sorted(name for name in names if suffix(name) == "skops"):
        return f"{few(skops)} is a model of scikit-learn", "sklearn", _write("sklearn")
    gguf = sorted(name for name in names if suffix(name) == "gguf")
    if gguf and framework == "sentence-transformers":
        return f"{few(gguf)} is a GGUF file", framework, ""  # the plugin explains itself that it gives no vectors
    if gguf and gguf_files(place, names) is None:
        return f"{few(gguf)} is a language model as a GGUF file", "transformers", _write("transformers")
    found = describe_architecture(json_of(place / "config.json"))
    if found is not None and found.writes and weights_of(_weights(names)) == "safetensors":
        return f"{found.name}, {found.what}", "transformers", _write("transformers")
    return None


def _write(framework: str) -> str:
    return f"write framework: {framework} into config.yaml, or leave framework out"
