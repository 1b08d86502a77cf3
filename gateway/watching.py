"""`gateway serve --reload`: a model whose files change is reloaded, one that is new or mended is found."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from .audit import audited
from .errors import ConfigError
from .reloading import reload
from .replica import LoadError
from .roots import look_again

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchfiles import Change

    from .hosted import HostedModel
    from .hub import Hub

log = logging.getLogger("gateway.models")

SETTLE = 400  # milliseconds of quiet after a change: editors write in several steps
ROOT_POLL = 1000  # milliseconds between two looks for a model root that is not there yet
KINDS = (".py", ".pyx", ".pyd", ".yaml", ".yml", ".json", ".toml", ".txt", ".jinja")


async def watch(hub: Hub) -> None:
    """Reload and find models as files change, until cancelled."""
    while True:
        try:
            await _watch(hub, places(hub))
        except Exception:  # a root that vanished, a limit of the system on watched directories
            log.exception("the files of models could not be watched")
            await asyncio.sleep(ROOT_POLL / 1000)
        await _look(hub)


def places(hub: Hub) -> set[Path]:
    """The roots that are there, and the directories of models that links lead to from them."""
    roots = {root.expanduser().resolve() for root in hub.settings.gateway.models if root.expanduser().is_dir()}
    linked = {model.spec.root.resolve() for model in _hosted(hub) if model.spec.root.is_dir()}
    return roots | {place for place in linked if not any(place.is_relative_to(root) for root in roots)}


def concerning(hub: Hub, ordinary: Callable[[Change, str], bool]) -> Callable[[Change, str], bool]:
    """Of a model its code and settings; elsewhere anything may make a model, or mend one."""
    return lambda change, path: ordinary(change, path) and (path.endswith(KINDS) or not _of(hub, path))


async def _watch(hub: Hub, watched: set[Path]) -> None:
    """Returns when other directories are to be watched."""
    from watchfiles import DefaultFilter, awatch

    if not watched:
        await asyncio.sleep(ROOT_POLL / 1000)
        return
    options = {
        "watch_filter": concerning(hub, DefaultFilter()),
        "debounce": SETTLE,
        "rust_timeout": ROOT_POLL,
        "yield_on_timeout": True,
    }
    async for changes in awatch(*watched, **options):  # type: ignore[arg-type]
        if changes:
            await _take_up(hub, {path for _, path in changes})
        if places(hub) != watched:
            return


async def _take_up(hub: Hub, paths: set[str]) -> None:
    owners = {path: _of(hub, path) for path in paths}
    if None in owners.values():
        await _look(hub)
    for model in {owner.name: owner for owner in owners.values() if owner is not None}.values():
        await _reload(hub, model)


def _hosted(hub: Hub) -> list[HostedModel]:
    return [model for model in hub.models.values() if not model.spec.is_stand_in]


def _of(hub: Hub, path: str) -> HostedModel | None:
    """The model that a file belongs to; the one whose root is nearest."""
    inside = [model for model in _hosted(hub) if _is_below(path, model.spec.root)]
    return max(inside, key=lambda model: len(model.spec.root.parts), default=None)


def _is_below(path: str, root: Path) -> bool:
    return path.startswith((f"{root.resolve()}/", f"{root}/"))


async def _look(hub: Hub) -> None:
    try:
        await look_again(hub)
    except Exception:
        log.exception("the model roots could not be looked at")


async def _reload(hub: Hub, model: HostedModel) -> None:
    log.info("%s: its files have changed", model.name)
    try:
        with audited("a change of its files", "reload", model.name):
            await reload(hub, model)
    except (ConfigError, LoadError) as error:
        log.error("%s: not reloaded: %s", model.name, error)
    except Exception:
        log.exception("%s: not reloaded", model.name)
