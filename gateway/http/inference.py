"""The Open Inference Protocol (v2): what models take, whether they are ready, inference, and loading by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .. import __version__
from ..audit import audited
from ..call import ClientLeft
from ..dialects import oip, oip_binary
from ..dialects.oip_schema import Schema
from ..dialects.oip_tensors import MAX_ROWS
from ..errors import BadRequest, InvalidJSON, InvalidOutput, RouteNotSupported, TooLarge, Unavailable
from ..examples import tensors_of
from ..wire import BYTES, Req
from .actors import actor_of
from .body import TOO_DEEP, BodyReader, decode_object, is_deep
from .compressed import AT_ONCE, encoding_of, unpacked
from .exchange import Exchange
from .kin import look_at
from .orders import IS_READY, name_of, unload_for
from .predict import OCTETS, http_scope, pass_response
from .waiting import until_ready

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub

ROUTE = "/v2/models/{model}/infer"
EXTENSIONS = ["model_repository", "model_configuration", "statistics", "binary_tensor_data"]
# our states in the words of the repository extension
STATES = {
    "unloaded": "UNAVAILABLE",
    "loading": "LOADING",
    "ready": "READY",
    "restarting": "LOADING",
    "draining": "UNLOADING",
    "failed": "UNAVAILABLE",
}
INDEX_BODY = 64 << 10  # bytes; it says whether all models are asked for
LIGHT = 1 << 20  # bytes of a plain body: heavier ones are looked at one after the other, for each takes many times that
MAX_JSON = 8 << 20  # bytes of JSON that a body unpacks to, or that has Python's words: read in some tenths of a second
_encode = msgspec.json.encode


T = TypeVar("T")


class Inference:
    def __init__(self, hub: Hub, reader: BodyReader) -> None:
        self._hub, self._reader = hub, reader
        self._counts: dict[str, Counts] = {}
        hub.on_forget.append(self._forget)
        self._heavy = asyncio.Lock()

    def _forget(self, model: str) -> None:
        self._counts.pop(model, None)

    async def infer(self, exchange: Exchange) -> None:
        """Tensors in, predict, tensors out; a Response that predict makes itself goes out as it is."""
        model = self._hub.find(exchange.model, exchange.sees)
        exchange.model = model.name
        _check_predicts(model)
        body = await exchange.body(self._reader, model.spec.limits.max_body)
        encoding = encoding_of(exchange)
        count = self._counts.setdefault(model.name, Counts())
        count.fail += 1  # until it has succeeded
        request, inputs = oip.InferRequest(None, ()), b""
        if model.state != "ready":
            await until_ready(exchange, model, body)
        if model.state == "ready":  # one that is not refuses the call, and may begin to load for it
            schema = model.capabilities.input_schema
            if schema is None:
                raise RouteNotSupported(
                    f"model '{model.name}' does not say what its predict takes; annotate its parameter with a Pydantic "
                    "model, or send JSON to its predict route",
                    param="model",
                )
            model.check_room(1)
            work = partial(self._inputs, exchange, model.spec.limits.max_body, schema)
            request, inputs = await self._in_turn(exchange, body, encoding, work)
        body = b""
        with model.call(_predict(exchange, model), inputs, exchange.patience()) as call:
            exchange.watch(call)
            if not call.has_slot:
                look_at(exchange, model, call)
            head = await call.first()
            exchange.measure()
            if head.raw or head.stream:
                await pass_response(exchange, call, head)
                count.add(exchange)
                return
            reply = call.reply

        def answer() -> tuple[bytes, int]:
            """All of it, and how much of that is JSON, where tensors follow it."""
            value = oip.from_predict(bytes(reply), head.content_type)
            try:
                shown, raw = oip.answer(value, request, model.name, exchange.request_id)
                written = _encode(shown)
            except (RecursionError, UnicodeEncodeError) as error:  # of half a character, which Python's reader takes
                raise InvalidOutput(f"{oip.UNFIT}: {error}") from error
            is_binary = bool(raw) or request.all_binary
            return (written + raw, len(written)) if is_binary else (written, 0)

        whole, length = await self._aside(len(reply), answer)
        count.add(exchange)
        if not length:
            await exchange.reply(200, whole)
            return
        await exchange.reply(200, whole, OCTETS, [(b"inference-header-content-length", str(length).encode())])

    async def _aside(self, size: int, work: Callable[[], T]) -> T:
        """What takes long for many bytes must not hold up the requests of others: it goes to a thread."""
        if size <= AT_ONCE:
            return work()
        async with self._heavy if size > LIGHT else contextlib.nullcontext():
            return await asyncio.to_thread(work)

    async def _in_turn(self, exchange: Exchange, body: bytes, encoding: str, work: Callable[[bytes, str, int], T]) -> T:
        """The inputs of a request. What is heavy is done by a thread, one request after the other."""
        if not encoding and len(body) <= AT_ONCE:
            return work(body, encoding, LIGHT)
        if len(body) <= LIGHT:
            with contextlib.suppress(_Heavy):
                return await asyncio.to_thread(work, body, encoding, LIGHT)
        async with self._heavy:
            if exchange.client_is_gone:
                raise ClientLeft
            return await asyncio.to_thread(work, body, encoding, 0)

    def _inputs(
        self, exchange: Exchange, limit: int, schema: Schema, body: bytes, encoding: str, light: int
    ) -> tuple[oip.InferRequest, bytes]:
        """The request in a body, and what predict gets of it.

        Raises:
            _Heavy: `light` is not 0, and it unpacks to more bytes than that.
        """
        if encoding:
            try:
                body = unpacked(body, encoding, min(limit, light or limit))
            except TooLarge:
                if light and light < limit:
                    raise _Heavy from None
                raise
        head, data = oip_binary.split(body, exchange.headers.get(b"inference-header-content-length"))
        if encoding and len(head) > MAX_JSON:
            raise TooLarge(f"the body unpacks to more than {MAX_JSON} bytes of JSON; send tensors as binary data")
        is_raw = bool(data) and not head
        request = oip.read_raw(data, schema) if is_raw else oip.read(_object(head), data)
        return request, oip.encode_inputs(request, schema, self._hub.settings.gateway.max_queued_bytes)

    async def server(self, exchange: Exchange) -> None:
        await exchange.reply(200, _encode({"name": "model-gateway", "version": __version__, "extensions": EXTENSIONS}))

    async def metadata(self, exchange: Exchange) -> None:
        model = self._find(exchange)
        if not model.capabilities.methods:  # it was never ready, so nobody knows
            raise model.not_ready()
        _check_predicts(model)
        inputs, outputs = tensors_of(model)
        await exchange.reply(
            200,
            _encode(
                {
                    "name": model.name,
                    "versions": [oip.VERSION],
                    "platform": model.spec.format,
                    "inputs": inputs,
                    "outputs": outputs,
                }
            ),
        )

    async def config(self, exchange: Exchange) -> None:
        model = self._find(exchange)
        _check_predicts(model)
        await exchange.reply(200, _encode(oip.config(model.name, model.spec.format, *tensors_of(model))))

    async def stats(self, exchange: Exchange) -> None:
        """Of one model, or of all that the caller sees."""
        names = [model.name for model in ([self._find(exchange)] if exchange.model else self._hub.seen(exchange.sees))]
        found = [self._counts.get(name, Counts()).shown(name) for name in names]
        await exchange.reply(200, _encode({"model_stats": found}))

    async def ready(self, exchange: Exchange) -> None:
        model = self._find(exchange)
        is_ready = await model.is_healthy()
        if not is_ready:
            exchange.error = Unavailable.code
            exchange.cause = "unhealthy" if model.state == "ready" else model.not_ready().cause
        await exchange.reply(200 if is_ready else 503, _encode({"name": model.name, "ready": is_ready}))

    async def index(self, exchange: Exchange) -> None:
        """Every model with its state; only those that are ready when the body says so."""
        body = await exchange.body(self._reader, INDEX_BODY)
        if encoding := encoding_of(exchange):
            body = unpacked(body, encoding, INDEX_BODY)
        only_ready = bool(decode_object(body).get("ready")) if body else False
        found = [
            {
                "name": model.name,
                "version": oip.VERSION,
                "state": STATES[model.state],
                "reason": self._reason(model, exchange),
            }
            for model in self._hub.seen(exchange.sees)
            if model.state == "ready" or not only_ready
        ]
        await exchange.reply(200, _encode(found))

    async def load(self, exchange: Exchange) -> None:
        """Answer when the model is ready, or has failed."""
        with audited(actor_of(exchange), "load", name_of(self._hub, exchange)) as outcome:
            model = self._find(exchange)
            if model.state == "ready":
                outcome.words = IS_READY
            await self._hub.load(model)
            if await model.settled() != "ready":
                raise model.not_ready()
        await exchange.reply(200, b"{}")

    async def unload(self, exchange: Exchange) -> None:
        """Answer when the model's processes have ended; calls that run may finish first."""
        await unload_for(self._hub, exchange, self._find_lazy)
        await exchange.reply(200, b"{}")

    def _find_lazy(self, exchange: Exchange) -> HostedModel:
        model = self._find(exchange)
        if not self._hub.is_lazy(model.name):
            raise BadRequest(
                f"model '{model.name}' is loaded at the start and stays; with load = \"lazy\" it may be unloaded",
                param="model",
                code="unsupported_value",
            )
        return model

    def _reason(self, model: HostedModel, exchange: Exchange) -> str:
        return "" if model.state == "ready" else self._hub.reason(model, exchange.sees, exchange.may_know)

    def _find(self, exchange: Exchange) -> HostedModel:
        model = self._hub.find(exchange.model, exchange.sees)
        exchange.model, exchange.asked = "", model.name  # questions about a model are no calls of it
        return model


class _Heavy(Exception):
    """It has to wait for its turn."""


class Counts:
    """What this route has done for one model since the gateway began, for `stats`. Times are seconds."""

    def __init__(self) -> None:
        self.success = self.fail = 0
        self.last = self.total = self.queued = self.ran = 0.0

    def add(self, exchange: Exchange) -> None:
        now = time.monotonic()
        self.fail -= 1
        self.success += 1
        self.last = time.time()
        self.total += now - exchange.started
        self.queued += exchange.queued
        self.ran += exchange.ran

    def shown(self, name: str) -> dict[str, Any]:
        def times(count: int, seconds: float) -> dict[str, int]:
            return {"count": count, "ns": int(seconds * 1e9)}

        return {
            "name": name,
            "version": oip.VERSION,
            "last_inference": int(self.last * 1e3),
            "inference_count": self.success,
            "execution_count": self.success,
            "inference_stats": {
                "success": times(self.success, self.total),
                "fail": times(self.fail, 0),
                "queue": times(self.success, self.queued),
                "compute_input": times(self.success, 0),
                "compute_infer": times(self.success, self.ran),
                "compute_output": times(self.success, 0),
                "cache_hit": times(0, 0),
                "cache_miss": times(0, 0),
            },
            "batch_stats": [],
        }


def _object(body: bytes) -> dict[str, Any]:
    """The JSON of a request, with Python's words for NaN and infinity, which Triton and its client write."""
    try:
        return decode_object(body, MAX_ROWS)
    except InvalidJSON:
        if b"NaN" not in body and b"Infinity" not in body:
            raise
        if len(body) > MAX_JSON:
            raise TooLarge(
                f"JSON with NaN or Infinity may have {MAX_JSON} bytes; send NaN as null, or tensors as binary data"
            ) from None
        try:
            value = json.loads(body)
            _encode(value)  # half a character, which Python's reader takes, is no text
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise
        if is_deep(body):
            raise InvalidJSON(TOO_DEEP) from None
        return value


def _check_predicts(model: HostedModel) -> None:
    methods = model.capabilities.methods
    if methods and all(method.name != "predict" for method in methods):
        raise RouteNotSupported(f"model '{model.name}' has no predict, so it takes no tensors", param="model")


def _predict(exchange: Exchange, model: HostedModel) -> Req:
    """Its stream is gathered into one text: tensors are whole."""
    scope: Any = http_scope(exchange, model) if "predict" in model.request_methods else None
    return Req("predict", BYTES, False, "application/json", exchange.request_id, True, None, scope, exchange.route)
