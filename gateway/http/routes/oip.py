"""The Open Inference Protocol (v2): tensors of models, readiness, inference, and loading by name."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ... import __version__
from ...dialects.oip import binary, values
from ...dialects.oip.schema import Takes
from ...dialects.oip.tensors import MAX_ROWS
from ...errors import BadRequest, InvalidJSON, InvalidOutput, RouteNotSupported, TooLarge, Unavailable
from ...examples.calls import tensors_of
from ...telemetry.audit import audited
from ...wire.frames import BYTES, Req
from ..body import TOO_DEEP, BodyReader, decode_object, is_deep
from ..carried_out import carried_out
from ..compressed import AT_ONCE, encoding_of, unpacked
from ..exchange import Exchange
from ..off_loop import LIGHT, Beside
from ..self_calls import look_at
from .audit_actors import actor_of
from .audit_orders import IS_READY, name_of, unload_for
from .predict import OCTETS, http_scope, pass_response
from .wait_for_model import until_ready

if TYPE_CHECKING:
    from ...hosting.hub import Hub
    from ...hosting.model import HostedModel

EXTENSIONS = ["model_repository", "model_configuration", "statistics", "binary_tensor_data"]
# our states in the terms of the repository extension
STATES = {
    "unloaded": "UNAVAILABLE",
    "loading": "LOADING",
    "ready": "READY",
    "restarting": "LOADING",
    "draining": "UNLOADING",
    "failed": "UNAVAILABLE",
}
INDEX_BODY = 64 << 10  # bytes; the body says whether to list all models
MAX_JSON = 8 << 20  # bytes of JSON decompressed from a body, or with NaN or Infinity: parsed in some tenths of a second
MAX_NANS = 1 << 20  # values beside NaN or Infinity: Python's reader takes several times longer than ours
_encode = msgspec.json.encode


T = TypeVar("T")


class OpenInference:
    def __init__(self, hub: Hub, reader: BodyReader, beside: Beside) -> None:
        self._hub, self._catalog, self._reader, self._beside = hub, hub.catalog, reader, beside
        self._counts: dict[str, Counts] = {}
        self._takes: dict[str, Takes] = {}  # by model
        self._catalog.on_forget.append(self._forget)

    def _forget(self, model: str) -> None:
        self._counts.pop(model, None)
        self._takes.pop(model, None)

    async def infer(self, exchange: Exchange) -> None:
        """Convert tensors to inputs of predict, and its result to tensors. A Response from predict is sent
        unchanged.
        """
        model = self._catalog.find(exchange.named, exchange.sees)
        exchange.counted_for = model.name
        _check_predicts(model)
        body = await exchange.body(self._reader, model.spec.limits.max_body)
        encoding = encoding_of(exchange)
        count = self._counts.setdefault(model.name, Counts())
        count.fail += 1  # undone on success
        request, inputs = values.InferRequest(None, ()), b""
        if model.state != "ready":
            await until_ready(exchange, model, body)
        if model.state == "ready":  # otherwise the call is refused
            takes = self._takes_of(model)
            model.admission.check_room(1)
            work = partial(self._inputs, exchange, model.spec.limits.max_body, takes)
            if len(body) <= AT_ONCE and not encoding:
                request, inputs = work(body, "", 0)
            else:
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
            """Return the body, and the length of its JSON part if tensors follow it."""
            value = values.from_predict(bytes(reply), head.content_type)
            try:
                shown, raw = values.answer(value, request, model.name, exchange.request_id)
            except (RecursionError, UnicodeEncodeError) as error:  # a lone surrogate, which Python's JSON accepts
                raise InvalidOutput(f"{values.UNFIT}: {error}") from error
            is_binary = bool(raw) or request.all_binary
            return (shown + raw, len(shown)) if is_binary else (shown, 0)

        if len(reply) <= AT_ONCE:
            whole, length = answer()
        else:
            whole, length = await self._beside.do(exchange, len(reply), answer, 0)
        count.add(exchange)
        if not length:
            await exchange.reply(200, whole)
            return
        await exchange.reply(200, whole, OCTETS, [(b"inference-header-content-length", str(length).encode())])

    def _takes_of(self, model: HostedModel) -> Takes:
        schema = model.capabilities.input_schema
        if schema is None:
            raise RouteNotSupported(
                f"model '{model.name}' does not declare what its predict takes; annotate its parameter with a "
                "Pydantic model, or send JSON to its predict route",
                param="model",
            )
        takes = self._takes.get(model.name)
        if takes is None or takes.schema is not schema:  # it was loaded again
            takes = self._takes[model.name] = Takes(schema)
        return takes

    async def _in_turn(self, exchange: Exchange, body: bytes, encoding: str, work: Callable[[bytes, str, int], T]) -> T:
        """Return the inputs of a request, read in a thread. If large after decompression, it waits among large work."""
        if len(body) <= LIGHT:
            with contextlib.suppress(_Heavy):
                return await self._beside.do(exchange, len(body), partial(work, body, encoding, LIGHT), 0)
        return await self._beside.do(exchange, max(len(body), LIGHT + 1), partial(work, body, encoding, 0))

    def _inputs(
        self, exchange: Exchange, limit: int, takes: Takes, body: bytes, encoding: str, light: int
    ) -> tuple[values.InferRequest, bytes]:
        """Return the request in a body, and the input of predict.

        Raises:
            _Heavy: `light` is not 0, and the body decompresses to more bytes than that.
        """
        if encoding:
            try:
                body = unpacked(body, encoding, min(limit, light or limit))
            except TooLarge:
                if light and light < limit:
                    raise _Heavy from None
                raise
        head, data = binary.split(body, exchange.headers.get(b"inference-header-content-length"))
        if encoding and len(head) > MAX_JSON:
            raise TooLarge(f"the body unpacks to more than {MAX_JSON} bytes of JSON; send binary tensors")
        is_raw = bool(data) and not head
        request = values.read_raw(data, takes.schema) if is_raw else values.read(_object(head), data)
        return request, values.encode_inputs(request, takes, self._hub.settings.gateway.max_queued_bytes)

    async def server(self, exchange: Exchange) -> None:
        await exchange.reply(200, _encode({"name": "model-gateway", "version": __version__, "extensions": EXTENSIONS}))

    async def metadata(self, exchange: Exchange) -> None:
        model = self._find(exchange)
        if not model.capabilities.methods:  # it was never ready, so its tensors are unknown
            raise model.not_ready()
        _check_predicts(model)
        inputs, outputs = tensors_of(model)
        await exchange.reply(
            200,
            _encode(
                {
                    "name": model.name,
                    "versions": [values.VERSION],
                    "platform": model.spec.format,
                    "inputs": inputs,
                    "outputs": outputs,
                }
            ),
        )

    async def config(self, exchange: Exchange) -> None:
        model = self._find(exchange)
        _check_predicts(model)
        await exchange.reply(200, _encode(values.config(model.name, model.spec.format, *tensors_of(model))))

    async def stats(self, exchange: Exchange) -> None:
        """Statistics of one model, or of all that the caller sees."""
        models = [self._find(exchange)] if exchange.named else self._catalog.seen(exchange.sees)
        found = [self._counts.get(model.name, Counts()).shown(model.name) for model in models]
        await exchange.reply(200, _encode({"model_stats": found}))

    async def ready(self, exchange: Exchange) -> None:
        model = self._find(exchange)
        is_ready = await model.is_healthy()
        if not is_ready:
            exchange.error = Unavailable.code
            exchange.cause = "unhealthy" if model.state == "ready" else model.not_ready().cause
        await exchange.reply(200 if is_ready else 503, _encode({"name": model.name, "ready": is_ready}))

    async def index(self, exchange: Exchange) -> None:
        """Every model with its state; only ready ones if the body asks for that."""
        body = await exchange.body(self._reader, INDEX_BODY)
        if encoding := encoding_of(exchange):
            body = unpacked(body, encoding, INDEX_BODY)
        asked = await self._beside.do(exchange, len(body), partial(decode_object, body)) if body else {}
        only_ready = bool(asked.get("ready"))
        found = [
            {
                "name": model.name,
                "version": values.VERSION,
                "state": STATES[model.state],
                "reason": self._reason(model, exchange),
            }
            for model in self._catalog.seen(exchange.sees)
            if model.state == "ready" or not only_ready
        ]
        await exchange.reply(200, _encode(found))

    async def load(self, exchange: Exchange) -> None:
        """Answer when the model is ready or has failed."""
        await carried_out(self._load(exchange))
        await exchange.reply(200, b"{}")

    async def _load(self, exchange: Exchange) -> None:
        with audited(actor_of(exchange), "load", name_of(self._catalog, exchange)) as outcome:
            model = self._find(exchange)
            if model.state == "ready":
                outcome.words = IS_READY
            await self._hub.load(model)
            if await model.settled() != "ready":
                raise model.not_ready()

    async def unload(self, exchange: Exchange) -> None:
        """Answer when the model's processes have ended. Running calls may finish first."""
        await carried_out(unload_for(self._hub, exchange, self._find_lazy))
        await exchange.reply(200, b"{}")

    def _find_lazy(self, exchange: Exchange) -> HostedModel:
        model = self._find(exchange)
        if not self._hub.is_lazy(model.name):
            raise BadRequest(
                f"model '{model.name}' is loaded at the start and stays loaded; set load = \"lazy\" to unload it",
                param="model",
                code="unsupported_value",
            )
        return model

    def _reason(self, model: HostedModel, exchange: Exchange) -> str:
        return "" if model.state == "ready" else self._catalog.reason(model, exchange.sees, exchange.may_know)

    def _find(self, exchange: Exchange) -> HostedModel:
        model = self._catalog.find(exchange.named, exchange.sees)
        exchange.ask_about(model.name)
        return model


class _Heavy(Exception):
    """The work must wait for its turn."""


class Counts:
    """Statistics of this route for one model since the start of the gateway, for `stats`. Times are in seconds."""

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
            "version": values.VERSION,
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
    """Parse the JSON of a request. It may contain NaN and Infinity, as Triton and its client write them."""
    try:
        return decode_object(body, MAX_ROWS)
    except InvalidJSON:
        if b"NaN" not in body and b"Infinity" not in body:
            raise
        if len(body) > MAX_JSON or body.count(b",") > MAX_NANS:
            raise TooLarge(
                f"JSON with NaN or Infinity may have at most {MAX_JSON} bytes and {MAX_NANS} values; send NaN as null, "
                "or binary tensors"
            ) from None
        try:
            value = json.loads(body)
            _encode(value)  # a lone surrogate, which Python's JSON reader accepts, is not text
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
    """Return the request to the worker. A stream is joined into one text, because tensors are whole."""
    scope: Any = http_scope(exchange, model) if "predict" in model.request_methods else None
    return Req("predict", BYTES, False, "application/json", exchange.request_id, True, None, scope, exchange.route)
