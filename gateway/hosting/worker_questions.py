"""Questions that the gateway sends to all replicas of a model: swap its class.

The question itself is in `runners/question.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..runners.question import about_new_code
from ..runners.replica import Replica
from ..spec import Capabilities, Limits


async def swap_class(replicas: Iterable[Replica], limits: Limits) -> Capabilities | None:
    """Make every replica swap the model's class in place, as Truss does: the state stays, `load` is not run.

    Returns the capabilities of the new class.

    Raises:
        GatewayError: 422 when the new code is invalid.
    """
    found = None
    for replica in tuple(replicas):
        with about_new_code(limits) as question:
            try:
                replica.ask(question)
            except ConnectionError:
                continue  # it will come back with the new code
            found = await question.answer()
    return found
