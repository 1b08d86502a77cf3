"""A model whose directory or settings have changed: read again, and served as it is now.

room for both           the new replicas are loaded beside the old, then calls go to them: nobody notices
no room for both, or    the old ones finish and end, then the new ones are loaded: requests wait, as `wait_for_ready`
reload = "replace"      says, or get 503 with Retry-After
it was not ready        it is loaded anew
it cannot be loaded     beside the old, what was there serves on; else the model has failed until a reload that is good
another reload begins   the one under way, which may hang, is given up, and who waits for it hears how the newest ends
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

from .audit import DONE, record, refused
from .claims import Claim
from .contents import DEEPEST
from .discovery import discover
from .errors import ConfigError
from .mounts import contradictions
from .newest import GivenUp
from .placement import NO_ROOM
from .replica import LoadError, UnderWay
from .roots import what_is_gone
from .settings import ModelSettings
from .settings_changes import changes
from .spec import ModelSpec

if TYPE_CHECKING:
    from .hosted import HostedModel
    from .hub import Hub
    from .settings import Settings

log = logging.getLogger("gateway.models")

MOST_LOOKED = 100_000  # files and directories of a model among which compiled code is looked for

ONLY_READ = "nothing to do: it is not loaded; its next load is of its directory as it was read now"
SERVES_ON = "the code that was loaded before serves on"

_tasks: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, Any]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class NoRoom(LoadError):
    """The new one fits nowhere; who holds the devices is in its text."""


async def reload(hub: Hub, model: HostedModel) -> bool:
    """Serve the model as its directory says now; whether it was loaded, which one that is unloaded is not.

    When that fails and the old code serves on, its `note` says so.

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
        raise LoadError("a newer reload of it was begun and given up", fatal=True) from None


async def _noted(hub: Hub, model: HostedModel) -> None:
    try:
        await _reload(hub, model)
    except UnderWay:
        raise
    except (ConfigError, LoadError) as error:
        if model.state == "ready" and await asyncio.to_thread(model.spec.root.is_dir):  # else it is gone, as is told
            hub.tails.note(model.name, f"not reloaded, {SERVES_ON}: {error}")
            model.note = f"the reload at {time.strftime('%H:%M:%S')} failed, {SERVES_ON}: {error}"
        raise
    model.note = ""


async def _reload(hub: Hub, model: HostedModel) -> None:
    spec = await asyncio.to_thread(read_again, hub, model)
    await hub.remarks.tell(spec)
    if model.state == "unloaded":  # its next load is that of the new one
        model.spec = spec
        return
    old, was_ready = hub.held_by(model.name), model.state == "ready"
    put_back = partial(hub.put_back, model.name, hub.places_of(model.name), model.devices)
    beside = hub.settings.model(model.name).reload == "beside"
    if was_ready and beside and not hub.place([spec]):
        await _beside(hub, model, spec, old, put_back)
        return
    model.check_replaceable()
    hub.give_back(old)
    refused = hub.place([spec])
    if refused:
        hub.hold(old)
        put_back()
        raise NoRoom(f"{NO_ROOM}: {refused[model.name][1]}", fatal=True)
    try:
        await model.replace(spec, hub.settings.gateway.drain_timeout)
    except LoadError as error:
        if was_ready and model.state == "failed":
            raise LoadError(f"{error}; the old one was stopped first and is gone", fatal=error.fatal) from error
        raise


async def reload_told(hub: Hub, model: HostedModel, actor: str, action: str = "reload") -> bool:
    """Reload it for somebody who is not there to hear how that ended, which is told in one line; whether it was good.

    Where the model is being stopped, that comes first.
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
            if await asyncio.to_thread(model.spec.root.is_dir):  # else it was on its way out: the next look tells
                refused(actor, action, str(error), model=model.name, but=SERVES_ON if model.state == "ready" else "")
            return False
        record(actor, action, model=model.name, outcome=DONE if was_loaded or action == "read" else ONLY_READ)
        return True


async def use_settings(hub: Hub, settings: Settings, actor: str) -> None:
    """Reload the models whose tables have changed, and find secrets where they are now. What else is the gateway's own
    counts from its next start on."""
    before = hub.settings
    gateway = replace(before.gateway, secrets_dir=settings.gateway.secrets_dir)
    hub.settings = replace(before, gateway=gateway, models=settings.models, origins=settings.origins)
    hub.aliases = hub.settings.aliases_of(hub.models)
    _tell_changes(hub.last_read, settings, actor)
    hub.last_read = settings
    for name, model in list(hub.models.items()):
        if model.spec.is_stand_in or settings.model(name) == before.model(name):
            continue
        await reload_told(hub, model, actor)
    await hub.tell_changes()
    log.info("the settings were read again")


def _tell_changes(before: Settings, after: Settings, actor: str) -> None:
    """Each change once: `before` is what was read last, though not all of that is in force."""
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
    """Both hold their devices until the old replicas have ended, or the new ones could not be loaded."""
    fresh = [claim for claim in hub.held_by(model.name) if not any(claim is other for other in old)]
    try:
        await model.reload(spec)
    finally:  # whoever waits may be cancelled in the turn in which it has switched
        if model.spec is not spec:
            hub.give_back(fresh)
            put_back()
        elif old:
            spawn(_give_back_later(hub, model, old))


async def _give_back_later(hub: Hub, model: HostedModel, old: Sequence[Claim]) -> None:
    await model.retired()
    hub.give_back(old)


def read_again(hub: Hub, model: HostedModel) -> ModelSpec:
    """What discovery says of the model now. Reads small files; not for the loop.

    Raises:
        ConfigError: with a line for everything wrong.
    """
    found = discover(hub.settings.gateway.models, hub.plugins, hub.settings)
    for spec in found.specs:
        if spec.name == model.name:
            others = (other.spec for name, other in hub.models.items() if name != spec.name)
            if refused := [str(problem) for problem in contradictions((*others, spec)) if problem.model == spec.name]:
                raise ConfigError("\n".join(refused))
            _forget_compiled(spec)
            hub.foretold.read([spec])
            return spec
    problems = [str(problem) for problem in found.problems if problem.model == model.name]
    what = f"{what_is_gone(model.spec)}; put it back, or `gateway unload {model.name}` ends the model"
    raise ConfigError("\n".join(problems) or f"{model.spec.root} is no model any more: {what}")


def _forget_compiled(spec: ModelSpec) -> None:
    """Python knows compiled code by whole seconds and the size of its source: an edit may look like no edit."""
    waiting = [(str(place), 0) for place in reversed((spec.root, *spec.import_dirs))]  # its own are the first
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
            # A link leads where the model may not write, and its data directory is full of whatever it likes.
            if entry.is_dir(follow_symlinks=False):
                if depth < DEEPEST and entry.path != str(spec.data_dir):
                    waiting.append((entry.path, depth + 1))
            elif entry.name.endswith(".pyc") and os.path.basename(place) == "__pycache__":
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def entries_of(place: str) -> list[os.DirEntry[str]]:
    """What is in a directory; nothing where it cannot be read."""
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except OSError:
        return []
