"""What a method gave that its route cannot answer with: its author finds the words of the answer in the model's log.

What the worker found out itself, as that a value cannot be sent, stands there already.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import printable
from ..call import Call
from ..errors import InvalidOutput
from ..redaction import KNOWN
from ..tails import Tails
from .exchange import Exchange

HELP = "; docs/outputs.md lists what a method may return"


class Teller:
    """Of one request; told of the error that ends it, before its client is."""

    __slots__ = ("_calls", "_exchange", "_method", "_tails")

    def __init__(self, tails: Tails, exchange: Exchange, method: str, calls: Sequence[Call]) -> None:
        self._tails, self._exchange, self._method, self._calls = tails, exchange, method, calls

    def tell(self, error: BaseException) -> None:
        if not isinstance(error, InvalidOutput) or any(call.error is error for call in self._calls):
            return
        error.message += HELP
        of = self._exchange
        route = of.route.replace("{model}", of.model)
        line = f"[{of.request_id}] ERROR gateway: {route}: {self._method}: {error.message}"
        self._tails.add(of.model, printable.one_line(KNOWN(line)))

    def leave(self, kind: object, error: BaseException | None, trace: object) -> None:
        """The end of a `with`."""
        if error is not None:
            self.tell(error)
