"""What the settings lead to: plugins, models, devices. Every command that looks at model directories begins here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache, mounts
from .discovery import discover
from .errors import ConfigError
from .plugins import Plugins
from .spec import Problem

if TYPE_CHECKING:
    from .devices import Device
    from .settings import Settings
    from .spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Inventory:
    settings: Settings
    plugins: Plugins
    specs: tuple[ModelSpec, ...]
    problems: tuple[Problem, ...]  # of settings, plugins and model directories
    devices: tuple[Device, ...] = ()


def take_inventory(
    settings: Settings, *, roots: Sequence[Path] = (), only: Collection[str] = (), with_devices: bool = True
) -> Inventory:
    """Return what is there. `roots` are searched instead of those in the settings; `only` keeps the named models.

    Raises:
        ConfigError: a name in `only` is no model.
    """
    cache.use(settings.gateway.cache_dir)  # plugins and formats look for weights there
    plugins = Plugins.load(settings.gateway.plugins, settings.gateway.block_plugins)
    found = discover(roots or settings.gateway.models, plugins, settings)
    problems = (*found.problems, *_unknown_runners(settings, plugins, found.specs))
    unhosted = {problem.model for problem in problems}
    specs = tuple(spec for spec in found.specs if spec.name not in unhosted)
    if not roots:
        problems += tuple(_unknown_names(settings, {spec.name for spec in specs} | unhosted))
    plugins.endpoints()  # for their problems
    if roots:  # a table for a model elsewhere is no mistake then
        problems = tuple(problem for problem in problems if problem.code != "unused_table")
    if only:
        have = {spec.name for spec in specs}
        broken = {problem.model for problem in problems}
        for name in only:
            if name not in have | broken:
                raise ConfigError(f"--only: no model named '{name}' (have: {', '.join(sorted(have)) or 'none'})")
        specs = tuple(spec for spec in specs if spec.name in only)
        problems = tuple(problem for problem in problems if problem.model is None or problem.model in only)
    contradictory = tuple(mounts.contradictions(specs))
    problems += contradictory
    specs = tuple(spec for spec in specs if spec.name not in {problem.model for problem in contradictory})
    return Inventory(
        settings=settings,
        plugins=plugins,
        specs=specs,
        devices=tuple(find_devices(settings, plugins)) if with_devices else (),
        problems=(*settings.problems, *plugins.problems, *problems),
    )


def _unknown_runners(settings: Settings, plugins: Plugins, specs: Sequence[ModelSpec]) -> Iterator[Problem]:
    runners = plugins.runners()
    for spec in specs:
        runner = settings.model(spec.name).runner
        if runner not in runners:
            where = settings.origin(f"models.{spec.name}.runner")
            what = f"[models.{spec.name}] runner = {runner!r} is unknown (have: {', '.join(runners) or 'none'})"
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


def find_devices(settings: Settings, plugins: Plugins) -> list[Device]:
    """Return the accelerators that the settings list, else those that NVIDIA's library and plugins find."""
    from .devices import nvml_devices, parse_devices, static_devices

    given = settings.gateway.placement.devices
    if given == "auto":
        return [*nvml_devices(), *plugins.find_devices()]
    return parse_devices(given) if isinstance(given, str) else static_devices(given)
