"""Scan the model roots while the gateway runs, and host a stand-in for every directory that cannot be read.

unreadable directory        hosted as a failed model (a stand-in) with the problem as its reason
new or repaired directory   hosted; begins to load, unless it loads on demand
missing directory           forgotten if none of its processes run; a serving model keeps serving
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..directories.ids import id_problem
from ..directories.searching import narrow, search
from ..errors import UnknownModel
from ..runners.replica import LoadError
from ..spec import ModelSpec, Problem
from ..telemetry import audit
from .load_audit import tell_later

if TYPE_CHECKING:
    from ..telemetry.audit import Actor
    from .catalog import Sees
    from .hub import Hub
    from .model import HostedModel

log = logging.getLogger("gateway.discovery")


@dataclass(slots=True)
class Changes:
    """What a scan of the roots has changed, by model name, and the problems of the other models."""

    new: list[str] = field(default_factory=list)  # or repaired
    broken: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)


def host_broken(hub: Hub, problems: Iterable[Problem]) -> dict[str, str]:
    """Host a failed stand-in for every directory that should be a model but cannot be read.

    Returns the reasons by name.
    """
    broken = _unreadable(problems)
    for name, reason in broken.items():
        if name not in hub.catalog.models:
            hub.host(ModelSpec(name=name, target="", root=Path()))
        model = hub.catalog.models[name]
        if model.spec.is_stand_in and model.reason != reason:
            hub.tails.note(name, f"not loaded: {reason}")
            model.fail(reason)
    hub.catalog.learn_aliases(hub.settings)
    return broken


async def look_again(hub: Hub, sees: Sees, actor: Actor | str, *, reloads: bool = False, ordered: str = "") -> Changes:
    """Scan the roots: host new and repaired models and begin to load them.

    Models already hosted are not read again; that is a reload.

    Only models that the actor `sees` are hosted, failed or forgotten; problems of other models are not logged. Audit
    records name the `actor`.

    With `reloads` the caller reloads changed models as well. Problems of serving models are then left to that reload.
    The load of the model named `ordered` is audited by its own command.
    """
    specs, problems = await asyncio.to_thread(_search, hub)
    specs = tuple(spec for spec in specs if sees(spec.name))
    problems = tuple(problem for problem in problems if sees(problem.model or ""))
    unseen = tuple(problem for problem in hub.problems if not sees(problem.model or ""))
    changes = Changes()
    served = {name for name, model in hub.catalog.models.items() if reloads and not model.spec.is_stand_in}
    for problem in problems:
        if problem not in hub.problems and problem.model not in served:
            log.log(problem.log_level, "%s", problem)
    hub.problems = (*unseen, *problems)
    for spec in specs:
        there = hub.catalog.models.get(spec.name)
        if there is None or there.spec.is_stand_in:
            hub.host(spec)
            changes.new.append(spec.name)
    named = {spec.name for spec in specs}
    known = {model.name: model.reason for model in hub.catalog.seen(sees) if model.spec.is_stand_in}
    changes.broken = {name: reason for name, reason in host_broken(hub, problems).items() if name not in named}
    gone = [model for model in hub.catalog.seen(sees) if model.name not in named | changes.broken.keys()]
    whys = await asyncio.to_thread(lambda: {model.name: what_is_gone(model.spec) for model in gone})
    hub.begin([hub.catalog.models[name] for name in changes.new])
    for model in hub.catalog.seen(sees):
        _tell_gone(model, actor, whys.get(model.name, ""))
    for model in gone:
        if model.state in ("failed", "unloaded"):
            await hub.forget(model)
            changes.gone.append(model.name)
    for name, reason in changes.broken.items():
        if name not in served and known.get(name) != reason:
            audit.refused(actor, "find", reason, model=name)
    for action, names in (("find", changes.new), ("forget", changes.gone)):
        for name in names:
            audit.record(actor, action, model=name)
    new = [hub.catalog.models[name] for name in changes.new if name != ordered]
    tell_later(actor, [model for model in new if model.state != "unloaded"])
    for spec in specs:
        if spec.name in changes.new:
            await hub.remarks.tell(spec)
    return changes


def what_is_gone(spec: ModelSpec) -> str:
    """Return what is missing for the directory to be a model. Reads the disk: do not call on the event loop."""
    if not os.path.isdir(spec.root):
        return "its directory is gone"
    names = [f"{spec.target.partition(':')[0].replace('.', '/')}.py"] if spec.format in ("python", "truss") else []
    names += ["config.yaml"] if spec.format == "truss" else []
    missing = " and ".join(name for name in names if not os.path.isfile(spec.root / name))
    return f"{missing} is gone from its directory" if missing else "its directory is no model any more"


def _tell_gone(model: HostedModel, actor: Actor | str, why: str) -> None:
    """Log and audit once each time that a directory disappears, and keep a note for operators until it is back.

    `why` is empty if the directory exists.
    """
    is_gone = bool(why)
    if is_gone and not model.is_gone and model.state not in ("failed", "unloaded"):
        model.note = f"{why}; the loaded model keeps serving until `gateway unload {model.name}` ends it"
        model.holders = ""
        log.warning("%s: %s", model.name, model.note)
        audit.record(actor, "forget", model=model.name, outcome="not yet: the loaded model keeps serving")
    elif model.is_gone and not is_gone:
        model.note = ""
    model.is_gone = is_gone


async def unload(hub: Hub, model: HostedModel) -> bool:
    """End the model's processes; forget the model if its directory is gone. Returns whether it was forgotten."""
    model.is_gone = model.is_gone or not await asyncio.to_thread(model.spec.root.is_dir)
    await hub.unload(model)
    if model.is_gone:
        await hub.forget(model)
    return model.is_gone


async def find_again(hub: Hub, name: str, sees: Sees, actor: Actor | str) -> HostedModel:
    """Return the model with this name. If it is unknown or a stand-in, scan the roots first.

    Raises:
        UnknownModel: there is no such model.
        LoadError: it cannot be read, with the reason.
    """
    try:
        model = hub.catalog.find(name, sees)
    except UnknownModel:
        model = None
    if model is None or model.spec.is_stand_in:
        await look_again(hub, sees, actor, ordered=name)
        model = hub.catalog.find(name, sees)
    if model.spec.is_stand_in:
        raise LoadError(model.reason, fatal=True)
    return model


def where_it_would_be(hub: Hub, name: str) -> str:
    """Return advice for a model name that was not found. Reads the disk: do not call on the event loop."""
    if id_problem(name) is not None:
        return "a model has the name of a directory in a model root"
    if hub.only and name not in hub.only:
        return f"this gateway was started with --only {','.join(hub.only)}"
    places = [root.expanduser().absolute() / name for root in hub.settings.gateway.models]
    if there := next((place for place in places if place.is_dir()), None):
        return f"{there} is no model: `gateway check {there}` says why"
    missing = " and no ".join(map(str, places))
    return f"there is no {missing}; put its directory there, or make one: gateway new {places[0]}"


def _search(hub: Hub) -> tuple[tuple[ModelSpec, ...], tuple[Problem, ...]]:
    specs, problems = narrow(*search(hub.settings, hub.plugins), hub.only)
    known = {name for name, model in list(hub.catalog.models.items()) if not model.spec.is_stand_in}
    hub.catalog.expected_routes.read(spec for spec in specs if spec.name not in known)
    return specs, problems


def _unreadable(problems: Iterable[Problem]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for problem in problems:
        name = problem.model
        if name is not None and problem.level == "error" and id_problem(name) is None:
            found.setdefault(name, []).append(_said(problem))
    return {name: "; ".join(said) for name, said in found.items()}


def _said(problem: Problem) -> str:
    """Return the problem without directories of this machine, because clients of the model read it too."""
    place = Path(problem.where)
    where = f"{place.name}: " if place.suffix and not place.is_dir() else ""
    return f"{where}{problem.what}" + (f" ({problem.fix})" if problem.fix else "")
