"""What lies in a directory whose config.yaml chose a framework that does not serve it: asked by the plugin of that.

A line about what is missing of its own kind would be no help: another framework serves what is there, or nobody does.
"""

from __future__ import annotations

from pathlib import Path

from ..wording import few
from .architectures import STATIC, describe_architecture, other_encoder
from .unserved import find_unserved
from .unserved_adapters import adapter
from .unserved_checkpoints import weights_of
from .unserved_files import json_of, suffix
from .unserved_gguf import gguf_files


def peek_mismatch(place: Path, framework: str) -> str | None:
    """What a folder holds in place of a model of the framework, and what would serve that; None where it may be one."""
    try:
        names = frozenset(child.name for child in place.iterdir() if child.name not in ("config.yaml", "config.yml"))
    except OSError:
        return None
    found = describe_architecture(json_of(place / "config.json"))
    if (served := _served(place, names, framework)) is not None:
        what, by, fix = served
        writes = found is not None and found.writes  # it could be read in two ways, and config.yaml has settled it
        return None if by == framework or (writes and framework != "sklearn") else f"{what}: {fix}"
    is_checkpoint = "config.json" in names and framework != "sklearn" and found is not STATIC
    if is_checkpoint and (adapter(place, names) is None or weights_of(_weights(names))):
        return None  # which its own plugin says more of
    if framework == "sentence-transformers" and "peft_type" in json_of(place / "adapter_config.json"):
        return None  # whose library applies one, with peft
    told = find_unserved(place)
    return f"{told.what}: {told.fix}" if told else None


def _weights(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in names if not name.startswith(("adapter", "pytorch_adapter")))


def _served(place: Path, names: frozenset[str], framework: str) -> tuple[str, str, str] | None:
    """What a plugin would serve, and what to write into config.yaml for that."""
    if "modules.json" in names and other_encoder(place) is None:
        what = "modules.json makes it a model of sentence-transformers, for embeddings"
        return what, "sentence-transformers", _write("sentence-transformers")
    if skops := sorted(name for name in names if suffix(name) == "skops"):
        return f"{few(skops)} is a model of scikit-learn", "sklearn", _write("sklearn")
    gguf = sorted(name for name in names if suffix(name) == "gguf")
    if gguf and framework == "sentence-transformers":
        return f"{few(gguf)} is a GGUF file", framework, ""  # of which its own plugin says that it gives no vectors
    if gguf and gguf_files(place, names) is None:
        return f"{few(gguf)} is a language model as a GGUF file", "transformers", _write("transformers")
    found = describe_architecture(json_of(place / "config.json"))
    if found is not None and found.writes and weights_of(_weights(names)) == "safetensors":
        return f"{found.name}, {found.what}", "transformers", _write("transformers")
    return None


def _write(framework: str) -> str:
    return f"write framework: {framework} into config.yaml, or leave framework out"
