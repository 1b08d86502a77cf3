"""Write outputs that a route cannot use to the model's log, with the message of the answer, for the model's author.

Errors that the worker found itself, such as a value that cannot be sent, are in the log already.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InvalidOutput
from ...runners.call import Call
from ...telemetry import printable
from ...telemetry.log_tails import Tails
from ...telemetry.redaction import KNOWN
from ..exchange import Exchange

HELP = "; docs/outputs.md lists what a method may return"


class Teller:
    """The reporter of one request. It is called with the error that ends the request before the client gets it."""

    __slots__ = ("_calls", "_exchange", "_method", "_tails")

    def __init__(self, tails: Tails, exchange: Exchange, method: str, calls: Sequence[Call]) -> None:
        self._tails, self._exchange, self._method, self._calls = tails, exchange, method, calls

    def tell(self, error: BaseException) -> None:
        if not isinstance(error, InvalidOutput) or any(call.error is error for call in self._calls):
            return
        error.message += HELP
        of = self._exchange
        route = of.route.replace("{model}", of.counted_for)
        line = f"[{of.request_id}] ERROR gateway: {route}: {self._method}: {error.message}"
        self._tails.add(of.counted_for, printable.one_line(KNOWN(line)))

    def leave(self, kind: object, error: BaseException | None, trace: object) -> None:
        """The exit callback of a context manager."""
        if error is not None:
            self.tell(error)
