"""Decide which of classifiers of texts and cross encoders a directory has. Opens no weights."""

from __future__ import annotations

from pathlib import Path

from gateway_checkpoints.labels import labels_of, object_of

from gateway import ConfigError

from .settings import entailment_of

TASKS = ("classify", "rerank", "zero-shot")


def task_of(place: Path | None, chosen: object, path: Path) -> str:
    """Return the task of a directory: a model with one label gives a score, one of entailment takes any labels.

    Raises:
        ConfigError: the option `task` is unknown, or is not what the checkpoint can do.
    """
    if chosen is not None and chosen not in TASKS:
        raise ConfigError(f"{path}: options.task must be one of {', '.join(TASKS)}, not {str(chosen)[:100]!r}")
    if place is None or not (place / "config.json").is_file():
        return str(chosen or "classify")
    labels = labels_of(place, object_of(place, "config.json"))
    count, entails = len(labels), entailment_of(labels) is not None
    found = "rerank" if count == 1 else "zero-shot" if entails else "classify"
    if chosen == "zero-shot" and count > 1 and not entails:
        what = f"options.task is zero-shot, but no label in config.json is entailment: {', '.join(labels[:5])[:200]}"
        raise ConfigError(f"{path}: {what}")
    if chosen not in (None, found) and (count == 1 or chosen == "rerank"):
        what = f"options.task is {chosen}, but config.json has {count} label{'' if count == 1 else 's'}"
        raise ConfigError(f"{path}: {what}, so the model answers {found}: remove the option")
    return str(chosen or found)
