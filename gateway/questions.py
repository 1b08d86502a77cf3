"""What the gateway itself asks of a replica, without a slot and past the queue: how it is, new code, please."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from .call import NEVER, Call
from .errors import GatewayError
from .plain import to_capabilities
from .replica import Replica
from .spec import Capabilities, Limits
from .wire import DATA, Req, WireError, decode

HEALTH_TIMEOUT = 10.0  # seconds


class HealthCheck:
    """The model's own `is_healthy`, one question at a time."""

    def __init__(self, limits: Limits) -> None:
        # No killing: a model that cannot say how it is may still answer its calls.
        self._limits = replace(limits, request_timeout=HEALTH_TIMEOUT, cancel_grace=NEVER)
        self._last: Call | None = None

    async def ask(self, replica: Replica) -> bool:
        """What it says; None means that it is ready, which it is."""
        if self._last is not None and not self._last.ended:
            return False  # the last one hangs; another would only take another thread
        call = self._last = _call("is_healthy", self._limits)
        try:
            replica.open(call, lambda call: None)
            with call:
                async with asyncio.timeout(HEALTH_TIMEOUT):
                    await call.first()
            answer = decode(call.reply)
        except (GatewayError, ConnectionError, TimeoutError, WireError):
            return False
        return answer is None or bool(answer)


async def hot_reload(replicas: Iterable[Replica], limits: Limits) -> Capabilities | None:
    """Have every replica swap the model's class in place, as Truss does; state stays, load is not run.

    Returns what the model can do from now on.

    Raises:
        GatewayError: 422 when the new code is no good.
    """
    found = None
    for replica in tuple(replicas):
        call = _call("hot_reload", limits)
        try:
            replica.open(call, lambda call: None)
        except ConnectionError:
            continue  # it will come back with the new code
        with call:
            await call.first()
        found = to_capabilities(decode(call.reply))
    return found


def _call(method: str, limits: Limits) -> Call:
    req = Req(method=method, mode=DATA, stream=False, content_type="", request_id=method.replace("_", "-"))
    return Call(req, b"", limits, asyncio.get_running_loop())
