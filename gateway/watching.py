"""`gateway serve --reload`: a model whose files change is reloaded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .audit import audited
from .errors import ConfigError
from .reloading import reload
from .replica import LoadError

if TYPE_CHECKING:
    from pathlib import Path

    from .hosted import HostedModel
    from .hub import Hub

log = logging.getLogger("gateway.models")

SETTLE = 400  # milliseconds of quiet after a change: editors write in several steps


async def watch(hub: Hub) -> None:
    """Reload models as their files change, until cancelled."""
    from watchfiles import PythonFilter, awatch

    kinds = (".yaml", ".yml", ".json", ".toml", ".txt", ".jinja")
    roots = [model.spec.root for model in hub.models.values()]
    async for changes in awatch(*roots, watch_filter=PythonFilter(extra_extensions=kinds), debounce=SETTLE):
        changed = {model.name: model for _, path in changes for model in _of(hub, path)}
        for model in changed.values():
            await _reload(hub, model)


def _of(hub: Hub, path: str) -> list[HostedModel]:
    """The models that a file belongs to; those whose root is nearest."""
    inside = [model for model in hub.models.values() if _is_below(path, model.spec.root)]
    return sorted(inside, key=lambda model: -len(model.spec.root.parts))[:1]


def _is_below(path: str, root: Path) -> bool:
    return path.startswith((f"{root.resolve()}/", f"{root}/"))


async def _reload(hub: Hub, model: HostedModel) -> None:
    log.info("%s: its files have changed", model.name)
    try:
        with audited("a change of its files", "reload", model.name):
            await reload(hub, model)
    except (ConfigError, LoadError) as error:
        log.error("%s: not reloaded: %s", model.name, error)
