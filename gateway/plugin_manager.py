"""pluggy's plugin manager, which finds the hooks of a module faster, and whose plugins they are.

pluggy looks at every attribute of a plugin without running descriptors. A module has none, and most of its attributes
are no functions; looking at them in pluggy's way takes as long as the imports of all built-in plugins.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import EntryPoint
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pluggy

HOOKABLE = (FunctionType, MethodType, classmethod, staticmethod)  # what pluggy accepts as a hook


class Manager(pluggy.PluginManager):
    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        if isinstance(plugin, ModuleType) and not isinstance(vars(plugin).get(name), HOOKABLE):
            return None
        return super().parse_hookimpl_opts(plugin, name)


def packages_of(points: Collection[EntryPoint]) -> list[tuple[str, str]]:
    """Return the name and version of the package of each entry point: asked once, for each access parses its file."""
    packages = {id(point.dist): point.dist for point in points}
    known = {key: (package.name, package.version) for key, package in packages.items() if package}
    return [known[id(point.dist)] if point.dist else (point.value, "") for point in points]
