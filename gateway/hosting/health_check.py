"""Ask the model's own `is_healthy`, one question at a time, and keep the last answer for operators.

Probes, scrapes and `gateway ps` use it; requests that come while a question is pending share its answer.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from ..errors import Crashed, GatewayError
from ..runners.pending import NEVER
from ..runners.question import Question, about_health
from ..runners.replica import Replica
from ..spec import Limits

log = logging.getLogger("gateway.models")

HEALTH_TIMEOUT = 10.0  # seconds


class HealthCheck:
    """`problem` says why the last answer was no; `is_good` is None before the first answer."""

    def __init__(self, model: str, limits: Limits) -> None:
        # cancel_grace=NEVER: do not kill the worker. A model whose health check hangs may still answer calls.
        self._model, self._limits = model, replace(limits, request_timeout=HEALTH_TIMEOUT, cancel_grace=NEVER)
        self._last: Question[bool | None] | None = None
        self._asking: asyncio.Task[bool] | None = None
        self.is_good: bool | None = None
        self.problem = ""

    async def ask(self, replica: Replica) -> bool:
        """Return the answer of `is_healthy`; None counts as healthy, because the model is ready."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(replica))
        return await asyncio.shield(self._asking)  # others may be waiting for it too

    def forget(self) -> None:
        """Reset; the replica that the answer was about is gone."""
        self.is_good, self.problem = None, ""

    async def _ask(self, replica: Replica) -> bool:
        problem = await self._problem(replica)
        was_lost = self._last is not None and isinstance(self._last.error, Crashed)
        if not (was_lost or replica.lost.done()):  # the state of the model already says it
            self._note(problem)
        return not problem

    async def _problem(self, replica: Replica) -> str:
        if self._last is not None and not self._last.ended:
            return f"its is_healthy has not answered for more than {HEALTH_TIMEOUT:g} s"  # another thread would too
        question = about_health(self._limits)
        try:
            replica.ask(question)
            self._last = question
            with question:
                async with asyncio.timeout(HEALTH_TIMEOUT):
                    answer = await question.answer()
        except TimeoutError:
            return f"its is_healthy has not answered for {HEALTH_TIMEOUT:g} s"
        except (GatewayError, ConnectionError) as error:
            return f"its is_healthy failed: {error}"
        return "" if answer is None or answer else f"its is_healthy says {answer!r:.100}"

    def _note(self, problem: str) -> None:
        """Log a line when the answer changes."""
        before, self.is_good, self.problem = self.is_good, not problem, problem
        about = {"model": self._model}
        if problem and before is not False:
            log.warning("model '%s' is unhealthy but still gets calls: %s", self._model, problem, extra=about)
        elif not problem and before is False:
            log.info("model '%s' is healthy again", self._model, extra=about)
