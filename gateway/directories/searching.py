"""Find the models that settings and plugins make of the model roots, at the start and on every later search."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import mounts
from ..spec import Problem
from ..wording import table_of
from .discovery import discover

if TYPE_CHECKING:
    from ..plugins import Plugins
    from ..settings.schema import Settings
    from ..spec import ModelSpec


def search(
    settings: Settings, plugins: Plugins, roots: Sequence[Path] = ()
) -> tuple[tuple[ModelSpec, ...], tuple[Problem, ...]]:
    """Return the models in the roots, and the problems of directories and of settings for models."""
    found = discover(roots or settings.gateway.models, plugins, settings)
    problems = (*found.problems, *_unknown_runners(settings, plugins, found.specs))
    unhosted = {problem.model for problem in problems}
    specs = tuple(spec for spec in found.specs if spec.name not in unhosted)
    if not roots:
        problems += tuple(_unknown_names(settings, {spec.name for spec in specs} | unhosted))
    if roots:  # tables for models outside the given roots are no mistake
        problems = tuple(problem for problem in problems if problem.code != "unused_table")
    return specs, problems


def narrow(
    specs: tuple[ModelSpec, ...], problems: tuple[Problem, ...], only: Collection[str]
) -> tuple[tuple[ModelSpec, ...], tuple[Problem, ...]]:
    """Return the requested models, without those whose mount locations conflict with another model's."""
    if only:
        specs = tuple(spec for spec in specs if spec.name in only)
        problems = tuple(problem for problem in problems if problem.model is None or problem.model in only)
    contradictory = tuple(mounts.contradictions(specs))
    refused = {problem.model for problem in contradictory}
    return tuple(spec for spec in specs if spec.name not in refused), problems + contradictory


def _unknown_runners(settings: Settings, plugins: Plugins, specs: Sequence[ModelSpec]) -> Iterator[Problem]:
    runners = plugins.runners()
    for spec in specs:
        runner = settings.model(spec.name).runner
        if runner not in runners:
            where = settings.origin(f"models.{spec.name}.runner")
            what = f"{table_of(spec.name)} runner = {runner!r} is unknown (have: {', '.join(runners) or 'none'})"
            yield Problem(where=where, what=what, code="unknown_runner", model=spec.name)


def _unknown_names(settings: Settings, names: Collection[str | None]) -> Iterator[Problem]:
    """Yield problems for a default model and aliases that name no model. A broken model counts as existing."""
    gateway = settings.gateway
    have = f"have: {', '.join(sorted(name for name in names if name)) or 'none'}"
    if gateway.default_model is not None and gateway.default_model not in names:
        what = f"default_model = {gateway.default_model!r} does not name a model ({have})"
        where = settings.origin("gateway.default_model")
        yield Problem(where=where, what=what, code="unknown_default_model", level="warning")
    for alias, name in gateway.aliases.items():
        if name not in names:
            what = f"alias {alias!r} refers to {name!r}, which is not a model ({have})"
            yield Problem(where=settings.origin("gateway.aliases"), what=what, code="unknown_alias", level="warning")
