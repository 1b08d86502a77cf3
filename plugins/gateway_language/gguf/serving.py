"""Recognise directories with a GGUF file, and choose the engine that serves it. Imports neither engine.

Both plugins that serve GGUF files ask here, so exactly one of them claims a directory.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway import ConfigError, ModelSpec, has_code, peek_config, peek_patterns, peek_weights

from .files import beside, find, first_keys, say_passed_over, task_of
from .kinds import POOLINGS, Task, doubt

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


def task(spec: ModelSpec) -> Task:
    """Return what a GGUF file is served for: as options.pooling says, or its header. Raises `ConfigError`."""
    pooling = (spec.config.get("options") or {}).get("pooling")
    if pooling is not None:
        if pooling not in POOLINGS:
            raise ConfigError(f"{spec.root}: options.pooling is {pooling!r}, which is none of {', '.join(POOLINGS)}")
        return "rerank" if pooling == "rank" else "embeddings"
    file = _file(spec.root)
    return "chat" if file is None else task_of(file)


def choose(spec: ModelSpec) -> Choice:
    """Return the engine for a GGUF file: 1. the one asked for  2. by the framework  3. torch on a GPU  4. what is there

    Vectors and ratings are llama.cpp's alone. Raises `ConfigError` for an engine that there is not.
    """
    asked = (spec.config.get("options") or {}).get("engine", spec.config.get("engine"))
    if asked is not None and asked not in ENGINES:
        raise ConfigError(f"{spec.root}: engine: {asked!r} is none of those for GGUF files: {', '.join(ENGINES)}")
    framework = spec.config.get("framework")
    if (what := task(spec)) != "chat":
        return _of_texts(spec, what, asked or FRAMEWORKS.get(str(framework), LLAMACPP))
    if asked is not None:
        return Choice(asked, "as its settings say")
    if framework in FRAMEWORKS:
        return Choice(FRAMEWORKS[framework], f"because of framework: {framework}")
    if spec.resources.gpus or spec.resources.pin:
        return Choice(TORCH, "because it has a GPU, and llama.cpp is here for CPUs")
    if importlib.util.find_spec(PACKAGE) is None:
        return Choice(TORCH, f"because {PACKAGE} is not installed, with which llama.cpp would serve it: {INSTALL}")
    return Choice(LLAMACPP, f"because it is a GGUF file on a CPU, and {PACKAGE} is installed")


def _of_texts(spec: ModelSpec, what: Task, engine: str) -> Choice:
    file = _file(spec.root)
    if engine != LLAMACPP:
        other = beside(file) if file is not None else None
        known = f"{file.name} is {other.what}" if file and other else f"options.pooling makes it a model for {what}"
        raise ConfigError(f"{spec.root}: {known}: only llama.cpp serves that: take engine and framework away")
    if spec.resources.gpus or spec.resources.pin:
        raise ConfigError(f"{spec.root}: GGUF files for {what} are computed on the CPU here: give it no GPU (gpus = 0)")
    return Choice(LLAMACPP, f"because it is a GGUF file for {what}")


def _file(path: Path) -> Path | None:
    place = peek_weights(path)
    return None if place is None else find(place, [path.absolute().name], peek_patterns(path))
