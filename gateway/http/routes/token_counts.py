"""Ask a model for the token counts of an answer, with calls of its `count_tokens`, which need no slot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import GatewayError
from ...telemetry.counts import whole_number
from ...wire.frames import DATA, Req
from ...wire.values import encode
from .calls import weight_of

if TYPE_CHECKING:
    from ...hosting.model import HostedModel

COUNT_TIMEOUT = 5.0  # seconds that an answer waits for token counts before they are estimated


def encoded(questions: Mapping[str, Mapping[str, Any]], most: int) -> dict[str, bytes] | None:
    """Return the questions as bodies, or None if they have more than `most` bytes."""
    total = 0
    for asked in questions.values():
        total += weight_of(asked, most)
        if total > most:
            return None
    bodies = {name: encode(asked) for name, asked in questions.items()}
    return bodies if sum(map(len, bodies.values())) <= most else None


async def count_tokens(
    model: HostedModel, encoding: Awaitable[dict[str, bytes] | None], request_id: str
) -> dict[str, int] | None:
    """Return the result of the model's `count_tokens` for each question; None if there is none, or it cannot count now.

    `encoding` gives the questions as bodies.
    """
    req = Req(method="count_tokens", mode=DATA, stream=False, content_type="", request_id=request_id)
    try:
        if (bodies := await encoding) is None:
            return None
        with contextlib.ExitStack() as held:
            calls = {name: held.enter_context(model.call(req, body)) for name, body in bodies.items()}
            async with asyncio.timeout(COUNT_TIMEOUT):
                for call in calls.values():
                    await call.first()
            found = {name: whole_number(call.reply["input_tokens"]) for name, call in calls.items()}
    except (GatewayError, TimeoutError, KeyError, TypeError, OverflowError):
        return None
    numbers = {name: number for name, number in found.items() if number is not None}
    return numbers if len(numbers) == len(found) else None
