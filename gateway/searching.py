"""The models that settings and plugins make of the model roots, at the start and whenever they are looked at again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import mounts
from .discovery import discover
from .spec import Problem
from .wording import table_of

if TYPE_CHECKING:
    from .plugins import Plugins
    from .settings import Settings
    from .spec import ModelSpec


def search(
    settings: Settings, plugins: Plugins, roots: Sequence[Path] = ()
) -> tuple[tuple[ModelSpec, ...], tuple[Problem, ...]]:
    """Return the models in the roots, and the problems of directories and of the settings for them."""
    found = discover(roots or settings.gateway.models, plugins, settings)
    problems = (*found.problems, *_unknown_runners(settings, plugins, found.specs))
    unhosted = {problem.model for problem in problems}
    specs = tuple(spec for spec in found.specs if spec.name not in unhosted)
    if not roots:
        problems += tuple(_unknown_names(settings, {spec.name for spec in specs} | unhosted))
    if roots:  # a table for a model elsewhere is no mistake then
        problems = tuple(problem for problem in problems if problem.code != "unused_table")
    return specs, problems


def narrow(
    specs: tuple[ModelSpec, ...], problems: tuple[Problem, ...], only: Collection[str]
) -> tuple[tuple[ModelSpec, ...], tuple[Problem, ...]]:
    """Return those that are asked for, less the ones of which another has the place already."""
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
    """The default model and aliases that name nothing. A broken model is one that is meant to be there."""
    gateway = settings.gateway
    have = f"have: {', '.join(sorted(name for name in names if name)) or 'none'}"
    if gateway.default_model is not None and gateway.default_model not in names:
        what = f"default_model = {gateway.default_model!r} names no model ({have})"
        where = settings.origin("gateway.default_model")
        yield Problem(where=where, what=what, code="unknown_default_model", level="warning")
    for alias, name in gateway.aliases.items():
        if name not in names:
            what = f"alias {alias!r} is for {name!r}, which is no model ({have})"
            yield Problem(where=settings.origin("gateway.aliases"), what=what, code="unknown_alias", level="warning")
