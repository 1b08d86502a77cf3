"""The seam between the gateway and whatever runs a model.

    new ──start()──> loading ──> ready ──stop()──> stopped
                        │          └──> lost (died, or broke the protocol)
                        └──> LoadError: failed

A replica has one owner, its HostedModel. `start` returns when the model can take calls. `open` sends a call and returns
at once; from then on the replica feeds it: `on_resp` once, `on_items` any number of times, and exactly one of a final
`on_resp`, `on_end` or `on_error`, after which it tells its owner with `ended`. A call is only ended when the model's
code for it has stopped, or can no longer run. A call that is opened with `got_slot` False gets its slot inside:
`on_waits` says that it waits for one, `on_slot` that it got it. `lost` completes when the replica is of no further use,
with the reason; every call still open has been ended by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .channel import Room

if TYPE_CHECKING:
    from .call import Call
    from .spec import Capabilities, ModelSpec


Terminal = Literal["", "plain", "pdb"]


class LoadError(Exception):
    """A model could not be loaded. `fatal`: another try would end the same way."""

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


class UnderWay(LoadError):
    """Another reload, or a stop, of the model has not ended: that one says how it went."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything a runner needs to start one replica."""

    spec: ModelSpec
    index: int
    environment: Mapping[str, str] = field(default_factory=dict)  # devices and threads, from the placement
    secrets: Mapping[str, str] = field(default_factory=dict)
    deployment: Mapping[str, Any] | None = None
    plugin_dirs: Sequence[Path] = ()
    endpoint_methods: Sequence[str] = ()  # the method names that some route maps to
    debug: bool = False
    terminal: Terminal = ""  # it has that of this process; pdb: and a debugger for what it raises
    taken_ports: Sequence[int] = ()  # of the replica beside which this one is loaded
    on_described: Callable[[Capabilities], None] = lambda capabilities: None  # the class is there, its load to come
    on_log: Callable[[str], None] = print  # one line of the model's output
    guard: Callable[[int, str], None] = lambda pid, mark: None  # ends this process group should the gateway be killed
    unguard: Callable[[int], None] = lambda pid: None
    room: Room = field(default_factory=Room)  # for what comes of answers in parts; one for all replicas


class Replica(Protocol):
    """One running copy of a model."""

    capabilities: Capabilities
    lost: asyncio.Future[str]  # the reason
    last_ping: float  # when its loop last showed that it turns, by ours; it does every second

    @property
    def pid(self) -> int | None:
        """Of the process that runs it, if it has one of its own."""

    async def start(self) -> Capabilities:
        """Load the model. Nothing is left behind when it raises, or is cancelled.

        Raises:
            LoadError: with the reason, for the operator.
        """

    def open(self, call: Call, ended: Callable[[Call], None]) -> None:
        """Send a call.

        Raises:
            ConnectionError: the replica is gone; the call was not sent.
        """

    def calls(self) -> Iterator[Call]:
        """The calls in flight."""

    async def stop(self, grace: float) -> None:
        """Let the model unload, within `grace` seconds, then end it. Returns when nothing of it is left."""

    async def kill(self, reason: str) -> None:
        """End it at once. Returns when nothing of it is left; may be called on what has ended already."""

    async def scrape(self) -> bytes:
        """The metrics that the model itself registered, as Prometheus text."""

    async def owns(self, client_port: int, server_port: int) -> bool:
        """What it says itself: whether a connection from this machine is its process's, or that of one it started."""

    def update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        """Tell the model that a source of its secrets or its environment changed."""


Runner = Callable[[Launch], Replica]
