"""The interface between the gateway and whatever runs a model.

    new ──start()──> loading ──> ready ──stop()──> stopped
                        │          └──> lost (died, or broke the protocol)
                        └──> LoadError: failed

A replica has one owner, its HostedModel. `start` returns when the model can take calls. `open` sends a call and returns
at once. From then on the replica calls `on_resp` once, `on_items` any number of times, and exactly one of a final
`on_resp`, `on_end` or `on_error`; after that it calls `ended`. A call has ended only when the model's code for it has
stopped or can no longer run.

A call that is opened with `got_slot` False gets its slot inside the replica: `on_waits` reports that it waits for one,
`on_slot` that it got it. `ask` sends a question of the gateway itself, which ends with exactly one of `on_answer`,
`on_end` or `on_error`. `lost` completes with the reason when the replica cannot be used any more; by then everything in
flight has been ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from ..wire import frames
from ..wire.channel import Room

if TYPE_CHECKING:
    from ..spec import Capabilities, ModelSpec
    from .call import Call
    from .pending import Pending
    from .question import Question


Terminal = Literal["", "plain", "pdb"]


class LoadError(Exception):
    """A model could not be loaded. `fatal`: a retry would fail the same way."""

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


class UnderWay(LoadError):
    """Another reload or a stop of the model is in progress; its own caller gets the outcome."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything a runner needs to start one replica."""

    spec: ModelSpec
    index: int
    environment: Mapping[str, str] = field(default_factory=dict)  # devices and threads, from the placement
    secrets: Mapping[str, str] = field(default_factory=dict)
    hide_others: Callable[[], None] = lambda: None  # hides what other models declare; may take long, on any thread
    deployment: Mapping[str, Any] | None = None
    plugin_dirs: Sequence[Path] = ()
    endpoint_methods: Sequence[str] = ()  # method names of all routes
    debug: bool = False
    terminal: Terminal = ""  # it uses the terminal of this process; pdb: with a debugger for exceptions
    taken_ports: Sequence[int] = ()  # ports of the replica beside which this one is loaded
    on_described: Callable[[Capabilities], None] = lambda capabilities: None  # the class is imported
    on_batch: Callable[[frames.Batch], None] = lambda batch: None  # calls begin to run together
    on_log: Callable[[str], None] = print  # one line of the model's output
    guard: Callable[[int, str], None] = lambda pid, mark: None  # kills this process group if the gateway dies
    unguard: Callable[[int], None] = lambda pid: None
    room: Room = field(default_factory=Room)  # for incomplete answers; shared by all replicas


class Replica(Protocol):
    """One running copy of a model. `TaskReplica` implements this contract for runners without a process.

    All methods are called on the gateway's event loop, in this order: the runner makes the replica, `start` is called
    once, then `open`, `ask`, `calls`, `pending`, `scrape`, `owns` and `update` in any order, and `stop` or `kill` at
    the end. A replica that has ended is never started again; the runner makes a new one.
    """

    capabilities: Capabilities  # read after `start` has returned
    lost: asyncio.Future[str]  # awaited from then on; completes with the reason when the replica is unusable
    last_ping: float  # when the worker's loop last responded, by our clock; read every second by the watchdog

    @property
    def pid(self) -> int | None:
        """The process that runs it, or None.

        Used to measure its memory, to find its sockets, and to name it in the log when it is killed.
        """

    async def start(self) -> Capabilities:
        """Load the model.

        Called once, by its supervisor, which cancels it after `load_timeout` or when the model is to be unloaded. If it
        raises or is cancelled, it must leave nothing behind.

        Raises:
            LoadError: with the reason, for the operator; the supervisor tries again unless it is `fatal`.
        """

    def open(self, call: Call, ended: Callable[[Call], None]) -> None:
        """Start a call and return at once.

        Called by the limiter when a slot is free, and at once for calls that need none (token counts). It must begin
        with `call.opened(self, id)`, which makes the replica the call's owner. From then on `cancel(call)` asks it to
        stop the code, `grant(call)` reports that the client has consumed `call.owed`, and `message(call, payload)`
        brings a websocket message of the client.

        Raises:
            ConnectionError: the replica is gone; the call was not started.
        """

    def ask(self, question: Question[Any]) -> None:
        """Start a question of the gateway itself and return at once.

        Called to ask for its health, if its capabilities have `has_health_check`, and to swap its class. It must begin
        with `question.asked(self, id)`; from then on `cancel(question)` asks it to stop. A question takes no slot.

        Raises:
            ConnectionError: the replica is gone; the question was not started.
        """

    def calls(self) -> Iterator[Call]:
        """Iterate over the calls in flight. Used to find a call that waits for itself."""

    def pending(self) -> Iterator[Pending]:
        """Iterate over the calls and questions in flight.

        Used by the watchdog for time limits, and before an idle replica is stopped.
        """

    async def stop(self, grace: float) -> None:
        """Let running calls finish within `grace` seconds, unload, then end it. Returns when nothing of it is left.

        Called at an unload, a reload or the end of the gateway, when no more calls are opened.
        """

    async def kill(self, reason: str) -> None:
        """End it immediately. Returns when nothing of it is left.

        Called when cancelled code does not stop, when the loop of a worker hangs, and after `lost`, so it may have
        ended already.
        """

    async def scrape(self) -> bytes:
        """Return the metrics that the model itself registered, as Prometheus text; b"" if there are none.

        Called on every `GET /metrics`, if the replica is ready.
        """

    async def owns(self, client_port: int, server_port: int) -> bool:
        """Return whether a connection from this machine belongs to the replica or to something it started.

        Asked while calls wait for a slot: a model may have sent the request itself, and hold the slot that it waits
        for. False if that is not known.
        """

    def update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        """Pass changed secrets or a changed environment to the model; None means unchanged.

        Called when their files change, also during a load.
        """


@runtime_checkable
class TakesAhead(Protocol):
    """A replica to which calls may be sent ahead, before there is a slot for them. They begin in the order of `open`.

    If `call.is_ahead`, `open` begins with `call.sent(self, id)` instead of `call.opened`. To give a call back that has
    not begun, after a `recall` or when the replica is lost, `ended(call)` is called without an end before.
    """

    def recall(self, call: Call) -> None:
        """Give the call back, unless it has begun."""


Runner = Callable[[Launch], Replica]
