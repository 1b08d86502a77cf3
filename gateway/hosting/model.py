"""One hosted model: its calls, its state, and the commands that change it. Only this module writes that state.

Replicas report by events; this module decides what to do. A reload loads new replicas beside the old ones and then
switches within one turn of the event loop; the old replicas finish their running calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..admission.admit import Admission
from ..admission.ready_queue import Early, Waiter
from ..admission.shares import Shares
from ..errors import GatewayError
from ..runners.call import Call
from ..runners.pending import NEVER
from ..runners.replica import LoadError, UnderWay
from ..spec import ON_DEMAND_WAIT, Capabilities, ModelSpec, State
from ..wire.frames import Req
from .backoff import Breaker
from .health_check import HealthCheck
from .load_history import History
from .refusals import refusal, stopped
from .replica_maker import Maker
from .replica_record import Member
from .replicas import LAST_GRACE, Replicas
from .states import explain, log_change, log_ill, state_of
from .supervisor import Event, Loaded, Lost, NotLoaded, PhaseChanged, to_the_end
from .worker_questions import swap_class

log = logging.getLogger("gateway.models")


class HostedModel:
    """A model by its name. `state` and `reason` may be read from anywhere.

    `load_on_demand` calls `on_demand`, which may start the model; with None it stays unloaded. `shares` are the limits
    that all models of a gateway have in common.
    """

    def __init__(
        self,
        spec: ModelSpec,
        maker: Maker,
        on_change: Callable[[Mapping[str, Any]], None] = lambda event: None,
        *,
        required: bool = True,
        debug: bool = False,
        on_demand: Callable[[], None] | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.spec, self.name, self.required = spec, spec.name, required
        self.created = int(time.time())
        self.state: State = "unloaded"
        self.reason = ""
        self.note = self.holders = ""  # a problem for operators although it serves, and who holds the devices it lacks
        self.since = 0.0  # when its last load ended or it failed: Unix time, comparable with file times
        self.is_gone = False  # its directory is gone, or is no model any more
        self.capabilities = Capabilities()
        self.described: Capabilities | None = None  # the capabilities of the class, while it loads
        self.request_methods: frozenset[str] = frozenset()  # methods that take the Request
        self.counts_tokens = False
        self.shares = shares or Shares()
        self.admission = Admission(
            spec.name,
            spec.limits,
            self.shares,
            replicas=spec.replicas,
            ready=lambda: self.replicas.ready(),
            running=lambda: self.replicas.running(),
            kill=lambda replica, reason, why: self.replicas.kill(replica, reason, why),
        )
        self.limiter = self.admission.limiter
        self.replicas = Replicas(spec.name, self.limiter, maker, self._on_event)
        self.history = History()
        self.health = HealthCheck(spec.name, spec.limits)
        self._maker, self._on_change, self._on_demand, self._debug = maker, on_change, on_demand, debug
        self._breaker = Breaker(spec.limits.max_crashes)
        self._refused: State | None = None  # why there are no replicas
        self._replacing = False  # it is being stopped in order to be loaded again
        self._stops, self._stopping = 0, False
        self._ending = ""  # why it is being stopped
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._early = Early(spec.name, self.shares, lambda: self.not_ready().retry_after or 1)
        self._idle = asyncio.Event()  # set when a stopping model has no calls left

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def call(self, req: Req, body: bytes, patience: float = NEVER) -> Call:
        """Admit a call: it starts now or is queued. Use it as a context manager; leaving the block cancels it.

        `patience` is the client's time limit in seconds.

        Raises:
            Loading, Unavailable, LoadFailed, Draining: by the model's state.
            Overloaded: slots and queue are full.
            QueueTimeout: the client's time limit has already passed.
        """
        if self.state != "ready":
            raise self.not_ready()
        return self.admission.admit(req, body, patience)

    @property
    def wait_for_ready(self) -> float:
        """How many seconds a request may wait for the model to be ready; 0: it is refused at once."""
        given = self.spec.limits.wait_for_ready
        if given is not None:
            return given
        return ON_DEMAND_WAIT if self._on_demand is not None else 0.0

    def load_on_demand(self) -> bool:
        """Begin to load for a request. Returns False if there was nothing to do.

        Raises:
            Unavailable, Draining: it cannot be loaded now.
        """
        if self.state != "unloaded" or self._on_demand is None:
            return False
        self._on_demand()
        return True

    async def wait_ready(self, waiter: Waiter, patience: float) -> None:
        """Wait while the model loads or restarts, as long as its limits and the client allow. `call` tells the result.

        Raises:
            Overloaded: too many requests are waiting, or the gateway is at its own limit.
            Whatever `waiter` was abandoned with.
        """
        seconds = min(self.wait_for_ready, patience)
        if (self._replacing or self.state in ("loading", "restarting")) and seconds > 0:
            await self._early.wait(waiter, seconds, self.admission.most)

    @property
    def queued(self) -> int:
        """How many requests wait for a slot or for the model to be ready."""
        return self.limiter.queued + len(self._early)

    @property
    def _is_busy(self) -> bool:
        return bool(self.limiter.in_flight or self.admission.aside or self.replicas.retiring.is_awaited)

    def _after_a_call(self) -> None:
        self.replicas.retiring.look()
        if self._stopping and not self._is_busy:
            self._idle.set()

    def not_ready(self) -> GatewayError:
        """Return the error for a call in the present state, with the time to retry."""
        now, members = self._loop.time(), self.replicas.members
        began = min((member.load_began for member in members), default=now)
        return refusal(
            self.name,
            "loading" if self._replacing else self.state,
            loading_for=0.0 if self._replacing else now - began,
            expected_load=self.history.last_load,
            next_try=max((member.next_try for member in members), default=0.0) - now,
            reason=self.reason if self._debug else "",
            ending=self._ending,
            strict=self.spec.parity == "strict",
        )

    async def is_healthy(self) -> bool:
        """Return what the model's `is_healthy` says; without one, whether it is ready."""
        replica = next(iter(self.replicas.ready()), None)
        if replica is None or not self.has_health:
            return self.state == "ready"
        return await self.health.ask(replica)

    @property
    def has_health(self) -> bool:
        """Whether its code can be asked for its health now."""
        return self.state == "ready" and self.capabilities.has_health_check

    async def swap_class(self) -> None:
        """Swap the model's class in place, in every replica.

        Raises:
            GatewayError: 422 when the new code is invalid, or the model is not ready.
        """
        if self.state != "ready":
            raise self.not_ready()
        self.admission.deadlines.watch()
        if (found := await swap_class(self.replicas.ready(), self.spec.limits)) is not None:
            self._learn(found)

    def on_described(self, capabilities: Capabilities) -> None:
        """The class of a replica has been imported while it loads."""
        self.described = capabilities

    def _learn(self, capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self.request_methods = frozenset(method.name for method in capabilities.methods if method.wants_request)
        self.admission.slotless = frozenset(method.name for method in capabilities.methods if not method.needs_slot)
        self.counts_tokens = "count_tokens" in self.admission.slotless

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to load every replica, unless that has been done."""
        if self.replicas.members:
            return
        self._refused = None
        self.admission.use(self.spec.limits, self.spec.replicas)
        self.replicas.start(self.spec, self._breaker)
        self.changed()

    def fail(self, reason: str) -> None:
        """Mark the model as failed without a load, for example because it does not fit any device."""
        self._refused = "failed"
        self.changed(reason)

    @property
    def has_no_place(self) -> bool:
        """Whether `reason` is that of `fail`, which may name other models."""
        return self._refused is not None and not self.spec.is_stand_in

    async def settled(self) -> State:
        """Wait until the load has ended, including one that replaces it. Returns the state."""
        while self._replacing or self.state == "loading":
            self._changed.clear()
            await self._changed.wait()
        return self.state

    async def stop(self, grace: float, reason: str = "stopped", *, cause: str = "stopping") -> None:
        """Take no more calls, let running ones finish within `grace` seconds, unload, and end the processes.

        `reason` is shown as the model's reason afterwards. `cause` is given with the calls that are refused meanwhile:
        the whole gateway is stopping, or the model is `unloading`. May be called again with less grace.
        """
        self._stops += 1
        self._ending = cause
        deadline = self._loop.time() + grace
        if not self._stopping:
            self.replicas.successors.cancel()
        self._stopping = True
        self.admission.notify = self._after_a_call
        self.replicas.drain()
        self._derive("stopping")
        if self._is_busy:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._idle.wait()
        running = (each for replica in self.replicas.running() for each in replica.pending())
        for call in (*self.limiter.waiting(), *running):
            call.abandon(self.not_ready() if self._replacing else stopped(self.name, cause))
        await self.replicas.stop(max(deadline - self._loop.time(), LAST_GRACE))
        self._refused = None
        if not self._replacing:  # requests that wait for the new one must not fail
            self._derive(reason)
        self._stopping = False
        self._idle.clear()
        self._changed.set()

    # ── reload ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def reload(self, spec: ModelSpec) -> None:
        """Load new replicas of this spec beside the old ones, then serve from the new ones.

        Raises:
            LoadError: they could not be loaded; nothing has changed.
        """
        self.check_replaceable()
        breaker = Breaker(spec.limits.max_crashes)
        try:
            await self.replicas.load_beside(spec, breaker, partial(self._switch, spec, breaker))
        finally:
            self.since = time.time()

    def _switch(self, spec: ModelSpec, breaker: Breaker, fresh: list[Member]) -> None:
        """Replace the old replicas by the new ones. Nothing else runs in between."""
        self.admission.notify = self._after_a_call
        self.replicas.switch(fresh)
        self._use(spec, breaker)
        self.admission.use(spec.limits, spec.replicas)
        self.health = HealthCheck(spec.name, spec.limits)
        for member in fresh:
            self._join(member)
            member.supervisor.start()
        log.info("model '%s' is reloaded", self.name, extra={"model": self.name})

    def check_replaceable(self) -> None:
        """Raise `UnderWay` if a reload or stop is in progress."""
        if self.is_under_way:
            raise UnderWay("it is being reloaded or stopped already")

    @property
    def is_stopping(self) -> bool:
        """Whether it is being stopped, and not only to be replaced."""
        return self._stopping and not self._replacing

    @property
    def is_under_way(self) -> bool:
        """Whether it is being reloaded or stopped. A replacement counts only until its load has begun."""
        return self._replacing or self._stopping or bool(self.replicas.successors)

    async def replaceable(self) -> None:
        """Wait until no reload or stop is in progress."""
        while self.is_under_way:
            if self.replicas.successors:
                await self.replicas.successors.ended()
            else:
                self._changed.clear()
                await self._changed.wait()

    async def replace(self, spec: ModelSpec, grace: float) -> None:
        """Stop, then serve this spec. For models that cannot be loaded beside the old replicas, or that are not ready.

        Requests that come meanwhile are treated as during a load. If the caller is cancelled, the model keeps loading;
        the next command replaces it.

        Raises:
            LoadError: it could not be loaded; the model has failed.
        """
        self.check_replaceable()
        before, self._replacing = self._stops, True
        await to_the_end(self._replace(spec, grace, before))
        if await self.settled() != "ready":
            raise LoadError(self.reason)

    async def _replace(self, spec: ModelSpec, grace: float, before: int) -> None:
        try:
            await self.stop(grace)
        finally:
            self._replacing = False
        if self._stops != before + 1:
            self.changed()
            raise LoadError("the model was stopped meanwhile")
        self._use(spec, Breaker(spec.limits.max_crashes))
        self.start()

    def _use(self, spec: ModelSpec, breaker: Breaker) -> None:
        """Serve this spec from now on, as a command asked for."""
        self.spec, self._breaker = spec, breaker
        self._maker.ordered()

    # ── what happens to replicas ─────────────────────────────────────────────────────────────────────────────────

    def _on_event(self, member: Member, event: Event) -> None:
        self.history.note(event)
        if isinstance(event, Loaded | NotLoaded):
            self.described, self.since = None, time.time()
        match event:
            case Loaded() if member in self.replicas.members:  # those of a reload join together
                self._join(member)
            case Lost() if self._stopping:  # the stop ends what is left of it
                self._tell_if_none_serves()
            case Lost():
                self.history.restarts_for(self.replicas.why_lost(event.replica))
            case PhaseChanged():
                self.changed(event.reason, member)
                self._tell_if_none_serves()

    def _join(self, member: Member) -> None:
        assert member.replica is not None
        self._learn(member.replica.capabilities)
        self.replicas.join(member, self.spec)
        self.changed()

    def _tell_if_none_serves(self) -> None:
        """Fail the calls that wait for a slot, unless another replica can serve them."""
        if not self.limiter.seats:
            self.health.forget()
            for call in self.limiter.waiting():
                call.abandon(self.admission.lost())

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────────────

    def changed(self, reason: str = "", member: Member | None = None) -> None:
        if self._stopping:  # a load that ends after the stop began changes nothing
            return
        previous = self.state
        self._derive(reason)
        if member is not None and self.state == previous:  # a change of state is logged already
            log_ill(self.name, self.state, member.phase, str(member))

    def _derive(self, reason: str = "") -> None:
        phases = {member.phase for member in self.replicas.members}
        previous, self.state = self.state, state_of(phases if self._refused is None else {*phases, self._refused})
        if self.state == "ready":
            self.reason = ""
        elif reason or self.state == "loading":  # clear the reason of an earlier stop
            self.reason = reason
        if previous == self.state:
            return
        self._changed.set()
        if self.state == "failed":
            self.since = time.time()
        if self.state not in ("loading", "restarting"):
            self._early.wake()
        text = explain(self.name, self.state, self.reason, self.limiter.slots, self.history.last_load)
        log_change(self.name, self.state, previous, text)
        event = {"model": self.name, "state": self.state, "previous": previous, "reason": self.reason}
        self._on_change({**event, "at": time.time()})
