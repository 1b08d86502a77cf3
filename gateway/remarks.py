"""What is said of a model that serves all the same: by its format, its plugin and its config.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .formats.config import ModelConfig, read_config
from .spec import Level, Problem
from .wording import addressed

if TYPE_CHECKING:
    from .spec import ModelSpec


def remarks(spec: ModelSpec, config: ModelConfig) -> Iterator[Problem]:
    """What its format and its plugin say of it; what is in `config` is told key by key elsewhere."""
    told = tuple(str(problem).removeprefix(str(spec.root)) for problem in config.problems) + config.notes
    for note in spec.notes:
        if not note.endswith(told):
            yield _problem(spec, "warning", "odd_model", note)
    for aside in spec.asides:
        yield _problem(spec, "note", "passed_over", aside)


def _problem(spec: ModelSpec, level: Level, code: str, text: str) -> Problem:
    place, colon, rest = text.partition(": ")
    what = rest if colon and Path(place).absolute() == spec.root else text
    return Problem(where=str(spec.root), what=addressed(what, spec.name), level=level, code=code, model=spec.name)


def told_at_start(spec: ModelSpec) -> Iterator[Problem]:
    """What whoever starts the gateway is told; `gateway check` has the lines of config.yaml, and what has no effect."""
    config = read_config(spec.root)
    if unknown := [problem for problem in config.warnings if problem.code == "unknown_key"]:
        names = ", ".join(problem.what.removeprefix("unknown key ") for problem in unknown)
        keys = f"{len(unknown)} unknown key{'s' * (len(unknown) > 1)}"
        yield Problem(
            where=str(config.path),
            what=f"{keys}: {names}",
            fix="gateway check says what is meant",
            level="warning",
            code="unknown_key",
            model=spec.name,
        )
    yield from (problem for problem in config.warnings if problem.code != "unknown_key")
    yield from remarks(spec, config)
