"""The /v1 routes of models with strict Truss parity: bytes are passed to the method and back, as for predict.

Truss decodes such a body only as JSON or msgpack, and adds nothing to the answer. Errors have Truss's format. The body
is read only for `model`, to find the model. If it is unreadable, it may be for the only model; if it would take long to
read, it is refused as by every other dialect.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ...errors import TooLarge
from ...spec import Endpoint
from ...wording import counted
from ..body import BOM, MAX_COST, MAX_ITEMS, amount_of
from ..collected_body import too_large
from ..exchange import Exchange
from ..off_loop import Beside
from .predict import OCTETS, answer_bytes

if TYPE_CHECKING:
    from ...hosting.catalog import Catalog
    from ...hosting.model import HostedModel

# The paths that Truss's server has. Others have no raw form and use their dialect.
PATHS = frozenset(f"/v1/{name}" for name in ("chat/completions", "completions", "embeddings", "messages", "responses"))
# Bytes of msgpack, each of which may be a value. One that is passed over takes up to 4 nanoseconds where we measured.
MAX_MSGPACK = MAX_COST // 6


class StrictParity:
    def __init__(self, catalog: Catalog, beside: Beside) -> None:
        self._catalog, self._beside = catalog, beside
        self._is_needed = any(model.spec.parity == "strict" for model in catalog.models.values())

    async def find(self, endpoint: Endpoint, exchange: Exchange, named: str, body: bytes) -> HostedModel | None:
        """Return the strict model that a request is for, or None if it is for another model or unclear.

        Raises:
            UnknownModel: the named model does not exist.
            TooLarge: the body would take too long to read for a name.
            ClientLeft: the client left before a large body was read.
        """
        if not self._is_needed or endpoint.path not in PATHS:
            return None
        if name := named or await self._asked(exchange, body):
            model: HostedModel | None = self._catalog.find(name, exchange.sees)
        else:
            models = self._catalog.seen(exchange.sees)
            model = self._catalog.sole([one for one in models if self._catalog.serves(one, endpoint)] or models)
        return model if model is not None and model.spec.parity == "strict" else None

    async def _asked(self, exchange: Exchange, body: bytes) -> str | None:
        """Return the value of `model`, if the body can be read."""
        kind = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        read = _of_msgpack if kind == OCTETS else _of_json
        try:
            return await self._beside.do(exchange, len(body), partial(read, body))
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            return None

    async def answer(self, endpoint: Endpoint, exchange: Exchange, model: HostedModel, body: bytes) -> None:
        exchange.counted_for, exchange.strict = model.name, True
        if len(body) > model.spec.limits.max_body:
            raise too_large(model.spec.limits.max_body)
        await answer_bytes(exchange, model, endpoint.method, body)


class _Asked(msgspec.Struct):
    model: str | None = None


_from_json, _from_msgpack = msgspec.json.Decoder(_Asked).decode, msgspec.msgpack.Decoder(_Asked).decode


def _of_json(body: bytes) -> str | None:
    amount_of(body, MAX_ITEMS)
    return _from_json(body.removeprefix(BOM)).model


def _of_msgpack(body: bytes) -> str | None:
    if len(body) > MAX_MSGPACK:
        raise TooLarge(
            f"the body has more than {counted(MAX_MSGPACK, 'byte')}, which take long to read for the name of a model; "
            "name the model in the path: /models/NAME/v1/…"
        )
    return _from_msgpack(body).model
