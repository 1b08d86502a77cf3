"""What a training keeps to go on from, in a directory without weights: its optimizer, schedule, and random numbers."""

from __future__ import annotations

from pathlib import Path

from .unserved_companions import training_files
from .unserved_files import Unserved, listed
from .unserved_kinds import Kind

STATE = Kind(
    "", "the state of a training, not weights", "get the weights that were saved with it: only that training reads it"
)


def training_state(path: Path, names: frozenset[str]) -> Unserved | None:
    found = sorted(training_files(path, names))
    return listed(STATE, found, is_sure=False) if found else None
