"""Reload a model whose directory or settings have changed.

room for both sets          the new replicas load beside the old ones, then take over; no request fails
no room for both, or        the old replicas finish and end, then the new ones load; requests wait as `wait_for_ready`
reload = "replace"          says, or get 503 with Retry-After
the model was not ready     it is loaded from scratch
the load fails              replicas that were kept beside it keep serving; otherwise the model has failed until the
                            next successful reload
another reload begins       the running one, which may hang, is cancelled; its callers get the outcome of the newest
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..devices.claims import Claim
from ..devices.placement import NO_ROOM
from ..directories.discovery import discover
from ..directories.model_files import entries_of
from ..errors import ConfigError
from ..files.integrity import DEEPEST
from ..files.mounts import contradictions
from ..runners.replica import LoadError, UnderWay
from ..settings.changes import changes
from ..settings.schema import ModelSettings
from ..spec import ModelSpec
from ..telemetry.audit import DONE, record, refused
from .model_roots import what_is_gone
from .newest_order import GivenUp

if TYPE_CHECKING:
    from ..settings.schema import Settings
    from .hub import Hub
    from .model import HostedModel

log = logging.getLogger("gateway.models")

MOST_LOOKED = 100_000  # files and directories of a model, at most, that are searched for compiled code

ONLY_READ = "nothing to do: it is not loaded; its next load uses the directory as it was read now"
SERVES_ON = "the previously loaded code keeps serving"

_tasks: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, Any]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class NoRoom(LoadError):
    """The new replicas fit nowhere. `holders` says which models hold the devices: not every caller may see them."""

    def __init__(self, holders: str) -> None:
        super().__init__(f"{NO_ROOM}: {holders}", fatal=True)
        self.holders = holders


async def reload(hub: Hub, model: HostedModel) -> bool:
    """Reload the model from its directory. Returns whether it was loaded; an unloaded model is only read.

    If the reload fails and the old code keeps serving, the model's `note` says so.

    Raises:
        ConfigError: the directory is no model any more; nothing has changed.
        LoadError: it could not be loaded, with the reason.
        UnderWay: it is being stopped.
    """
    is_unloaded = model.state == "unloaded"
    try:
        await hub.reloads.run(model.name, partial(_noted, hub, model))
        return not is_unloaded or model.state != "unloaded"
    except GivenUp:
        raise LoadError("a newer reload of it was started and cancelled", fatal=True) from None


async def _noted(hub: Hub, model: HostedModel) -> None:
    try:
        await _reload(hub, model)
    except UnderWay:
        raise
    except (ConfigError, LoadError) as error:
        if model.state == "ready" and await asyncio.to_thread(model.spec.root.is_dir):  # otherwise reported by the scan
            why = NO_ROOM if isinstance(error, NoRoom) else error
            hub.tails.note(model.name, f"not reloaded, {SERVES_ON}: {why}")
            model.note = f"the reload at {time.strftime('%H:%M:%S')} failed, {SERVES_ON}: {why}"
            model.holders = error.holders if isinstance(error, NoRoom) else ""
        raise
    model.note = ""


async def _reload(hub: Hub, model: HostedModel) -> None:
    spec = await asyncio.to_thread(read_again, hub, model)
    await hub.remarks.tell(spec)
    hub.hide_secrets_of(spec)
    if model.state == "unloaded":  # the next load uses the new spec
        model.spec = spec
        return
    old, was_ready = hub.ledger.held_by(model.name), model.state == "ready"
    put_back = partial(hub.ledger.put_back, model.name, hub.ledger.places_of(model.name))
    beside = hub.settings.model(model.name).reload == "beside"
    if was_ready and beside and not hub.ledger.place([spec]):
        await _beside(hub, model, spec, old, put_back)
        return
    model.check_replaceable()
    hub.ledger.give_back(old)
    refused = hub.ledger.place([spec])
    if refused:
        hub.ledger.hold(old)
        put_back()
        raise NoRoom(refused[model.name][1])
    try:
        await model.replace(spec, hub.settings.gateway.drain_timeout)
    except LoadError as error:
        if was_ready and model.state == "failed":
            raise LoadError(f"{error}; the old replicas had been stopped first", fatal=error.fatal) from error
        raise


async def reload_told(hub: Hub, model: HostedModel, actor: str, action: str = "reload") -> bool:
    """Reload and write the outcome to the audit log, for reloads that no command waits for.

    Returns whether it succeeded.

    If the model is being stopped, wait for that first.
    """
    while True:
        try:
            was_loaded = await reload(hub, model)
        except asyncio.CancelledError:
            record(actor, action, model=model.name, outcome="given up")
            raise
        except UnderWay:
            await model.replaceable()
            continue
        except (ConfigError, LoadError) as error:
            if await asyncio.to_thread(model.spec.root.is_dir):  # otherwise the next scan reports it
                refused(actor, action, str(error), model=model.name, but=SERVES_ON if model.state == "ready" else "")
            return False
        record(actor, action, model=model.name, outcome=DONE if was_loaded or action == "read" else ONLY_READ)
        return True


async def use_settings(hub: Hub, settings: Settings, actor: str) -> None:
    """Reload the models whose tables have changed, and use the new `secrets_dir`.

    All other settings of the gateway itself take effect at its next start.
    """
    before = hub.settings
    gateway = replace(before.gateway, secrets_dir=settings.gateway.secrets_dir)
    hub.settings = replace(before, gateway=gateway, models=settings.models, origins=settings.origins)
    hub.catalog.learn_aliases(hub.settings)
    _tell_changes(hub.last_read, settings, actor)
    hub.last_read = settings
    for name, model in list(hub.catalog.models.items()):
        if model.spec.is_stand_in or settings.model(name) == before.model(name):
            continue
        await reload_told(hub, model, actor)
    await hub.tell_changes()
    log.info("the settings were read again")


def _tell_changes(before: Settings, after: Settings, actor: str) -> None:
    """Audit each change once. `before` is what was read last, which may not be in force."""
    at_once = replace(before.gateway, secrets_dir=after.gateway.secrets_dir)
    if changed := changes(at_once, after.gateway, "gateway."):
        outcome = f"after the next start: {changed}"
        record(actor, "change of settings", outcome=outcome, level=logging.WARNING)
    if changed := changes(before.gateway, at_once, "gateway."):
        record(actor, "change of settings", outcome=changed)
    for name in sorted({*before.models, *after.models}):
        was, now = (some.models.get(name, ModelSettings()) for some in (before, after))
        if changed := changes(was, now, f"models.{name}."):
            record(actor, "change of settings", outcome=changed)


async def _beside(
    hub: Hub, model: HostedModel, spec: ModelSpec, old: Sequence[Claim], put_back: Callable[[], None]
) -> None:
    """Load the new replicas beside the old. Both hold devices until the old ones have ended, or the load has failed."""
    fresh = [claim for claim in hub.ledger.held_by(model.name) if not any(claim is other for other in old)]
    try:
        await model.reload(spec)
    finally:  # the caller may be cancelled in the turn in which the switch happened
        if model.spec is not spec:
            hub.ledger.give_back(fresh)
            put_back()
        elif old:
            spawn(_give_back_later(hub, model, old))


async def _give_back_later(hub: Hub, model: HostedModel, old: Sequence[Claim]) -> None:
    await model.replicas.retiring.ended()
    hub.ledger.give_back(old)


def read_again(hub: Hub, model: HostedModel) -> ModelSpec:
    """Return what discovery finds for the model now. Reads small files: do not call on the event loop.

    Raises:
        ConfigError: with one line for each problem.
    """
    found = discover(hub.settings.gateway.models, hub.plugins, hub.settings)
    for spec in found.specs:
        if spec.name == model.name:
            others = (other.spec for name, other in hub.catalog.models.items() if name != spec.name)
            if refused := [str(problem) for problem in contradictions((*others, spec)) if problem.model == spec.name]:
                raise ConfigError("\n".join(refused))
            _forget_compiled(spec)
            hub.catalog.expected_routes.read([spec])
            return spec
    problems = [str(problem) for problem in found.problems if problem.model == model.name]
    what = f"{what_is_gone(model.spec)}; put it back, or `gateway unload {model.name}` ends the model"
    raise ConfigError("\n".join(problems) or f"{model.spec.root} is no model any more: {what}")


def _forget_compiled(spec: ModelSpec) -> None:
    """Delete compiled code: Python compares it by whole seconds and source size, so it can miss an edit."""
    waiting = [(str(place), 0) for place in reversed((spec.root, *spec.import_dirs))]  # its own directories come first
    left = MOST_LOOKED
    while waiting:
        place, depth = waiting.pop()
        entries = entries_of(place)
        left -= len(entries)
        if left < 0:
            what = f"more than {MOST_LOOKED} files and directories, those of its external_package_dirs included"
            log.warning("%s has %s: compiled code is not looked for in %s and after it", spec.name, what, place)
            return
        for entry in entries:
            # Do not follow links, which may leave the model; do not enter its data directory, which may hold anything.
            if entry.is_dir(follow_symlinks=False):
                if depth < DEEPEST and entry.path != str(spec.data_dir):
                    waiting.append((entry.path, depth + 1))
            elif entry.name.endswith(".pyc") and os.path.basename(place) == "__pycache__":
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
