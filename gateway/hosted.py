"""One model: its state, its limiter, its replicas. The only writer of all three.

unloaded ──start──> loading ──> ready ──stop──> draining ──> unloaded
                       │          │ all replicas lost
                       │          └──> restarting ──> ready
                       └──> failed  <── crash loop: a trial start a minute
Each replica has a task that loads it, waits until it is lost, and loads it again after a pause.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .call import Call
from .errors import Crashed, Draining, GatewayError, LoadFailed, Loading, Overloaded, QueueTimeout, Timeout, Unavailable
from .limiter import Limiter, Seat
from .replica import Launch, LoadError, Replica, Runner
from .spec import Capabilities, ModelSpec, State
from .wire import DATA, Req, decode

log = logging.getLogger("gateway.models")

FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0  # seconds before a restart, doubling
HEALTHY_AFTER = 60.0  # seconds a replica must live for its pause to start small again
CRASHES, CRASH_WINDOW, TRIAL_EVERY = 5, 120.0, 60.0  # the breaker: so many crashes in so many seconds
LOAD_TRIES = 3
SWEEP = 0.1  # seconds; how late a deadline may be noticed
MAX_RETRY_AFTER = 110.0  # seconds; above 120 the OpenAI SDK does not retry at all
UNKNOWN_LOAD = 5.0  # seconds a first load is said to take while nothing was measured
HEALTH_TIMEOUT = 10.0  # seconds
TAIL = 200  # lines of the model's output that are kept


class HostedModel:
    """A model by its name. `state` and `reason` may be read by anybody."""

    def __init__(
        self,
        spec: ModelSpec,
        runner: Runner,
        launch: Callable[[ModelSpec, int], Launch],
        on_change: Callable[[Mapping[str, Any]], None] = lambda event: None,
        *,
        required: bool = True,
        debug: bool = False,
    ) -> None:
        self.spec, self.name, self.required = spec, spec.name, required
        self.created = int(time.time())
        self.state: State = "unloaded"
        self.reason = ""
        self.capabilities = Capabilities()
        self.request_methods: frozenset[str] = frozenset()  # those that take the Request
        self.limiter = Limiter(spec.limits.max_queue, self._start_call, spec.name)
        self.restarts = 0
        self.load_seconds: float | None = None  # of the last good load
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.devices: list[str] = []  # where its replicas are, for people
        self._runner, self._make_launch, self._on_change, self._debug = runner, launch, on_change, debug
        self._replicas: dict[int, Replica] = {}
        self._phases: dict[int, State] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._crashes: deque[float] = deque(maxlen=CRASHES)
        self._loop = asyncio.get_running_loop()
        self._load_began = 0.0
        self._next_try = 0.0
        self._sweeping = False
        self._changed = asyncio.Event()
        self._idle: asyncio.Event | None = None  # set when a stopping model has nothing in flight any more
        self._killing: set[asyncio.Task[None]] = set()

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def call(self, req: Req, body: bytes) -> Call:
        """Admit a call: it starts now or waits. Hold it in a `with` block; leaving that cancels it.

        Raises:
            Loading, Unavailable, LoadFailed, Draining: by the model's state.
            Overloaded: slots and queue are full.
        """
        if self.state != "ready":
            raise self.not_ready()
        call = Call(req, body, self.spec.limits, self._loop)
        call.owner = self
        self.limiter.enter(call)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP, self._sweep)
        return call

    def check_room(self, calls: int) -> None:
        """Refuse before the first of several calls that belong together, if they cannot all be admitted.

        Raises:
            Overloaded: fewer slots and places in the queue are free.
        """
        room = sum(seat.free for seat in self.limiter.seats) + self.limiter.max_queue - self.limiter.queued
        if room < calls:
            raise Overloaded(
                f"model '{self.name}' is overloaded: {calls} calls at once, room for {max(room, 0)}",
                retry_after=self.limiter.retry_after(),
            )

    def cancel(self, call: Call) -> None:
        """A call that still waits was given up."""
        call.error = call.error or GatewayError("cancelled")
        call.ended = True
        self.limiter.leave(call)

    def grant(self, call: Call) -> None:
        """Nothing to grant while it waits."""

    def _start_call(self, call: Call, seat: Seat) -> None:
        call.seat = seat
        try:
            seat.owner.open(call, self._call_ended)
        except ConnectionError:
            call.on_error(self._lost(should_retry=True))
            self.limiter.give_back(seat, 0.0)

    def _call_ended(self, call: Call) -> None:
        self.limiter.give_back(call.seat, self._loop.time() - call.started)
        if self._idle is not None and not self._in_flight:
            self._idle.set()

    def _lost(self, should_retry: bool) -> Crashed:
        return Crashed(f"the worker of model '{self.name}' was lost before this call began", should_retry=should_retry)

    def not_ready(self) -> GatewayError:
        """Why it takes no calls in its present state, and when to come back."""
        error = self._not_ready()
        error.truss_message = f"Model with name {self.name} is not ready."
        return error

    def _not_ready(self) -> GatewayError:
        now, name = self._loop.time(), self.name
        if self.state == "unloaded" and not self._tasks:
            self.start()
        if self.state in ("loading", "unloaded"):
            expected = self.load_seconds if self.load_seconds is not None else UNKNOWN_LOAD
            left = expected - (now - self._load_began)
            return Loading(f"model '{name}' is loading", retry_after=min(max(left, 1.0), MAX_RETRY_AFTER))
        if self.state == "draining":
            return Draining(f"model '{name}' is shutting down", retry_after=1)
        wait = min(max(self._next_try - now, 1.0), MAX_RETRY_AFTER)
        if self.state == "restarting":
            return Unavailable(f"model '{name}' is restarting after a crash", retry_after=wait)
        if self._next_try > now:
            return Unavailable(f"model '{name}' keeps crashing; the next try is due soon", retry_after=wait)
        detail = f": {self.reason}" if self._debug else "; `gateway models` and its log say why"
        return LoadFailed(f"model '{name}' could not be loaded{detail}")

    def _sweep(self) -> None:
        """Find the calls that are past their deadline: one timer for all of them, none per request."""
        now = self._loop.time()
        busy = False
        for call in self.limiter.waiting():
            busy = True
            if call.deadline < now:
                waited = f"{now - call.arrived:.1f} s"
                retry = self.limiter.retry_after()
                call.abandon(QueueTimeout(f"waited {waited} for a slot of model '{self.name}'", retry_after=retry))
        for replica in tuple(self._replicas.values()):
            for call in replica.calls():
                busy = True
                if call.deadline < now:
                    call.abandon(self._timeout(call, now))
                elif isinstance(call.error, Timeout) and call.cancelled_at + self.spec.limits.cancel_grace < now:
                    grace = self.spec.limits.cancel_grace
                    self._kill(replica, f"a call ran on for {grace:g} s after it was cancelled at its time limit")
                    break
        self._sweeping = busy
        if busy:
            self._loop.call_later(SWEEP, self._sweep)

    def _timeout(self, call: Call, now: float) -> Timeout:
        if call.head is not None and call.head.stream:
            return Timeout(f"model '{self.name}' sent nothing for {now - call.started:.0f} s of its stream")
        return Timeout(f"model '{self.name}' did not answer within {now - call.started:.0f} s")

    def _kill(self, replica: Replica, reason: str) -> None:
        log.error("%s: killing worker %s: %s", self.name, replica.pid, reason)
        task = asyncio.create_task(replica.kill(reason))
        self._killing.add(task)
        task.add_done_callback(self._killing.discard)

    async def is_healthy(self) -> bool:
        """What the model's own `is_healthy` says; without one, whether it is ready."""
        if self.state != "ready" or not self.capabilities.has_health_check:
            return self.state == "ready"
        replica = next(iter(self._replicas.values()))
        req = Req(method="is_healthy", mode=DATA, stream=False, content_type="", request_id="health")
        call = Call(req, b"", replace(self.spec.limits, request_timeout=HEALTH_TIMEOUT), self._loop)
        try:
            replica.open(call, lambda call: None)
            async with asyncio.timeout(HEALTH_TIMEOUT):
                await call.first()
        except (GatewayError, ConnectionError, TimeoutError):
            return False
        answer = decode(call.reply)
        return answer is None or bool(answer)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to load every replica."""
        self._load_began = self._loop.time()
        for index in range(self.spec.replicas):
            self._phases[index] = "loading"
            self._tasks.append(asyncio.create_task(self._keep(index), name=f"{self.name}/{index}"))
        self._derive()

    def fail(self, reason: str) -> None:
        """It cannot be loaded at all, by placement say."""
        self._phases = dict.fromkeys(range(self.spec.replicas), "failed")
        self._derive(reason)

    async def settled(self) -> State:
        """Wait for the end of the first load, good or bad."""
        while self.state in ("unloaded", "loading"):
            self._changed.clear()
            await self._changed.wait()
        return self.state

    async def stop(self, grace: float) -> None:
        """Take no more calls, let those that run finish within `grace` seconds, unload, end the processes."""
        self._phases = dict.fromkeys(self._phases, "draining")
        self._derive("stopping")
        deadline = self._loop.time() + grace
        if self._in_flight:
            self._idle = asyncio.Event()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._idle.wait()
            except TimeoutError:
                pass
        for call in (*self.limiter.waiting(), *(c for r in self._replicas.values() for c in r.calls())):
            call.abandon(Draining(f"model '{self.name}' is shutting down", retry_after=1))
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = max(deadline - self._loop.time(), 2.0)
        await asyncio.gather(*(replica.stop(left) for replica in self._replicas.values()), return_exceptions=True)
        self._replicas.clear()
        self._phases.clear()
        self._derive("stopped")

    @property
    def _in_flight(self) -> bool:
        return self.limiter.queued > 0 or any(True for r in self._replicas.values() for _ in r.calls())

    async def _keep(self, index: int) -> None:
        """One replica, loaded again whenever it is lost."""
        tries = crashes = 0
        while True:
            try:
                replica = await self._load(index)
            except LoadError as error:
                tries += 1
                if error.fatal or tries >= LOAD_TRIES:
                    self._set(index, "failed", str(error))
                    return
                log.warning("%s: load failed, trying again: %s", self.name, error)
                await asyncio.sleep(_pause(tries - 1))
                continue
            tries = 0
            seat = self._seat(replica)
            born = self._loop.time()
            self.limiter.add(seat)
            self._set(index, "ready")
            reason = await replica.lost
            self.limiter.remove(seat)
            self._replicas.pop(index, None)
            self.restarts += 1
            crashes = 0 if self._loop.time() - born > HEALTHY_AFTER else crashes + 1
            await self._recover(index, reason, crashes, replica)

    async def _load(self, index: int) -> Replica:
        began = self._loop.time()
        replica = self._runner(self._make_launch(self.spec, index))
        limit = self.spec.limits.load_timeout
        try:
            async with asyncio.timeout(limit):
                self.capabilities = await replica.start()
            methods = self.capabilities.methods
            self.request_methods = frozenset(method.name for method in methods if method.wants_request)
        except TimeoutError:
            raise LoadError(f"the load took longer than {limit:g} s and was ended", fatal=True) from None
        self.load_seconds = self._loop.time() - began
        self._replicas[index] = replica
        return replica

    async def _recover(self, index: int, reason: str, crashes: int, replica: Replica) -> None:
        """A replica is gone: tell those who wait if nobody else can serve them, then pause."""
        now = self._loop.time()
        self._crashes.append(now)
        broken = len(self._crashes) == CRASHES and now - self._crashes[0] < CRASH_WINDOW
        pause = TRIAL_EVERY if broken else _pause(max(crashes - 1, 0))
        self._next_try = now + pause
        if broken:
            reason = f"{CRASHES} crashes within {now - self._crashes[0]:.0f} s, the last one: {reason}"
        self._set(index, "failed" if broken else "restarting", reason)
        if not self.limiter.seats:
            for call in self.limiter.waiting():
                call.abandon(self._lost(should_retry=True))
        await replica.kill(reason)
        await asyncio.sleep(max(0.0, self._next_try - self._loop.time()))
        self._load_began = self._loop.time()

    def _seat(self, replica: Replica) -> Seat:
        """With preprocess or postprocess, calls wait for their slot in the worker, so they all get in."""
        limits = self.spec.limits
        inside = limits.max_queue if replica.capabilities.has_hooks else 0
        return Seat(replica, limits.slots + inside)

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _set(self, index: int, phase: State, reason: str = "") -> None:
        self._phases[index] = phase
        self._derive(reason)

    def _derive(self, reason: str = "") -> None:
        """The model is as good as its best replica."""
        phases = set(self._phases.values())
        order: tuple[State, ...] = ("ready", "draining", "loading", "restarting", "failed")
        state: State = next((phase for phase in order if phase in phases), "unloaded")
        previous, self.state = self.state, state
        if state == "ready":
            self.reason = ""
        elif reason:
            self.reason = reason
        if previous == state:
            return
        self._changed.set()
        level = logging.ERROR if state == "failed" else logging.INFO
        log.log(level, "%s", self.explain())
        event = {"model": self.name, "state": state, "previous": previous, "reason": self.reason, "at": time.time()}
        self._on_change(event)

    def explain(self) -> str:
        """The state in a sentence."""
        because = f": {self.reason}" if self.reason else ""
        if self.state == "ready":
            slots = self.limiter.slots
            loaded = f", loaded in {self.load_seconds:.1f} s" if self.load_seconds is not None else ""
            return f"model '{self.name}' is ready with {slots} slot{'s' * (slots != 1)}{loaded}"
        return f"model '{self.name}' is {self.state}{because}"


def _pause(failures: int) -> float:
    """Seconds to wait, jittered so that several models do not come back in step."""
    return float(min(MAX_PAUSE, FIRST_PAUSE * 2**failures) * random.uniform(0.8, 1.2))
