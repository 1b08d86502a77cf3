"""Recognise the state of a training without weights: optimizer, scheduler, and random numbers."""

from __future__ import annotations

from pathlib import Path

from .companions import training_files
from .files import Unserved, listed
from .kinds import Kind

STATE = Kind(
    "", "the state of a training, not weights", "get the weights saved with it; only that training can use this state"
)


def training_state(path: Path, names: frozenset[str]) -> Unserved | None:
    found = sorted(training_files(path, names))
    return listed(STATE, found, is_sure=False) if found else None
