"""Recognise directories with a GGUF file, and choose the engine that serves it. Imports neither engine.

Both plugins that serve GGUF files ask here, so exactly one of them claims a directory.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway import ConfigError, ModelSpec, has_code, peek_config, peek_patterns, peek_weights

from .files import find, first_keys, say_passed_over
from .kinds import doubt

TORCH, LLAMACPP = "torch", "llamacpp"
ENGINES = (LLAMACPP, TORCH)
FRAMEWORKS = {"transformers": TORCH, "llamacpp": LLAMACPP}
PACKAGE = "xllamacpp"
INSTALL = "pip install 'model-gateway[llamacpp]'"


class Choice(NamedTuple):
    engine: str
    why: str


def has_gguf(path: Path) -> bool:
    """Return whether the weights of a model directory are a GGUF file; also if it is named, but not there yet."""
    weights = peek_config(path).get("weights")
    entry = weights[0] if isinstance(weights, list) and weights else None
    if isinstance(entry, dict) and str(entry.get("source", "")).endswith(".gguf"):
        return True  # the load says how to get it
    place = peek_weights(path)
    return place is not None and find(place, [path.absolute().name], peek_patterns(path)) is not None


def is_claimed(path: Path) -> bool:
    """Return whether a directory is that of a GGUF file, and not of another framework or of a class."""
    framework = peek_config(path).get("framework")
    if framework == LLAMACPP:
        return True
    return (framework in FRAMEWORKS or not (framework or has_code(path))) and has_gguf(path)


def odd(path: Path) -> Iterator[str]:
    """Yield warnings about the GGUF file of a model directory, and about another model next to it."""
    place = peek_weights(path)
    if place is None or not place.is_dir():
        return
    if (file := find(place, [path.absolute().name], peek_patterns(path))) is None:
        return
    if told := doubt(first_keys(file).said):
        yield f"{file.name}: {told}"
    if (place / "config.json").is_file() and any(place.glob("*.safetensors")):
        what = f"{file.name} is served, not the checkpoint next to it (config.json, *.safetensors)"
        yield f"{what}; to serve that, move the GGUF file away; to confirm the GGUF file, name it in weights"


def passed_over(path: Path) -> Iterator[str]:
    """Yield notes about files of other models and servers, which are often next to a model."""
    place = peek_weights(path)
    if place is None or not place.is_dir():
        return
    chosen = peek_patterns(path)
    file = find(place, [path.absolute().name], chosen)
    if told := say_passed_over(place, file, chosen):
        yield told
    if file is not None and (place / "Modelfile").is_file():
        yield f"the Ollama Modelfile next to {file.name} is not read: put its SYSTEM and PARAMETER into requests"


def choose(spec: ModelSpec) -> Choice:
    """Return the engine for a GGUF file: 1. the one asked for  2. by the framework  3. torch on a GPU  4. what is there

    Raises `ConfigError` for an engine that there is not.
    """
    asked = (spec.config.get("options") or {}).get("engine", spec.config.get("engine"))
    if asked is not None:
        if asked not in ENGINES:
            raise ConfigError(f"{spec.root}: engine: {asked!r} is none of those for GGUF files: {', '.join(ENGINES)}")
        return Choice(asked, "as its settings say")
    if (framework := spec.config.get("framework")) in FRAMEWORKS:
        return Choice(FRAMEWORKS[framework], f"because of framework: {framework}")
    if spec.resources.gpus or spec.resources.pin:
        return Choice(TORCH, "because it has a GPU, and llama.cpp is here for CPUs")
    if importlib.util.find_spec(PACKAGE) is None:
        return Choice(TORCH, f"because {PACKAGE} is not installed, with which llama.cpp would serve it: {INSTALL}")
    return Choice(LLAMACPP, f"because it is a GGUF file on a CPU, and {PACKAGE} is installed")
