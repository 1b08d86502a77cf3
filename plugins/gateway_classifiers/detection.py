"""Recognise classifiers of texts and cross encoders, and decide which of the two a directory has. Opens no weights."""

from __future__ import annotations

from pathlib import Path

from gateway_checkpoints.weights import is_adapter

from gateway import ConfigError, has_code, peek_architecture, peek_config, peek_weights

from .settings import labels_of, object_of

EMBEDDING = ("modules.json", "1_Pooling/config.json")  # of an embedding model, whatever its config.json says
TASKS = ("classify", "rerank")


def is_ours(path: Path, framework: str) -> bool:
    """Decide: 1. config.yaml names the framework  2. own code  3. a checkpoint that judges texts"""
    config = peek_config(path)
    if chosen := config.get("framework"):
        return bool(chosen == framework)
    if has_code(path):
        return False
    place = peek_weights(path)
    if place is None or not place.is_dir():
        return False
    found = peek_architecture(place)
    if found is None or not found.judges:
        return False
    if found.is_saved_by == "transformers" and any((place / name).is_file() for name in EMBEDDING):
        return False
    return any(not is_adapter(file) for file in place.glob("*.safetensors"))


def task_of(place: Path | None, chosen: object, path: Path) -> str:
    """Return the method that a directory answers: a model with one label gives a score.

    Raises:
        ConfigError: the option `task` is unknown, or is not what the checkpoint can do.
    """
    if chosen is not None and chosen not in TASKS:
        raise ConfigError(f"{path}: options.task must be classify or rerank, not {chosen!r}")
    if place is None or not (place / "config.json").is_file():
        return str(chosen or "classify")
    count = len(labels_of(place, object_of(place, "config.json")))
    found = "rerank" if count == 1 else "classify"
    if chosen not in (None, found):
        what = f"options.task is {chosen}, but config.json has {count} label{'' if count == 1 else 's'}"
        raise ConfigError(f"{path}: {what}, so the model answers {found}: remove the option")
    return found
