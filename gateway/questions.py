"""What the gateway itself asks of a model, without a slot and past the queue: new code, token counts, its health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .call import Call
from .counts import whole_number
from .errors import GatewayError, InvalidOutput
from .plain import to_capabilities
from .replica import Replica
from .spec import Capabilities, Limits
from .wire import DATA, MAX_FRAME, Req, WireError, encode

if TYPE_CHECKING:
    from .hosted import HostedModel

COUNT_TIMEOUT = 5.0  # seconds that an answer waits for its token counts before they are estimated


async def hot_reload(replicas: Iterable[Replica], limits: Limits) -> Capabilities | None:
    """Have every replica swap the model's class in place, as Truss does; state stays, load is not run.

    Returns what the model can do from now on.

    Raises:
        GatewayError: 422 when the new code is no good, 500 when what it says of itself is more than a load may say.
    """
    found = None
    for replica in tuple(replicas):
        call = question("hot_reload", limits)
        try:
            replica.open(call, lambda call: None)
        except ConnectionError:
            continue  # it will come back with the new code
        with call:
            await call.first()
        found = _capabilities(call.reply)
    return found


def _capabilities(found: Any) -> Capabilities:
    """An answer may be a thousand times as large as what a worker says when it has loaded."""
    try:
        if (size := len(encode(found))) > MAX_FRAME:
            raise WireError(f"{size} bytes, at most {MAX_FRAME} can be told")
        return to_capabilities(found)
    except (WireError, RecursionError) as error:
        raise InvalidOutput(f"the new code is in place, but not what it can do: {error}") from error


async def count_tokens(
    model: HostedModel, questions: Mapping[str, Mapping[str, Any]], request_id: str, most: int
) -> dict[str, int] | None:
    """What the model's `count_tokens` says to each of these; None when it cannot say it now, or they have more than
    `most` bytes."""
    req = Req(method="count_tokens", mode=DATA, stream=False, content_type="", request_id=request_id)
    try:
        bodies = {name: encode(asked) for name, asked in questions.items()}
        if sum(map(len, bodies.values())) > most:
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


def question(method: str, limits: Limits) -> Call:
    """A call that is opened at a replica itself."""
    req = Req(method=method, mode=DATA, stream=False, content_type="", request_id=method.replace("_", "-"))
    return Call(req, b"", limits, asyncio.get_running_loop())
