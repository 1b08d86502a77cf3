"""Decide which devices a replica gets, and which owners must be stopped for it.

Pure function: devices + claims + request → Placement or NoFit. No clock, no log, no NVML. The ledger acts on the
result, and determines which claims may be evicted. An eviction is planned with the declared memory, not the used
memory: plan again when the memory is free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ..errors import ConfigError
from ..spec import ModelSpec
from .accelerators import matches
from .claims import HEADROOM, Claim, NoFit, Placement, Request, available, claims_of, to_requests
from .device import Device, format_size

__all__ = [
    "HEADROOM",
    "NO_ROOM",
    "Claim",
    "NoFit",
    "Placement",
    "Request",
    "Unmatched",
    "available",
    "claims_of",
    "explain",
    "plan",
    "plan_all",
    "plan_models",
    "to_requests",
]

Unmatched = Literal["error", "any", "cpu"]
NO_ROOM = "no device has room for it"  # for callers who must not learn which models hold the devices

EMPTY = 0.90  # share of memory that is free on an unused device; driver and display take the rest


def plan(
    devices: Sequence[Device],
    claims: Iterable[Claim],
    request: Request,
    *,
    headroom: int = HEADROOM,
    unmatched: Unmatched = "error",
    evict: bool = True,
) -> Placement | NoFit:
    """Return the devices for one replica.

    0. no device requested → placed on the CPU
    1. pin: keep the pinned devices; missing, duplicate, or not the requested number → impossible
    2. accelerator: keep the devices of that name; too few → impossible, or by `unmatched`: any device, or the CPU
    3. one kind: a group for each of cuda, rocm, …, without MIG slices if several are requested; too few → impossible
    4. total memory: keep devices with total - headroom ≥ memory; too few in every group → impossible
    5. fit: exclusive needs a device without claims and use; shared needs no exclusive claim and enough available
    6. choose: one NUMA node, then one model of card, then the least waste (exclusive: the smallest devices, shared:
       the least left over), then by index
    7. nothing fits → evict owners whose claims are all evictable, least recently used first, until it fits; then keep
       each that proves unnecessary to evict, most recently used first
    8. → busy
    """
    claims = tuple(claims)
    candidates = sorted(devices, key=_by_index)
    notes: tuple[str, ...] = ()
    # 0
    if request.count == 0:
        return Placement()
    # 1
    if request.pin:
        pinned = _pinned(candidates, request)
        if isinstance(pinned, NoFit):
            return pinned
        candidates = pinned
    # 2
    named = [d for d in candidates if request.accelerator is None or matches(request.accelerator, d)]
    if len(named) >= request.count:
        candidates = named
    elif unmatched == "cpu" and not request.pin:
        return Placement(notes=(f"{_too_few(request, named, candidates)}: it runs on the CPU",))
    elif unmatched == "any" and request.accelerator is not None and len(candidates) >= request.count:
        notes = (f"{_too_few(request, named, candidates)}: it uses what is available",)
    else:
        return NoFit(reason="impossible", detail=(_too_few(request, named, candidates), *_way_out(request, candidates)))
    # 3, 4
    groups, causes = [], []
    for kind in sorted({device.kind for device in candidates}):
        group = [d for d in candidates if d.kind == kind and not (d.is_slice and request.count > 1)]
        roomy = [d for d in group if d.total - headroom >= request.on(d)] if not request.exclusive else group
        if len(roomy) >= request.count:
            groups.append(roomy)
        elif len(group) < request.count:
            causes.append(_not_together(request, candidates, kind))
        else:
            causes += [_too_small(request, device, headroom) for device in group if device not in roomy]
    if not groups:
        return NoFit(reason="impossible", detail=tuple(causes))
    # 5, 6
    chosen = _choose(groups, claims, request, headroom)
    if chosen:
        return Placement(devices=chosen, notes=notes)
    # 7
    chosen, gone = _make_room(groups, claims, request, headroom) if evict else ((), ())
    if chosen:
        return Placement(devices=chosen, evict=gone, notes=notes)
    # 8
    detail = [_who_holds(request, device, claims, headroom) for group in groups for device in group]
    return NoFit(reason="busy", detail=tuple(detail))


def plan_all(
    devices: Sequence[Device],
    requests: Iterable[Request],
    *,
    claims: Iterable[Claim] = (),
    headroom: int = HEADROOM,
    unmatched: Unmatched = "error",
) -> list[tuple[Request, Placement | NoFit]]:
    """Return the plan at start, most demanding requests first, so that file order does not matter.

    Order: pinned, then several devices, then exclusive, then shared by descending memory; among equals those that name
    an accelerator, then by name. Nothing is evicted.
    """
    held = list(claims)
    largest = max((device.total for device in devices), default=0)
    planned: list[tuple[Request, Placement | NoFit]] = []
    for request in sorted(requests, key=lambda request: _hardest_first(request, largest)):
        outcome = plan(devices, held, request, headroom=headroom, unmatched=unmatched, evict=False)
        if isinstance(outcome, Placement):
            held += claims_of(request, outcome)
        planned.append((request, outcome))
    return planned


def plan_models(
    devices: Sequence[Device],
    specs: Iterable[ModelSpec],
    *,
    claims: Iterable[Claim] = (),
    headroom: int = HEADROOM,
    unmatched: Unmatched = "error",
) -> dict[str, list[tuple[Request, Placement | NoFit]]]:
    """Return the outcome for every replica of these models, by model: all replicas of a model are placed, or none.

    Devices of a partly placed model are released, because another model may need them. Its placed replicas are then
    refused with the reason of the one that did not fit. Invalid resources are one impossible row.
    """
    outcomes: dict[str, list[tuple[Request, Placement | NoFit]]] = {}
    wanted: dict[str, list[Request]] = {}
    claims = tuple(claims)
    for spec in specs:
        outcomes[spec.name] = []
        try:
            wanted[spec.name] = to_requests(spec)
        except ConfigError as error:
            nonsense = NoFit(reason="impossible", detail=(str(error),))
            outcomes[spec.name].append((Request(owner=f"{spec.name}/0", count=0), nonsense))
    while True:
        requests = [request for name, requests in wanted.items() if not outcomes[name] for request in requests]
        planned = plan_all(devices, requests, claims=claims, headroom=headroom, unmatched=unmatched)
        got = {request.owner: outcome for request, outcome in planned}
        refused = [model_of(request) for request, outcome in planned if isinstance(outcome, NoFit)]
        half = next((n for n in refused if any(isinstance(got[r.owner], Placement) for r in wanted[n])), None)
        for name in wanted if half is None else (half,):
            if not outcomes[name]:
                outcomes[name] = _whole([(request, got[request.owner]) for request in wanted[name]])
        if half is None:
            return outcomes


def explain(request: Request, outcome: Placement | NoFit) -> str:
    """Describe the outcome in one sentence for users."""
    if isinstance(outcome, NoFit):
        says = "cannot run here" if outcome.reason == "impossible" else "does not fit now"
        return f"{request.owner} {says}: {'; '.join(outcome.detail)}"
    where = ", ".join(str(device) for device in outcome.devices)
    if not outcome.devices:
        says = "runs on the CPU"
    elif request.exclusive:
        says = f"gets {where} exclusively"
    else:
        shares = " + ".join(dict.fromkeys(format_size(request.on(device)) for device in outcome.devices))
        says = f"shares {where} and may use {shares}" + (" of each" if len(outcome.devices) > 1 else "")
    if outcome.evict:
        says += f", once {', '.join(outcome.evict)} {'is' if len(outcome.evict) == 1 else 'are'} stopped"
    return f"{request.owner} {'; '.join((says, *outcome.notes))}"


def model_of(request: Request) -> str:
    """Return the name of the model of the replica."""
    return request.owner.rpartition("/")[0]


# ---- the steps -------------------------------------------------------------------------------------------------------


def _by_index(device: Device) -> tuple[int, str]:
    return device.index, device.id


def _whole(replicas: list[tuple[Request, Placement | NoFit]]) -> list[tuple[Request, Placement | NoFit]]:
    """Return the replicas of one model: unless all are placed, none is."""
    refused = [(request, outcome) for request, outcome in replicas if isinstance(outcome, NoFit)]
    if not refused:
        return replicas
    request, cause = min(refused, key=lambda pair: pair[1].reason != "impossible")
    because = NoFit(reason=cause.reason, detail=("either all replicas are placed or none", explain(request, cause)))
    return [(request, because if isinstance(outcome, Placement) else outcome) for request, outcome in replicas]


def _hardest_first(request: Request, largest: int) -> tuple[bool, int, bool, float, bool, str, int]:
    name, _, replica = request.owner.rpartition("/")
    memory = request.share * largest if request.share is not None else request.memory or 0
    number = int(replica) if replica.isdecimal() else 0
    return (
        not request.pin,
        -request.count,
        not request.exclusive,
        -memory,
        request.accelerator is None,
        name or request.owner,
        number,
    )


def _pinned(devices: Sequence[Device], request: Request) -> list[Device] | NoFit:
    """Step 1: return the devices that the pin names, each once."""
    found: list[Device] = []
    causes: list[str] = []
    for entry in request.pin:
        named = (
            [device for device in devices if device.id == entry]
            or [device for device in devices if entry.isdecimal() and device.index == int(entry)]
            or [device for device in devices if not entry.isdecimal() and device.id.startswith(entry)]
        )
        if len(named) != 1:
            what = "does not exist" if not named else f"means any of {', '.join(device.id for device in named)}"
            causes.append(f"pinned device {entry!r} {what}")
        elif named[0] in found:
            causes.append(f"pinned device {entry!r} occurs twice")
        else:
            found += named
    if causes:
        have = ", ".join(f"{device.index} = {device.id}" for device in devices)
        causes.append(f"have {have}" if have else "this machine has none")
    elif len(found) != request.count:
        causes.append(f"pinned to {_devices(len(found))}, but each replica wants {request.count}")
    return NoFit(reason="impossible", detail=tuple(causes)) if causes else sorted(found, key=_by_index)


def _choose(
    groups: Iterable[Sequence[Device]],
    claims: Sequence[Claim],
    request: Request,
    headroom: int,
    gone: Collection[str] = (),
) -> tuple[Device, ...]:
    """Steps 5 and 6: return the best devices when the owners in `gone` have left; empty if nothing fits."""
    best: tuple[tuple[bool, int, int, list[tuple[int, str]]], tuple[Device, ...]] | None = None
    kept = [claim for claim in claims if claim.owner not in gone]
    for group in groups:
        fitting: dict[Device, int] = {}
        for device in group:
            freed = sum(c.on(device) for c in claims if c.device == device.id and c.owner in gone)
            cost = _given_away(_after(device, freed), kept, request, headroom)
            if cost is not None:
                fitting[device] = cost
        for pool in _pools(fitting, request.count):
            taken = sorted(pool, key=lambda device: (fitting[device], _by_index(device)))[: request.count]
            taken.sort(key=_by_index)
            nodes, models = {device.numa for device in taken}, {device.model for device in taken}
            rank = (
                request.count > 1 and (len(nodes) > 1 or None in nodes),
                len(models),
                sum(fitting[device] for device in taken),
                [_by_index(device) for device in taken],
            )
            if best is None or rank < best[0]:
                best = rank, tuple(taken)
    return best[1] if best else ()


def _after(device: Device, freed: int) -> Device:
    return device if device.free is None else replace(device, free=min(device.total, device.free + freed))


def _given_away(device: Device, claims: Sequence[Claim], request: Request, headroom: int) -> int | None:
    """Step 5, and the cost that step 6 compares; None if it does not fit."""
    here = [claim for claim in claims if claim.device == device.id]
    if request.exclusive:
        used_by_others = device.free is not None and device.free < EMPTY * device.total
        return None if here or used_by_others else device.total
    left = available(device, here, headroom=headroom) - request.on(device)
    return None if left < 0 or any(claim.exclusive for claim in here) else left


def _pools(fitting: Mapping[Device, int], count: int) -> Iterator[list[Device]]:
    """Yield sets of fitting devices to choose `count` from: all, those of one node, of one model, of both."""
    if len(fitting) < count:
        return
    yield list(fitting)
    if count > 1:
        for key in (lambda d: (d.numa, None), lambda d: (None, d.model), lambda d: (d.numa, d.model)):
            pools: dict[tuple[object, object], list[Device]] = {}
            for device in fitting:
                pools.setdefault(key(device), []).append(device)
            yield from (pool for pool in pools.values() if len(pool) >= count)


def _make_room(
    groups: Sequence[Sequence[Device]], claims: Sequence[Claim], request: Request, headroom: int
) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """Step 7: return the devices, and the owners to stop, no more than necessary; both empty if that is not enough."""
    gone: tuple[str, ...] = ()
    chosen: tuple[Device, ...] = ()
    for owner in _evictable(claims):
        gone += (owner,)
        chosen = _choose(groups, claims, request, headroom, gone)
        if chosen:
            break
    else:
        return (), ()
    for owner in reversed(gone):
        spared = tuple(other for other in gone if other != owner)
        without = _choose(groups, claims, request, headroom, spared)
        if without:
            gone, chosen = spared, without
    return chosen, gone


def _evictable(claims: Sequence[Claim]) -> list[str]:
    """Step 7: return owners that may be evicted, least recently used first: those whose claims are all evictable."""
    last_used: dict[str, float] = {}
    for claim in claims:
        last_used[claim.owner] = max(last_used.get(claim.owner, claim.last_used), claim.last_used)
    bound = {claim.owner for claim in claims if not claim.evictable}
    return sorted(last_used.keys() - bound, key=lambda owner: (last_used[owner], owner))


# ---- the sentences ---------------------------------------------------------------------------------------------------


def _devices(count: int) -> str:
    return f"{count} device{'s' if count != 1 else ''}"


def _have(devices: Sequence[Device]) -> str:
    names = [device.model or f"unnamed {device.kind} device" for device in devices]
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))


def _too_few(request: Request, named: Sequence[Device], devices: Sequence[Device]) -> str:
    what = request.accelerator or "GPU"
    have = f"{'are pinned to' if request.pin else 'have'} {_have(devices)}" if devices else "this machine has none"
    return f"{request.count} × {what} wanted, {len(named)} present; {have}"


def _way_out(request: Request, devices: Sequence[Device]) -> tuple[str, ...]:
    if request.accelerator is None or len(devices) < request.count:
        return ()
    return ('unmatched_accelerator = "any" (gateway serve --any-gpu) would run it on these',)


def _not_together(request: Request, devices: Sequence[Device], kind: str) -> str:
    same = [device for device in devices if device.kind == kind]
    slices = sum(device.is_slice for device in same)
    alone = f" (and {slices} MIG slices, which cannot be combined)" if slices else ""
    return f"{_devices(request.count)} of one kind wanted, {len(same) - slices} × {kind} present{alone}"


def _too_small(request: Request, device: Device, headroom: int) -> str:
    room = format_size(device.total - headroom)
    return f"{device}: {room} after {format_size(headroom)} of headroom, {format_size(request.on(device))} wanted"


def _who_holds(request: Request, device: Device, claims: Iterable[Claim], headroom: int) -> str:
    """Step 8: describe what is available on one device, and which owners hold the rest."""
    here = [claim for claim in claims if claim.device == device.id]
    if _given_away(device, here, request, headroom) is not None:
        return f"{device}: is free, but {request.count} are wanted together"
    holders = [
        f"{claim.owner} ({'alone' if claim.exclusive else format_size(claim.memory)}"
        f"{', evictable' if claim.evictable else ''})"
        for claim in sorted(here, key=lambda claim: claim.owner)
    ]
    others = 0 if device.free is None else device.total - device.free - sum(claim.on(device) for claim in here)
    if others > device.total * (1 - EMPTY) or (others > 0 and not here):
        holders.append(f"other processes ({format_size(others)})")
    if request.exclusive:
        return f"{device}: wanted alone, held by {', '.join(holders)}"
    left, wanted = max(0, available(device, here, headroom=headroom)), request.on(device)
    return f"{device}: {format_size(left)} available, {format_size(wanted)} wanted, held by {', '.join(holders)}"
