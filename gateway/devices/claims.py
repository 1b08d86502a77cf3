"""Requests, claims and placements of replicas on devices.

Values only: `placement.py` decides with them, and the ledger in `hosting` stores the claims.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from ..spec import ModelSpec
from ..wording import counted
from .accelerators import parse_accelerator
from .device import GIB, Device, parse_size

HEADROOM = GIB  # per device, never allocated: contexts and libraries take 0.3 to 0.6 GiB more than a model declares


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one replica holds on one device."""

    owner: str  # a replica: "chat/0"
    device: str  # its id
    exclusive: bool = False
    memory: int = 0  # bytes; an exclusive claim counts the whole device
    evictable: bool = False  # may be stopped to make room; the gateway does not do this yet
    last_used: float = 0.0  # any clock; "now" while calls are in flight

    def on(self, device: Device) -> int:
        return device.total if self.exclusive else self.memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one replica requests. Without `memory` and `share` it uses its devices exclusively."""

    owner: str
    count: int = 1  # devices; 0 is a CPU model
    memory: int | None = None  # bytes per device
    share: float | None = None  # of each device's total, instead of `memory`
    accelerator: str | None = None
    pin: tuple[str, ...] = ()  # ids, unique prefixes of ids, or indices

    @property
    def exclusive(self) -> bool:
        return self.memory is None and self.share is None

    def on(self, device: Device) -> int:
        """Return the bytes that it needs of this device; 0 if it uses the whole device."""
        return (self.memory or 0) if self.share is None else math.ceil(device.total * self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a replica runs: devices in index order, none for the CPU. `evict` lists owners to stop first."""

    devices: tuple[Device, ...] = ()
    evict: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # information for the user although it fits


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFit:
    """`impossible`: never on these devices. `busy`: possible when work that may not be evicted has ended."""

    reason: Literal["impossible", "busy"]
    detail: tuple[str, ...]  # sentences, one per cause or device


def claims_of(
    request: Request, placement: Placement, *, evictable: bool = False, last_used: float = 0.0
) -> list[Claim]:
    """Return the claims of a placed replica, for the ledger."""
    return [
        Claim(
            owner=request.owner,
            device=device.id,
            exclusive=request.exclusive,
            memory=device.total if request.exclusive else request.on(device),
            evictable=evictable,
            last_used=last_used,
        )
        for device in placement.devices
    ]


def available(device: Device, claims: Iterable[Claim], *, headroom: int = HEADROOM) -> int:
    """Return the bytes that can still be allocated: neither claimed nor in use, minus the headroom.

    Both are considered because the driver lags behind a load, and because other programs make no claims.
    """
    claimed = sum(claim.on(device) for claim in claims if claim.device == device.id)
    left = device.total - claimed
    return (left if device.free is None else min(left, device.free)) - headroom


def to_requests(spec: ModelSpec) -> list[Request]:
    """Return a request for each replica of a model. Raises ConfigError for invalid resources."""
    wanted = spec.resources
    where = f"model {spec.name!r}"
    accelerator, count = parse_accelerator(wanted.accelerator) if wanted.accelerator else (None, 0)
    pins = tuple(pin for pin in wanted.pin if pin)
    if len(pins) not in (0, 1, spec.replicas):
        raise ConfigError(
            f"{where}: gpus pins {counted(len(pins), 'replica')}, but it has {spec.replicas}; "
            "give one list, or one per replica"
        )
    memory = share = None
    if wanted.gpu_memory is not None:
        memory, share = _parse_gpu_memory(wanted.gpu_memory, f"{where}: gpu_memory")
    count = wanted.gpus or count or len(pins[0] if pins else ()) or (0 if wanted.gpu_memory is None else 1)
    if len(pins) == 1 and count and len(pins[0]) == count * spec.replicas:
        pins = tuple(pins[0][at : at + count] for at in range(0, len(pins[0]), count))  # one list, divided up
    return [
        Request(
            owner=f"{spec.name}/{replica}",
            count=count,
            memory=memory,
            share=share,
            accelerator=accelerator,
            pin=pins[replica % len(pins)] if pins else (),
        )
        for replica in range(spec.replicas)
    ]


def _parse_gpu_memory(text: str, where: str) -> tuple[int | None, float | None]:
    """Return `gpu_memory` as bytes or as a share: exactly one is set."""
    if not text.strip().endswith("%"):
        memory = parse_size(text, where)
        if memory == 0:
            raise ConfigError(f"{where}: {text!r} is zero; leave it out to use the device exclusively")
        return memory, None
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ConfigError(f"{where}: {text!r} is not a share; write 20GiB, or 50% of a device's memory")
    return None, share
