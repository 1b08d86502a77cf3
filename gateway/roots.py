"""The model roots, looked at again while the gateway runs; and the models of them that nobody could read.

a directory that cannot be read   is a model that has failed, with what is wrong as its reason: a stand-in
one that was mended, or is new    is hosted, and begins to load unless it loads on demand
one that is gone                  is forgotten where nothing of it runs; what serves goes on to serve
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import audit
from .discovery import id_problem
from .errors import UnknownModel
from .replica import LoadError
from .searching import narrow, search
from .spec import ModelSpec, Problem
from .told_loads import tell_later

if TYPE_CHECKING:
    from .audit import Actor
    from .hosted import HostedModel
    from .hub import Hub, Sees

log = logging.getLogger("gateway.discovery")


@dataclass(slots=True)
class Changes:
    """Names of models: what a look at the roots has changed, and what is wrong with the others."""

    new: list[str] = field(default_factory=list)  # or mended
    broken: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)


def host_broken(hub: Hub, problems: Iterable[Problem]) -> dict[str, str]:
    """Have a failed model for every directory that was meant to be one and is none; return their reasons."""
    broken = _unreadable(problems)
    for name, reason in broken.items():
        if name not in hub.models:
            hub.models[name] = hub.host(ModelSpec(name=name, target="", root=Path()))
        model = hub.models[name]
        if model.spec.is_stand_in and model.reason != reason:
            hub.tails.note(name, f"not loaded: {reason}")
            model.fail(reason)
    hub.aliases = hub.settings.aliases_of(hub.models)
    return broken


async def look_again(hub: Hub, actor: Actor | str, *, reloads: bool = False, ordered: str = "") -> Changes:
    """Host what is new or mended, and begin to load it. What is hosted is not read again: that is a reload.

    What has changed is told as the `actor`'s doing. With `reloads` the caller does that too, so what is wrong with a
    model that serves is told by its reload. How the load went of the one that is `ordered` is told by its order.
    """
    specs, problems = await asyncio.to_thread(_search, hub)
    changes = Changes()
    served = {name for name, model in hub.models.items() if reloads and not model.spec.is_stand_in}
    for problem in problems:
        if problem not in hub.problems and problem.model not in served:
            log.log(problem.log_level, "%s", problem)
    hub.problems = problems
    for spec in specs:
        there = hub.models.get(spec.name)
        if there is None or there.spec.is_stand_in:
            hub.models[spec.name] = hub.host(spec)
            changes.new.append(spec.name)
    named = {spec.name for spec in specs}
    known = {name: model.reason for name, model in hub.models.items() if model.spec.is_stand_in}
    changes.broken = {name: reason for name, reason in host_broken(hub, problems).items() if name not in named}
    gone = [model for model in hub.models.values() if model.name not in named | changes.broken.keys()]
    whys = await asyncio.to_thread(lambda: {model.name: what_is_gone(model.spec) for model in gone})
    hub.begin([hub.models[name] for name in changes.new])
    for model in hub.models.values():
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
    new = [hub.models[name] for name in changes.new if name != ordered]
    tell_later(actor, [model for model in new if model.state != "unloaded"])
    for spec in specs:
        if spec.name in changes.new:
            await hub.remarks.tell(spec)
    return changes


def what_is_gone(spec: ModelSpec) -> str:
    """What made its directory a model, and is there no more. Looks at the disk: not for the loop."""
    if not os.path.isdir(spec.root):
        return "its directory is gone"
    names = [f"{spec.target.partition(':')[0].replace('.', '/')}.py"] if spec.format in ("python", "truss") else []
    names += ["config.yaml"] if spec.format == "truss" else []
    missing = " and ".join(name for name in names if not os.path.isfile(spec.root / name))
    return f"{missing} is gone from its directory" if missing else "its directory is no model any more"


def _tell_gone(model: HostedModel, actor: Actor | str, why: str) -> None:
    """Once for each time that it goes, and as long in what operators are shown of it; `why` is empty if it is there."""
    is_gone = bool(why)
    if is_gone and not model.is_gone and model.state not in ("failed", "unloaded"):
        model.note = f"{why}; what was loaded serves on until `gateway unload {model.name}` ends it"
        log.warning("%s: %s", model.name, model.note)
        audit.record(actor, "forget", model=model.name, outcome="not yet: what was loaded serves on")
    elif model.is_gone and not is_gone:
        model.note = ""
    model.is_gone = is_gone


async def unload(hub: Hub, model: HostedModel) -> bool:
    """End its processes; and host it no more, where its directory is gone: whether that is so."""
    model.is_gone = model.is_gone or not await asyncio.to_thread(model.spec.root.is_dir)
    await hub.unload(model)
    if model.is_gone:
        await hub.forget(model)
    return model.is_gone


async def find_again(hub: Hub, name: str, sees: Sees, actor: Actor | str) -> HostedModel:
    """The model of that name; one that is unknown, or could not be read, is looked for in the roots first.

    Raises:
        UnknownModel: there is none.
        LoadError: it cannot be read, with the reason.
    """
    try:
        model = hub.find(name, sees)
    except UnknownModel:
        model = None
    if model is None or model.spec.is_stand_in:
        await look_again(hub, actor, ordered=name)
        model = hub.find(name, sees)
    if model.spec.is_stand_in:
        raise LoadError(model.reason, fatal=True)
    return model


def where_it_would_be(hub: Hub, name: str) -> str:
    """What somebody may do whose model of that name was not found. Looks at the disk: not for the loop."""
    if id_problem(name) is not None:
        return "a name is that of a directory below a root of models"
    if hub.only and name not in hub.only:
        return f"this gateway was started for these alone: --only {','.join(hub.only)}"
    places = [root.expanduser().absolute() / name for root in hub.settings.gateway.models]
    if there := next((place for place in places if place.is_dir()), None):
        return f"{there} is no model: `gateway check {there}` says why"
    missing = " and no ".join(map(str, places))
    return f"there is no {missing}; put its directory there, or make one: gateway new {places[0]}"


def _search(hub: Hub) -> tuple[tuple[ModelSpec, ...], tuple[Problem, ...]]:
    specs, problems = narrow(*search(hub.settings, hub.plugins), hub.only)
    known = {name for name, model in list(hub.models.items()) if not model.spec.is_stand_in}
    hub.foretold.read(spec for spec in specs if spec.name not in known)
    return specs, problems


def _unreadable(problems: Iterable[Problem]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for problem in problems:
        name = problem.model
        if name is not None and problem.level == "error" and id_problem(name) is None:
            found.setdefault(name, []).append(_said(problem))
    return {name: "; ".join(said) for name, said in found.items()}


def _said(problem: Problem) -> str:
    """Without the directories of this machine, for those who call the model read it too."""
    place = Path(problem.where)
    where = f"{place.name}: " if place.suffix and not place.is_dir() else ""
    return f"{where}{problem.what}" + (f" ({problem.fix})" if problem.fix else "")
