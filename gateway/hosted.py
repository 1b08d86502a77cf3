"""One model: its state, its limiter, its replicas. The only writer of all three.

unloaded ──start──> loading ──> ready ──stop──> draining ──> unloaded
                       │          │ all replicas lost
                       │          └──> restarting ──> ready
                       └──> failed  <── crash loop: tries after 1, 2, 4 … 60 s
Each replica has a keeper. A reload loads new replicas beside the old ones and then switches, within one turn of the
loop; the old ones finish what they have begun.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .admission import Admission
from .backoff import Breaker
from .call import NEVER, Call
from .early import Early, Waiter
from .errors import BadRequest, GatewayError
from .health_check import HealthCheck
from .histogram import Histogram
from .keeper import Keeper, to_the_end
from .questions import hot_reload
from .refusals import refusal, stopped
from .replica import Launch, LoadError, Replica, Runner, UnderWay
from .retiring import Retiring
from .shares import Shares
from .spec import ON_DEMAND_WAIT, Capabilities, ModelSpec, State
from .successors import Successors
from .wire import Req
from .wording import in_state

if TYPE_CHECKING:
    from .loaded_files import Files, LoadedFiles

log = logging.getLogger("gateway.models")

LAST_GRACE = 2.0  # seconds that a model has for its unload even when its calls took all there was
LEVELS: Mapping[State, int] = {"restarting": logging.WARNING, "failed": logging.ERROR}
LOADS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800)  # seconds, bounds of the histogram


class HostedModel:
    """A model by its name. `state` and `reason` may be read by anybody.

    `on_demand` is called when a request meets the model unloaded, and may start it; None leaves it unloaded.
    `prepare` is awaited before each load and may give the spec an interpreter of its own. `files` knows which files it
    was loaded from. `shares` is what all models of a gateway have together.
    """

    def __init__(
        self,
        spec: ModelSpec,
        runner: Runner,
        launch: Callable[[ModelSpec, int], Launch],
        on_change: Callable[[Mapping[str, Any]], None] = lambda event: None,
        *,
        required: bool = True,
        debug: bool = False,
        on_demand: Callable[[], None] | None = None,
        prepare: Callable[[ModelSpec], Awaitable[ModelSpec]] | None = None,
        files: LoadedFiles | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.spec, self.name, self.required = spec, spec.name, required
        self.created = int(time.time())
        self.state: State = "unloaded"
        self.reason = ""
        self.note = ""  # what its operator should know of it though it serves
        self.since = 0.0  # when its last load ended, good or bad, or it failed: seconds since 1970, as of files
        self.is_gone = False  # its directory is, or is no model any more
        self.capabilities = Capabilities()
        self.described: Capabilities | None = None  # what the class says of itself, while it loads
        self.request_methods: frozenset[str] = frozenset()  # those that take the Request
        self.counts_tokens = False
        self.shares = shares or Shares()
        self._admission = Admission(
            spec.name, spec.limits, self.shares, ready=lambda: self._ready, running=self._all_replicas, kill=self._kill
        )
        self.limiter = self._admission.limiter
        self.restart_reasons: dict[str, int] = {}  # crash, cancel, frozen
        self.loads = Histogram(LOADS)  # seconds of good ones
        self.load_results: dict[str, int] = {}  # ok, error
        self.load_seconds: float | None = None  # of the last good load
        self.devices: list[str] = []  # where its replicas are, for people
        self._runner, self._make_launch, self._on_change, self._debug = runner, launch, on_change, debug
        self._on_demand, self._prepare, self._files = on_demand, prepare, files
        self.breaker = Breaker(spec.limits.max_crashes)
        self._keepers: list[Keeper] = []
        self._retiring = Retiring(self.name, LAST_GRACE)
        self._refused: State | None = None  # why there are no keepers
        self._successors = Successors()
        self._replacing = False  # it is stopped only to be loaded again
        self._stops = 0
        self._ending = ""  # what its stop is a part of
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._changed = asyncio.Event()
        self._early = Early(spec.name, self.shares, lambda: self.not_ready().retry_after or 1)
        self._idle = asyncio.Event()  # set when a stopping model has nothing in flight any more
        self._killing: set[asyncio.Task[None]] = set()
        self._killed: dict[int, str] = {}  # replicas that we ended, and why: a key of `restart_reasons`
        self.health = HealthCheck(spec.name, spec.limits)

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def call(self, req: Req, body: bytes, patience: float = NEVER) -> Call:
        """Admit a call: it starts now or waits. Hold it in a `with` block; leaving that cancels it.

        `patience` is the seconds that its client gives it.

        Raises:
            Loading, Unavailable, LoadFailed, Draining: by the model's state.
            Overloaded: slots and queue are full.
            QueueTimeout: its client's time is over already.
        """
        if self.state != "ready":
            self.load_on_demand()
            raise self.not_ready()
        return self._admission.admit(req, body, patience)

    def note_call(self) -> None:
        """A call has come that may never be admitted."""
        self.limiter.last_call = self._loop.time()

    @property
    def wait_for_ready(self) -> float:
        """How many seconds a request may wait for it; 0: it is refused at once."""
        given = self.spec.limits.wait_for_ready
        if given is not None:
            return given
        return ON_DEMAND_WAIT if self._on_demand is not None else 0.0

    def load_on_demand(self) -> bool:
        """Whether it has begun to load for a request: it does so on demand, and was not loaded.

        Raises:
            Unavailable, Draining: it cannot be loaded now.
        """
        if self.state != "unloaded" or self._on_demand is None:
            return False
        self._on_demand()
        return True

    async def wait_ready(self, waiter: Waiter, patience: float) -> None:
        """Wait for a model that loads or restarts, as long as its limits and the client allow; `call` says how it is.

        Raises:
            Overloaded: as many wait as it will take at once, or the gateway holds all that it may.
            Whatever `waiter` was abandoned with.
        """
        limits, seconds = self.spec.limits, min(self.wait_for_ready, patience)
        if (self._replacing or self.state in ("loading", "restarting")) and seconds > 0:
            await self._early.wait(waiter, seconds, limits.slots * self.spec.replicas + limits.max_queue)

    @property
    def queued(self) -> int:
        """How many requests wait: for a slot, or for it to be ready."""
        return self.limiter.queued + len(self._early)

    def check_room(self, calls: int) -> None:
        """Refuse before the first of several calls that belong together, if they cannot all be admitted.

        Raises:
            BadRequest: so many never fit, so that another try is for nothing.
            Overloaded: fewer slots and places in the queue are free now.
        """
        limits = self.spec.limits
        most = limits.slots * self.spec.replicas + limits.max_queue
        if calls > most:
            what = f"this request is {calls} calls of model '{self.name}', which takes {most} at once"
            raise BadRequest(f"{what}; ask for fewer choices or prompts", param="n")
        self.note_call()
        self._admission.check_room(calls)

    @property
    def _is_busy(self) -> bool:
        return bool(self.limiter.in_flight or self._admission.aside or self._retiring.is_awaited)

    def _after_a_call(self) -> None:
        self._retiring.look()
        if self._stopping and not self._is_busy:
            self._idle.set()

    def not_ready(self) -> GatewayError:
        """Why it takes no calls in its present state, and when to come back."""
        now = self._loop.time()
        began = min((keeper.load_began for keeper in self._keepers), default=now)
        return refusal(
            self.name,
            "loading" if self._replacing else self.state,
            loading_for=0.0 if self._replacing else now - began,
            expected_load=self.load_seconds,
            next_try=max((keeper.next_try for keeper in self._keepers), default=0.0) - now,
            reason=self.reason if self._debug else "",
            ending=self._ending,
            strict=self.spec.parity == "strict",
        )

    @property
    def restarts(self) -> int:
        return sum(self.restart_reasons.values())

    def phases(self) -> Mapping[int, State]:
        """The state of each replica."""
        return {keeper.index: keeper.phase for keeper in self._keepers}

    def pids(self) -> dict[int, int]:
        """Of each replica that is ready or loads."""
        known = [(keeper.index, keeper.replica or keeper.loading) for keeper in self._keepers]
        return {index: replica.pid for index, replica in known if replica is not None and replica.pid is not None}

    def ready_replicas(self) -> list[tuple[int, Replica]]:
        return [(keeper.index, keeper.replica) for keeper in self._keepers if keeper.replica is not None]

    def loading_replicas(self) -> list[Replica]:
        return [keeper.loading for keeper in (*self._keepers, *self._successors.keepers) if keeper.loading is not None]

    def asked_us(self, replica: Replica, what: str) -> bool:
        """Its load asks the gateway as if that were its own server, which a failed load says; False: known already."""
        keeper = next((one for one in (*self._keepers, *self._successors.keepers) if one.loading is replica), None)
        if keeper is None or keeper.hint:
            return False
        keeper.hint = f"; {what}"
        return True

    @property
    def _ready(self) -> list[Replica]:
        return [replica for _, replica in self.ready_replicas()]

    def _all_replicas(self) -> list[Replica]:
        return [*self._ready, *self._retiring]

    def _kill(self, replica: Replica, reason: str, why: str) -> None:
        self._killed[id(replica)] = why
        which = ", which has the code from before a reload" if replica in self._retiring else ""
        log.error("%s: killing worker %s%s: %s", self.name, replica.pid, which, reason)
        task = asyncio.create_task(replica.kill(reason))
        self._killing.add(task)
        task.add_done_callback(self._killing.discard)

    async def is_healthy(self) -> bool:
        """What the model's own `is_healthy` says; without one, whether it is ready."""
        replica = next(iter(self._ready), None)
        if replica is None or not self.has_health:
            return self.state == "ready"
        return await self.health.ask(replica)

    @property
    def has_health(self) -> bool:
        """Whether its code can say how it is now."""
        return self.state == "ready" and self.capabilities.has_health_check

    async def hot_reload(self) -> None:
        """Swap the model's class in place, in every replica.

        Raises:
            GatewayError: 422 when the new code is no good, or the model is not ready.
        """
        if self.state != "ready":
            raise self.not_ready()
        self._admission.deadlines.watch()
        if (found := await hot_reload(self._ready, self.spec.limits)) is not None:
            self._learn(found)

    def on_described(self, capabilities: Capabilities) -> None:
        """The class of a replica that loads is there."""
        self.described = capabilities

    def _learn(self, capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self.request_methods = frozenset(method.name for method in capabilities.methods if method.wants_request)
        slotless = frozenset(method.name for method in capabilities.methods if not method.needs_slot)
        self._admission.slotless = slotless
        self.counts_tokens = "count_tokens" in slotless

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to load every replica; nothing happens if that was done already."""
        if self._keepers:
            return
        self._refused = None
        self._admission.use(self.spec.limits)
        self._keepers = [Keeper(self, self.spec, index) for index in range(self.spec.replicas)]
        for keeper in self._keepers:
            keeper.load_began = self._loop.time()
            keeper.start()
        self.changed()

    def fail(self, reason: str) -> None:
        """It cannot be loaded at all, by placement say."""
        self._refused = "failed"
        self.changed(reason)

    @property
    def has_no_place(self) -> bool:
        """Whether its reason is that of `fail`, which may speak of others."""
        return self._refused is not None and not self.spec.is_stand_in

    def update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        """Hand on what changed in the sources of its secrets, or in its environment."""
        loading = [keeper.loading for keeper in self._keepers if keeper.loading is not None]
        for replica in (*loading, *self._all_replicas()):
            replica.update(secrets, deployment)

    async def settled(self) -> State:
        """Wait for the end of the load, good or bad, and of that which replaces it."""
        while self._replacing or self.state == "loading":
            self._changed.clear()
            await self._changed.wait()
        return self.state

    async def stop(self, grace: float, reason: str = "stopped", *, cause: str = "stopping") -> None:
        """Take no more calls, let those that run finish within `grace` seconds, unload, end the processes.

        `reason` is what people are told of it then, `cause` what operators are of the calls that it refuses: the
        whole gateway is stopping, or the model is `unloading`.

        May be called again meanwhile, with less grace.
        """
        self._stops += 1
        self._ending = cause
        deadline = self._loop.time() + grace
        if not self._stopping:
            self._successors.cancel()
        self._stopping = True
        self._admission.notify = self._after_a_call
        for keeper in self._keepers:
            if keeper.replica is None:  # it loads, or pauses before it does
                keeper.cancel()
            keeper.phase = "draining"
        self._derive("stopping")
        if self._is_busy:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._idle.wait()
            except TimeoutError:
                pass
        running = (call for replica in self._all_replicas() for call in replica.calls())
        for call in (*self.limiter.waiting(), *running):
            call.abandon(self.not_ready() if self._replacing else stopped(self.name, cause))
        left = max(deadline - self._loop.time(), LAST_GRACE)
        self._retiring.end()
        await asyncio.gather(*(replica.stop(left) for replica in self._ready), return_exceptions=True)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*(keeper.ended() for keeper in self._keepers))
        await self._retiring.ended()
        await self._successors.ended()
        self._keepers.clear()
        self.limiter.seats.clear()
        self._refused = None
        if not self._replacing:  # those who wait for the new one need not hear of this
            self._derive(reason)
        self._stopping = False
        self._idle.clear()
        self._changed.set()

    # ── reload ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def reload(self, spec: ModelSpec) -> None:
        """Serve this spec from now on, with new replicas that are loaded beside the old ones.

        Raises:
            LoadError: they could not be loaded; nothing has changed.
        """
        self.check_replaceable()
        try:
            await self._successors.load(self, spec, self._ready, lambda fresh: self._switch(spec, fresh))
        finally:
            self.since = time.time()

    def _switch(self, spec: ModelSpec, fresh: list[Keeper]) -> None:
        """Old out, new in: nothing else runs in between."""
        old, self._keepers = self._keepers, fresh
        for keeper in old:
            keeper.cancel()
            self._retiring.await_too(keeper.ended())  # it may be ending what was lost, or a load
            if keeper.replica is not None:
                self.limiter.remove(keeper.seat)
                self._admission.notify = self._after_a_call
                self._retiring.add(keeper.replica)
        self._use(spec)
        self._admission.use(spec.limits)
        self.health = HealthCheck(spec.name, spec.limits)
        for keeper in fresh:
            self.join(keeper)
            keeper.start()
        log.info("model '%s' is reloaded", self.name, extra={"model": self.name})

    async def retired(self) -> None:
        """Wait until what a reload has replaced has ended."""
        await self._retiring.ended()

    def check_replaceable(self) -> None:
        """Refuse what would meet another reload, or a stop, half-way. Raises `UnderWay`."""
        if self.is_under_way:
            raise UnderWay("it is being reloaded or stopped already")

    @property
    def is_stopping(self) -> bool:
        """Whether it is being stopped, for good or until it is loaded by an order."""
        return self._stopping and not self._replacing

    @property
    def is_under_way(self) -> bool:
        """Whether it is being reloaded or stopped; of one that was not ready, only until its load has begun."""
        return self._replacing or self._stopping or bool(self._successors)

    async def replaceable(self) -> None:
        """Wait for the end of what is under way."""
        while self.is_under_way:
            if self._successors:
                await self._successors.ended()
            else:
                self._changed.clear()
                await self._changed.wait()

    async def replace(self, spec: ModelSpec, grace: float) -> None:
        """Stop, then serve this spec: for what cannot be loaded beside the old, and for what was not ready.

        Requests that come meanwhile are treated as those that come while it loads. Whoever is cancelled here leaves
        it loading, for what comes next to replace.

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
        self._use(spec)
        self.start()

    def _use(self, spec: ModelSpec) -> None:
        """Serve this from now on, as was ordered."""
        self.spec, self.breaker = spec, Breaker(spec.limits.max_crashes)
        if self._files is not None:
            self._files.ordered()

    # ── what keepers say ─────────────────────────────────────────────────────────────────────────────────────────

    async def make(self, spec: ModelSpec, index: int) -> Replica:
        spec = spec if self._prepare is None else await self._prepare(spec)
        return self._runner(replace(self._make_launch(spec, index), taken_ports=self._successors.taken_ports))

    async def look(self, spec: ModelSpec) -> Files:
        return {} if self._files is None else await self._files.look(spec)

    def loaded(self, replica: Replica, seconds: float) -> None:
        self.described, self.since = None, time.time()
        self.load_seconds = seconds
        self.loads.add(seconds)
        self.load_results["ok"] = self.load_results.get("ok", 0) + 1

    def not_loaded(self) -> None:
        self.described, self.since = None, time.time()
        self.load_results["error"] = self.load_results.get("error", 0) + 1

    def join(self, keeper: Keeper) -> None:
        assert keeper.replica is not None
        if self._files is not None:
            self._files.serves(self.spec, keeper.files, "its load" if keeper.phase == "loading" else "its restart")
        self._learn(keeper.replica.capabilities)
        self.limiter.add(keeper.seat)
        keeper.phase, keeper.reason = "ready", ""
        self.changed()

    def part(self, keeper: Keeper) -> bool:
        self.limiter.remove(keeper.seat)
        if self._stopping:  # which ends what is left of it
            self._nobody_serves()
        return not self._stopping

    def lost(self, keeper: Keeper, replica: Replica) -> None:
        why = self._killed.pop(id(replica), "crash")
        self.restart_reasons[why] = self.restart_reasons.get(why, 0) + 1
        self._nobody_serves()

    def _nobody_serves(self) -> None:
        """Those who wait hear of it, unless another replica is there for them."""
        if not self.limiter.seats:
            self.health.forget()
            for call in self.limiter.waiting():
                call.abandon(self._admission.lost())

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────────────

    def changed(self, reason: str = "", keeper: Keeper | None = None) -> None:
        if self._stopping:  # a load that ended after the stop began changes nothing
            return
        previous = self.state
        self._derive(reason)
        if keeper is not None and self.state == previous:  # or that has been told
            level = LEVELS.get(keeper.phase, logging.INFO)
            log.log(
                level,
                "model '%s' %s still, but %s",
                self.name,
                in_state(previous),
                _ill(keeper),
                extra={"model": self.name},
            )

    def ill_replicas(self) -> list[str]:
        """What is wrong with single ones of those that it has."""
        return [_ill(keeper) for keeper in self._keepers if keeper.phase in LEVELS]

    def _derive(self, reason: str = "") -> None:
        """The model is as good as its best replica."""
        phases = {keeper.phase for keeper in self._keepers} | {self._refused}
        order: tuple[State, ...] = ("ready", "draining", "loading", "restarting", "failed")
        state: State = next((phase for phase in order if phase in phases), "unloaded")
        previous, self.state = self.state, state
        if state == "ready":
            self.reason = ""
        elif reason or state == "loading":  # and no longer why it was stopped
            self.reason = reason
        if previous == state:
            return
        self._changed.set()
        if state == "failed":
            self.since = time.time()
        if state not in ("loading", "restarting"):
            self._early.wake()
        log.log(
            LEVELS.get(state, logging.INFO),
            "%s",
            self.explain(),
            extra={"model": self.name, "state": state, "previous": previous},
        )
        event = {"model": self.name, "state": state, "previous": previous, "reason": self.reason, "at": time.time()}
        self._on_change(event)

    def explain(self) -> str:
        """The state in a sentence."""
        because = f": {self.reason}" if self.reason else ""
        if self.state == "ready":
            slots = self.limiter.slots
            loaded = f", loaded in {self.load_seconds:.1f} s" if self.load_seconds is not None else ""
            return f"model '{self.name}' is ready with {slots} slot{'s' * (slots != 1)}{loaded}"
        return f"model '{self.name}' {in_state(self.state)}{because}"


def _ill(keeper: Keeper) -> str:
    return f"its replica {keeper.index} {in_state(keeper.phase)}" + (f": {keeper.reason}" if keeper.reason else "")
