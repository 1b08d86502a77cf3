"""Keep one replica of a model alive: load it, watch it, and load it again when it is lost.

loading ──> ready ──lost──> restarting ──> ready …
   │                            └── a crash loop: failed, and tried after 1, 2, 4 … 60 s
   └── a load that fails for good: failed

The supervisor takes commands and reports events, as values, to one `on` callback. It does not know the model or its
state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..runners.replica import LoadError, Replica
from ..spec import ModelSpec, State
from ..wording import counted
from .backoff import HEALTHY_AFTER, Breaker, pause

if TYPE_CHECKING:
    from .loaded_files import Files

log = logging.getLogger("gateway.models")

LOAD_TRIES = 3


@dataclass(frozen=True, slots=True)
class LoadBegan:
    at: float  # by the loop's clock


@dataclass(frozen=True, slots=True)
class Launched:
    """The replica exists and begins to load."""

    replica: Replica


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load succeeded."""

    replica: Replica
    files: Files  # the files at the start of the load
    seconds: float


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A load failed; another may follow."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A replica that was ready takes no more calls."""

    replica: Replica


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The replica is restarting or has failed. `next_try` is the time of the next load, if any, by the loop's clock."""

    phase: State
    reason: str
    next_try: float = 0.0


Event = LoadBegan | Launched | Loaded | NotLoaded | Lost | PhaseChanged


class Supervisor:
    """Supervise one replica.

    `look` returns the files that a load begins with. `make` returns a replica that is not loaded yet, or raises
    ConfigError. All replicas of a model share one `breaker`. `on` is called on the event loop.
    """

    def __init__(
        self,
        spec: ModelSpec,
        index: int,
        *,
        look: Callable[[ModelSpec], Awaitable[Files]],
        make: Callable[[ModelSpec, int], Awaitable[Replica]],
        breaker: Breaker,
        on: Callable[[Event], None],
    ) -> None:
        self._spec, self._index, self._name = spec, index, spec.name
        self._look, self._make, self._breaker, self._on = look, make, breaker, on
        self._replica: Replica | None = None  # the one that is ready
        self._loading: Replica | None = None
        self._hint = ""  # something seen during the load that may explain its failure
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._is_left = self._is_draining = False

    # ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Keep the replica alive from now on; load it first, unless that has been done."""
        self._task = asyncio.create_task(self._keep(), name=f"{self._name}/{self._index}")

    def drain(self) -> None:
        """Load it no more. A replica that is ready stays, and its loss is reported."""
        self._is_draining = True
        if self._replica is None:  # it is loading, or pausing before a load
            self.cancel()

    def cancel(self) -> None:
        """Stop supervising. A running load is ended; a replica that is ready is left running.

        Cancels once only: a second cancellation would interrupt the cleanup.
        """
        if self._task is not None and not self._is_left:
            self._is_left = True
            self._task.cancel()

    async def ended(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def hint(self, replica: Replica, what: str) -> bool:
        """Add a hint to the error of this load, should it fail.

        False if the replica is not loading or has a hint already.
        """
        if self._loading is not replica or self._hint:
            return False
        self._hint = f"; {what}"
        return True

    async def load(self) -> None:
        """Load the replica once.

        Raises:
            LoadError: with the reason, for the operator.
        """
        began = self._loop.time()
        self._on(LoadBegan(began))
        self._hint = ""
        limit = self._spec.limits.load_timeout
        try:
            async with asyncio.timeout(limit):
                files = await self._look(self._spec)
                self._loading = replica = await self._make(self._spec, self._index)
                self._on(Launched(replica))
                await replica.start()
        except ConfigError as error:
            raise LoadError(str(error), fatal=True) from error
        except TimeoutError:
            raise LoadError(f"the load took longer than {limit:g} s and was ended{self._hint}", fatal=True) from None
        except LoadError as error:
            if not self._hint:
                raise
            raise LoadError(f"{error}{self._hint}", fatal=error.fatal) from error
        except asyncio.CancelledError:
            if self._loading is not None:  # the cancellation may have interrupted its own cleanup
                await to_the_end(self._loading.kill("the load was given up"))
            raise
        finally:
            self._loading = None
        self._replica = replica
        self._on(Loaded(replica, files, self._loop.time() - began))

    # ── what it does by itself ───────────────────────────────────────────────────────────────────────────────────

    async def _keep(self) -> None:
        tries = crashes = 0
        about = {"model": self._name}
        while True:
            if self._replica is None:
                try:
                    await self.load()
                except LoadError as error:
                    tries += 1
                    self._on(NotLoaded())
                    if error.fatal or tries >= LOAD_TRIES:
                        self._on(PhaseChanged("failed", str(error)))
                        return
                    log.warning("%s: load failed, trying again: %s", self._name, error, extra=about)
                    await asyncio.sleep(pause(tries - 1))
                    continue
                except Exception as error:  # an error of a runner, or of the code that prepares its launch
                    log.exception("%s could not be started", self._name, extra=about)
                    self._on(PhaseChanged("failed", f"{type(error).__name__}: {error}"))
                    return
            tries = 0
            replica, born = self._replica, self._loop.time()
            assert replica is not None
            await asyncio.wait([replica.lost])  # not the future itself: cancelling this task would cancel it
            self._on(Lost(replica))
            if self._is_draining:
                return
            self._replica = None
            crashes = 0 if self._loop.time() - born > HEALTHY_AFTER else crashes + 1
            await self._recover(replica, crashes)

    async def _recover(self, replica: Replica, crashes: int) -> None:
        """Report the loss, then wait until the next try."""
        now, reason, breaker = self._loop.time(), replica.lost.result(), self._breaker
        breaker.note(now, was_healthy=not crashes)
        if breaker.is_open:
            next_try = now + breaker.pause
            loop = f"{counted(breaker.crashes, 'crash', 'crashes')} within {breaker.spread:.0f} s"
            self._on(PhaseChanged("failed", f"{loop}, the last one: {reason}", next_try))
        else:
            next_try = now + pause(crashes - 1 if crashes else 0)
            self._on(PhaseChanged("restarting", reason, next_try))
        await to_the_end(replica.kill(reason))
        await asyncio.sleep(max(0.0, next_try - self._loop.time()))


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` to its end even if the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # mark the exception as retrieved
        raise
