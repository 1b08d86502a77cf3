"""Warnings about a model that is served nevertheless: from its format, its plugin, its config.yaml and its code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import json_budget, ordinary
from ..spec import Level, Problem
from ..wording import MOST_NAMES, addressed, counted, traceback_of, unexpected
from .code.syntax import TOKENS
from .code.variables import unset
from .config.config import ModelConfig, read_config
from .repeated_problems import MOST_ALIKE

if TYPE_CHECKING:
    from ..spec import ModelSpec

log = logging.getLogger("gateway.discovery")


class Remarks:
    """The warnings given for each model. Each is given once, until it disappears and occurs again."""

    def __init__(self, said: Iterable[Problem] = ()) -> None:
        self._said: dict[str, set[tuple[str, str]]] = {}
        for problem in said:
            self._said.setdefault(problem.model or "", set()).add(_key(problem))

    async def tell(self, spec: ModelSpec) -> None:
        """Log the current warnings that have not been logged before."""
        for problem in await asyncio.to_thread(self._news, spec):
            about = {"code": problem.code, "model": problem.model}
            log.log(problem.log_level, "%s", problem, extra=about)

    def _news(self, spec: ModelSpec) -> list[Problem]:
        found = told_at_start(spec)
        known = self._said.get(spec.name, set())
        self._said[spec.name] = {_key(problem) for problem in found}
        return [problem for problem in found if _key(problem) not in known]

    def forget(self, name: str) -> None:
        self._said.pop(name, None)


def _key(problem: Problem) -> tuple[str, str]:
    """Identify a warning without its line number: every edit above it would change that."""
    return problem.code, problem.what


def remarks(spec: ModelSpec, config: ModelConfig) -> Iterator[Problem]:
    """Yield the warnings of the model's format and plugin. Those about `config` are reported key by key elsewhere."""
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


def _with_meant(unknown: Problem) -> str:
    """Return an unknown key, with the key that was probably meant."""
    name = unknown.what.removeprefix("unknown key ")
    return f"{name}, {unknown.fix}" if unknown.fix.startswith("did you mean") else name


@json_budget.of_directory()
def told_at_start(spec: ModelSpec) -> list[Problem]:
    """Return the warnings shown at the start, and when a model changes while the gateway runs.

    `gateway check` also shows the lines of config.yaml, and keys without effect.
    """
    try:
        with ordinary.within(spec.root, spec.allow_links):
            return list(_told_at_start(spec))
    except Exception as error:  # of one model, whatever its files are
        log.error("the files of %s could not be looked at", spec.name, exc_info=traceback_of(error))
        return [_problem(spec, "warning", "unexpected", f"some checks failed ({unexpected(error)})")]


def _told_at_start(spec: ModelSpec) -> Iterator[Problem]:
    config = read_config(spec.root)
    if unknown := [problem for problem in config.warnings if problem.code == "unknown_key"]:
        names = list(map(_with_meant, unknown))
        is_whole = len(unknown) <= MOST_ALIKE  # otherwise the last one is a count of the rest
        keys = counted(len(unknown), "unknown key") if is_whole else f"more than {MOST_ALIKE} unknown keys"
        listed = "; ".join(names[:MOST_NAMES]) + ("; …" if len(names) > MOST_NAMES else "")
        yield Problem(
            where=str(config.path),
            what=f"{keys}: {listed}",
            fix="gateway check shows the lines",
            level="warning",
            code="unknown_key",
            model=spec.name,
        )
    yield from (problem for problem in config.warnings if problem.code != "unknown_key")
    yield from remarks(spec, config)
    for variable in unset(spec, most_tokens=TOKENS):
        if variable.level == "warning":
            yield Problem(
                where=f"{spec.name}: {variable.where}",
                what=variable.what,
                fix=variable.fix,
                level="warning",
                code="missing_variable",
                model=spec.name,
            )
