"""The model's own `is_healthy`: one question at a time, and what it said last, for operators.

Probes, scrapes and `gateway ps` ask it; whoever comes while a question is under way gets its answer too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from .call import NEVER, Call
from .errors import Crashed, GatewayError
from .questions import question
from .replica import Replica
from .spec import Limits

if TYPE_CHECKING:
    from .hosted import HostedModel

log = logging.getLogger("gateway.models")

HEALTH_TIMEOUT = 10.0  # seconds


async def ask_health(models: Iterable[HostedModel], seconds: float) -> None:
    """Ask those that have an `is_healthy`, and wait so long at most: their `health` has the answers that came."""
    asked = [asyncio.create_task(model.is_healthy()) for model in models if model.has_health]
    if asked:
        await asyncio.wait(asked, timeout=seconds)


class HealthCheck:
    """`problem` says why the last answer was no; `is_good` is None before the first."""

    def __init__(self, model: str, limits: Limits) -> None:
        # No killing: a model that cannot say how it is may still answer its calls.
        self._model, self._limits = model, replace(limits, request_timeout=HEALTH_TIMEOUT, cancel_grace=NEVER)
        self._last: Call | None = None
        self._asking: asyncio.Task[bool] | None = None
        self.is_good: bool | None = None
        self.problem = ""

    async def ask(self, replica: Replica) -> bool:
        """What it says; None means that it is ready, which it is."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(replica))
        return await asyncio.shield(self._asking)  # others may wait for it, too

    def forget(self) -> None:
        """Whom it was about is gone."""
        self.is_good, self.problem = None, ""

    async def _ask(self, replica: Replica) -> bool:
        problem = await self._problem(replica)
        was_lost = self._last is not None and isinstance(self._last.error, Crashed)
        if not (was_lost or replica.lost.done()):  # or the state of the model says it
            self._note(problem)
        return not problem

    async def _problem(self, replica: Replica) -> str:
        if self._last is not None and not self._last.ended:
            return f"its is_healthy has not answered for more than {HEALTH_TIMEOUT:g} s"  # nor would another thread
        call = self._last = question("is_healthy", self._limits)
        try:
            replica.open(call, lambda call: None)
            with call:
                async with asyncio.timeout(HEALTH_TIMEOUT):
                    await call.first()
            answer = call.reply
        except TimeoutError:
            return f"its is_healthy has not answered for {HEALTH_TIMEOUT:g} s"
        except (GatewayError, ConnectionError) as error:
            return f"its is_healthy failed: {error}"
        return "" if answer is None or answer else f"its is_healthy says {answer!r:.100}"

    def _note(self, problem: str) -> None:
        """A line of the log at each change."""
        before, self.is_good, self.problem = self.is_good, not problem, problem
        about = {"model": self._model}
        if problem and before is not False:
            log.warning("model '%s' is unhealthy, and gets calls still: %s", self._model, problem, extra=about)
        elif not problem and before is False:
            log.info("model '%s' is healthy again", self._model, extra=about)
