"""The /v1 routes of models with strict parity: bytes through to the method of that name, and back, as for predict.

Truss reads nothing of such a body but JSON or msgpack, and adds nothing to its answer; errors are in Truss's shape.
Only `model` is looked up in the body, to find the model, and an unreadable body may mean the only one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..spec import Endpoint
from .body import BOM, too_large
from .exchange import Exchange
from .predict import OCTETS, answer_bytes

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub

# Those that Truss's server has; others have no raw form, and are answered in their dialect.
PATHS = frozenset(f"/v1/{name}" for name in ("chat/completions", "completions", "embeddings", "messages", "responses"))


class Verbatim:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._is_needed = any(model.spec.parity == "strict" for model in hub.models.values())

    def find(self, endpoint: Endpoint, exchange: Exchange, named: str, body: bytes) -> HostedModel | None:
        """The strict model that a request means; None when it means another, or nobody can tell.

        Raises:
            UnknownModel: the one that it names is not there.
        """
        if not self._is_needed or endpoint.path not in PATHS:
            return None
        if name := named or _asked(exchange, body):
            model: HostedModel | None = self._hub.find(name, exchange.sees)
        else:
            models = self._hub.seen(exchange.sees)
            model = self._hub.sole([one for one in models if self._hub.serves(one, endpoint)] or models)
        return model if model is not None and model.spec.parity == "strict" else None

    async def answer(self, endpoint: Endpoint, exchange: Exchange, model: HostedModel, body: bytes) -> None:
        exchange.model, exchange.strict = model.name, True
        if len(body) > model.spec.limits.max_body:
            raise too_large(model.spec.limits.max_body)
        await answer_bytes(exchange, model, endpoint.method, body)


class _Asked(msgspec.Struct):
    model: str | None = None


_from_json, _from_msgpack = msgspec.json.Decoder(_Asked).decode, msgspec.msgpack.Decoder(_Asked).decode


def _asked(exchange: Exchange, body: bytes) -> str | None:
    """What stands under `model`, if it can be read at all."""
    kind = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    try:
        return _from_msgpack(body).model if kind == OCTETS else _from_json(body.removeprefix(BOM)).model
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
