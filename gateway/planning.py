"""The placement of all models as a table: what `gateway plan` prints, and the hub starts from.

Starts nothing and asks no device; with a static inventory it works on a laptop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .claims import HEADROOM, Claim, NoFit, Placement, Request, claims_of, to_requests
from .devices import Device, format_size
from .errors import ConfigError
from .placement import Unmatched, explain, plan, plan_all
from .spec import ModelSpec


def plan_table(
    specs: Iterable[ModelSpec],
    devices: Sequence[Device],
    *,
    headroom: int = HEADROOM,
    unmatched: Unmatched = "error",
    evict: bool = False,
    evictable: Collection[str] = (),
    lazy: Collection[str] = (),
) -> list[dict[str, Any]]:
    """One row for each replica, in the order of `specs`, ready for JSON.

    `model`, `replica`, `devices` (ids), `memory` ("20GiB", "50%", "alone", None on the CPU), `evict` (replicas that a
    request for it would stop), `why` (a sentence) and `state`:

        placed       it has its devices; a model in `lazy`, at its first request
        cpu          it needs none
        busy         others hold them; with `evict` (on_full = "evict") a request may still stop some of `evictable`
        impossible   never on these devices, or its resources make no sense

    Models in `lazy` do not take part in the start; each is asked for alone, once the others run. Nobody has been used
    yet, so among victims the name decides.
    """
    specs = list(specs)
    at_start = plan_all(
        devices,
        [request for spec in specs if spec.name not in lazy for request in _requests(spec)],
        headroom=headroom,
        unmatched=unmatched,
    )
    outcomes = {request.owner: outcome for request, outcome in at_start}
    held = [
        replace(claim, evictable=_model(request) in evictable)
        for request, outcome in at_start
        if isinstance(outcome, Placement)
        for claim in claims_of(request, outcome)
    ]
    asked = _Asked(devices, tuple(held), headroom, unmatched, evict)
    return [row for spec in specs for row in _rows(spec, outcomes, asked)]


def plan_request(
    name: str,
    specs: Iterable[ModelSpec],
    devices: Sequence[Device],
    *,
    headroom: int = HEADROOM,
    unmatched: Unmatched = "error",
    evict: bool = True,
    evictable: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The rows of one model, asked for when all others that fit together are loaded: what it would evict, and why.

    Raises ConfigError when there is no such model.
    """
    specs = list(specs)
    if name not in (spec.name for spec in specs):
        raise ConfigError(f"no model named {name!r} (have: {', '.join(spec.name for spec in specs) or 'none'})")
    table = plan_table(
        specs, devices, headroom=headroom, unmatched=unmatched, evict=evict, evictable=evictable, lazy={name}
    )
    return [row for row in table if row["model"] == name]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The machine as a later request finds it."""

    devices: Sequence[Device]
    claims: tuple[Claim, ...]
    headroom: int
    unmatched: Unmatched
    evict: bool

    def outcome(self, request: Request, claims: Sequence[Claim]) -> Placement | NoFit:
        return plan(
            self.devices,
            claims,
            request,
            headroom=self.headroom,
            unmatched=self.unmatched,
            evict=self.evict,
        )


def _rows(spec: ModelSpec, outcomes: dict[str, Placement | NoFit], asked: _Asked) -> list[dict[str, Any]]:
    try:
        requests = to_requests(spec)
    except ConfigError as error:
        return [_row(spec, 0, state="impossible", why=str(error))]
    rows = []
    claims = list(asked.claims)
    for number, request in enumerate(requests):
        outcome = outcomes.get(request.owner)
        is_lazy = outcome is None
        if outcome is None or isinstance(outcome, NoFit):
            outcome = asked.outcome(request, claims)
        why, state = explain(request, outcome), _state(outcome)
        row = _row(spec, number, state=state, why=f"at the first request, {why}" if is_lazy else why)
        if state != "cpu":
            row["memory"] = _memory(request)
        if isinstance(outcome, Placement):
            row["evict"] = list(outcome.evict)
            if state == "placed":
                row["devices"] = [device.id for device in outcome.devices]
            if is_lazy or outcome.evict:
                # what this replica took from the others, its siblings find taken
                claims = [claim for claim in claims if claim.owner not in outcome.evict] + claims_of(request, outcome)
        rows.append(row)
    return rows


def _row(spec: ModelSpec, number: int, *, state: str, why: str) -> dict[str, Any]:
    return {
        "model": spec.name,
        "replica": number,
        "state": state,
        "devices": [],
        "memory": None,
        "evict": [],
        "why": why,
    }


def _state(outcome: Placement | NoFit) -> str:
    if isinstance(outcome, NoFit):
        return outcome.reason
    if outcome.evict:
        return "busy"
    return "placed" if outcome.devices else "cpu"


def _memory(request: Request) -> str:
    if request.share is not None:
        return f"{request.share * 100:g}%"
    return "alone" if request.memory is None else format_size(request.memory)


def _requests(spec: ModelSpec) -> list[Request]:
    """Its requests; none where its resources make no sense, which its row says."""
    try:
        return to_requests(spec)
    except ConfigError:
        return []


def _model(request: Request) -> str:
    return request.owner.rpartition("/")[0]
