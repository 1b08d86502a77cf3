"""One replica of a model, kept alive: loaded, watched, loaded again when it is lost.

loading ──> ready ──lost──> restarting ──> ready …
   │                            └── a crash loop: failed, and tried after 1, 2, 4 … 60 s
   └── a load that fails for good: failed
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from .backoff import HEALTHY_AFTER, Breaker, pause
from .errors import ConfigError
from .limiter import Seat
from .replica import LoadError, Replica
from .spec import ModelSpec, State
from .wording import counted

if TYPE_CHECKING:
    from .loaded_files import Files

log = logging.getLogger("gateway.models")

LOAD_TRIES = 3


class Owner(Protocol):
    """The model that a keeper works for. All of it is called on the loop."""

    name: str
    breaker: Breaker

    async def look(self, spec: ModelSpec) -> Files:
        """The files that a load finds which begins now."""

    async def make(self, spec: ModelSpec, index: int) -> Replica:
        """A replica that is not loaded yet.

        Raises:
            ConfigError: there cannot be one.
        """

    def loaded(self, replica: Replica, seconds: float) -> None:
        """A load went well."""

    def not_loaded(self) -> None:
        """One did not."""

    def join(self, keeper: Keeper) -> None:
        """Its replica takes calls from now on."""

    def part(self, keeper: Keeper) -> bool:
        """Its replica is lost; False: nobody wants another one."""

    def lost(self, keeper: Keeper, replica: Replica) -> None:
        """What was lost is counted; those who wait may have nobody left."""

    def changed(self, reason: str = "", keeper: Keeper | None = None) -> None:
        """The phase of this one did."""


class Keeper:
    """`phase` is the state of the replica; `replica` and `seat` are there once it is ready. Times are the loop's."""

    def __init__(self, owner: Owner, spec: ModelSpec, index: int) -> None:
        self.spec, self.index = spec, index
        self.phase: State = "loading"
        self.reason = ""  # why it is restarting or failed
        self.replica: Replica | None = None
        self.loading: Replica | None = None
        self.files: Files = {}  # what its last load began with
        self.load_began = self.next_try = 0.0
        self.hint = ""  # what was seen of the load under way that may be why it fails
        self._owner = owner
        self._seat: Seat | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._is_left = False

    @property
    def seat(self) -> Seat:
        """Its place at the limiter. With preprocess or postprocess, calls wait in the worker, so they all get in."""
        if self._seat is None:
            assert self.replica is not None
            limits, has_hooks = self.spec.limits, self.replica.capabilities.has_hooks
            self._seat = Seat(self.replica, limits.slots, inside=limits.max_queue if has_hooks else 0)
        return self._seat

    def start(self) -> None:
        """Keep it from now on. One that was loaded already has joined."""
        self._task = asyncio.create_task(self._keep(), name=f"{self._owner.name}/{self.index}")

    def cancel(self) -> None:
        """Leave it; a load under way is ended, a replica that is ready stays as it is.

        Only once: a second time would interrupt what it does so that nothing is left behind.
        """
        if self._task is not None and not self._is_left:
            self._is_left = True
            self._task.cancel()

    async def ended(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    async def load(self) -> None:
        """Load it, once.

        Raises:
            LoadError: with the reason, for the operator.
        """
        began = self.load_began = self._loop.time()
        self.hint = ""
        limit = self.spec.limits.load_timeout
        try:
            async with asyncio.timeout(limit):
                self.files = await self._owner.look(self.spec)
                self.loading = await self._owner.make(self.spec, self.index)
                await self.loading.start()
        except ConfigError as error:
            raise LoadError(str(error), fatal=True) from error
        except TimeoutError:
            raise LoadError(f"the load took longer than {limit:g} s and was ended{self.hint}", fatal=True) from None
        except LoadError as error:
            if not self.hint:
                raise
            raise LoadError(f"{error}{self.hint}", fatal=error.fatal) from error
        except asyncio.CancelledError:
            if self.loading is not None:  # its own end was interrupted, if it was under way already
                await to_the_end(self.loading.kill("the load was given up"))
            raise
        else:
            self.replica, self._seat = self.loading, None
        finally:
            self.loading = None
        self._owner.loaded(self.replica, self._loop.time() - began)

    async def _keep(self) -> None:
        tries = crashes = 0
        about = {"model": self._owner.name}
        while True:
            if self.replica is None:
                try:
                    await self.load()
                except LoadError as error:
                    tries += 1
                    self._owner.not_loaded()
                    if error.fatal or tries >= LOAD_TRIES:
                        self._set("failed", str(error))
                        return
                    log.warning("%s: load failed, trying again: %s", self._owner.name, error, extra=about)
                    await asyncio.sleep(pause(tries - 1))
                    continue
                except Exception as error:  # of a runner, or of what makes its launch
                    log.exception("%s could not be started", self._owner.name, extra=about)
                    self._set("failed", f"{type(error).__name__}: {error}")
                    return
                self._owner.join(self)
            tries = 0
            replica, born = self.replica, self._loop.time()
            assert replica is not None
            await asyncio.wait([replica.lost])  # and not the future itself, which would be cancelled with this task
            if not self._owner.part(self):
                return
            self.replica = None
            crashes = 0 if self._loop.time() - born > HEALTHY_AFTER else crashes + 1
            await self._recover(replica, crashes)

    async def _recover(self, replica: Replica, crashes: int) -> None:
        """It is gone: say so, then pause."""
        now, reason, breaker = self._loop.time(), replica.lost.result(), self._owner.breaker
        breaker.note(now, was_healthy=not crashes)
        if breaker.is_open:
            self.next_try = now + breaker.pause
            text = (
                f"{counted(breaker.crashes, 'crash', 'crashes')} within {breaker.spread:.0f} s, the last one: {reason}"
            )
            self._set("failed", text)
        else:
            self.next_try = now + pause(crashes - 1 if crashes else 0)
            self._set("restarting", reason)
        self._owner.lost(self, replica)
        await to_the_end(replica.kill(reason))
        await asyncio.sleep(max(0.0, self.next_try - self._loop.time()))
        self.load_began = self._loop.time()

    def _set(self, phase: State, reason: str = "") -> None:
        self.phase, self.reason = phase, reason
        self._owner.changed(reason, self)


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await it, and go on to do so though the caller is cancelled meanwhile: then that is heard afterwards."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody will ask for it
        raise
