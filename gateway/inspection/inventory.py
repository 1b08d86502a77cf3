"""Collect plugins, models and devices from the settings. Every command that reads model directories starts here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..directories.searching import narrow, search
from ..errors import ConfigError
from ..files import cache
from ..http.route_table import is_own
from ..plugins import Plugins
from ..spec import Problem

if TYPE_CHECKING:
    from ..devices.device import Device
    from ..settings.schema import Settings
    from ..spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Inventory:
    settings: Settings
    plugins: Plugins
    specs: tuple[ModelSpec, ...]
    problems: tuple[Problem, ...]  # of settings, plugins and model directories
    remarks: tuple[Problem, ...] = ()  # about models that are served, if they were checked
    devices: tuple[Device, ...] = ()
    only: tuple[str, ...] = ()  # the requested models; empty: all


def take_inventory(
    settings: Settings, *, roots: Sequence[Path] = (), only: Collection[str] = (), with_devices: bool = True
) -> Inventory:
    """Return the inventory. `roots` are searched instead of those in the settings; `only` keeps the named models.

    Raises:
        ConfigError: a name in `only` is not a model.
    """
    cache.use(settings.gateway.cache_dir)  # plugins and formats look for weights there
    plugins = Plugins.load(settings.gateway.plugins, settings.gateway.block_plugins, is_own=is_own)
    specs, problems = search(settings, plugins, roots)
    plugins.endpoints()  # records their problems
    have = {spec.name for spec in specs}
    for name in only:
        if name not in have | {problem.model for problem in problems}:
            raise ConfigError(f"--only: no model named '{name}' (have: {', '.join(sorted(have)) or 'none'})")
    specs, problems = narrow(specs, problems, only)
    return Inventory(
        settings=settings,
        plugins=plugins,
        specs=specs,
        devices=tuple(find_devices(settings, plugins)) if with_devices else (),
        problems=(*settings.problems, *plugins.problems, *problems),
        only=tuple(only),
    )


def find_devices(settings: Settings, plugins: Plugins) -> list[Device]:
    """Return the accelerators listed in the settings, or else those found by NVML and plugins."""
    from ..devices.device import nvml_devices, parse_devices, static_devices

    given = settings.gateway.placement.devices
    if given == "auto":
        return [*nvml_devices(), *plugins.find_devices()]
    return parse_devices(given) if isinstance(given, str) else static_devices(given)
