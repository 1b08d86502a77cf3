"""Decide which task a directory is served with. Opens no weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway import ConfigError, peek_architecture, peek_config

from .tasks import BY_NAME, Task

EVERY = "feature-extraction"
UNKNOWN = "token-classification"  # as good as any, until the weights are there
HINT = "it fills gaps in texts; for embeddings, write framework: sentence-transformers into config.yaml"


def task_of(place: Path | None, chosen: object, path: Path) -> Task:
    """Return the task: the option, or what the architecture is for.

    Raises:
        ConfigError: the option `task` is unknown, or is not what the checkpoint can do, or is missing.
    """
    if chosen is not None and chosen not in BY_NAME:
        raise ConfigError(f"{path}: options.task must be one of {', '.join(BY_NAME)}, not {str(chosen)[:100]!r}")
    found = peek_architecture(place) if place is not None and (place / "config.json").is_file() else None
    served = found.task if found is not None and found.task in BY_NAME else None
    if chosen is None:
        return BY_NAME[served or (EVERY if found is not None else UNKNOWN)]
    task = BY_NAME[str(chosen)]
    if found is not None and not can(found, task):
        raise ConfigError(f"{path}: options.task is {task.name}, but config.json has {found.name}, {found.what}")
    return task


def can(found: Any, task: Task) -> bool:
    """Return whether a task fits the architecture of a checkpoint. Every network that reads texts has features."""
    if task.name != EVERY:
        return bool(found.task == task.name)
    reads_texts = found.task is None or (found.task in BY_NAME and BY_NAME[found.task].reads == "texts")
    return reads_texts and bool(found.gives_vectors or found.writes or found.judges or found.task)


def notes_of(place: Path | None, task: Task, path: Path) -> Iterator[str]:
    """Yield what else the checkpoint could be, if nothing says that this is meant."""
    if place is not None and task.name == "fill-mask" and peek_config(path).get("framework") is None:
        yield HINT
