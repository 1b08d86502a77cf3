"""Query models: the list, one model, whether it is loaded, its schema.

One object satisfies the OpenAI and the Anthropic SDK on the same path. `GET /v1/models/{id}` is also Truss's readiness
check.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import GatewayError, RouteNotSupported, Unavailable
from ...telemetry.audit import audited
from .. import errors
from ..carried_out import carried_out
from ..exchange import Exchange
from .audit_actors import actor_of
from .audit_orders import name_of

if TYPE_CHECKING:
    from ...hosting.hub import Hub
    from ...hosting.model import HostedModel

_encode = msgspec.json.encode


class Models:
    def __init__(self, hub: Hub) -> None:
        self._hub, self._catalog = hub, hub.catalog

    async def list_all(self, exchange: Exchange) -> None:
        seen = self._catalog.seen(exchange.sees)
        await exchange.reply(200, _encode(_listing([self.describe(model, exchange) for model in seen])))

    async def list_one(self, exchange: Exchange) -> None:
        await exchange.reply(200, _encode(_listing([self.describe(self._find(exchange), exchange)])))

    async def show(self, exchange: Exchange) -> None:
        """Return the model object with 200 if it is ready and healthy, or unloaded; else 503, for probes."""
        model = self._find(exchange)
        if model.state == "unloaded" or (model.state == "ready" and await model.is_healthy()):
            await exchange.reply(200, _encode(self.describe(model, exchange)))
            return
        error: GatewayError = model.not_ready()
        if model.state == "ready":
            error = Unavailable(f"model '{model.name}' reports that it is unhealthy", cause="unhealthy")
        exchange.error, exchange.cause = error.code, error.cause
        shape: errors.Shape = "anthropic" if _for_anthropic(exchange) else "openai"
        body = errors.body_of(error, shape, exchange.request_id)
        await exchange.reply(error.status, body, headers=errors.headers_of(error, "truss"))

    async def hot_reload(self, exchange: Exchange) -> None:
        """Truss's in-place reload: new code for the running instance."""
        await carried_out(self._hot_reload(exchange))
        await exchange.reply(200, b'{"msg":"Hot reload complete"}')

    async def _hot_reload(self, exchange: Exchange) -> None:
        with audited(actor_of(exchange), "hot reload", name_of(self._catalog, exchange)):
            model = self._find(exchange)
            await model.swap_class()

    async def loaded(self, exchange: Exchange) -> None:
        model = self._find(exchange)
        if model.state != "ready":
            raise model.not_ready()
        await exchange.reply(200, b"{}")

    async def schema(self, exchange: Exchange) -> None:
        """The schema from type annotations, known as soon as the class is loaded, as in Truss."""
        model = self._find(exchange)
        found = model.capabilities if model.state == "ready" else model.described
        if found is None:
            raise model.not_ready()
        typed = (found.input_schema, found.output_schema, found.supports_streaming) != (None, None, None)
        if model.state != "ready" and not typed:
            refused = model.not_ready()
            refused.truss_message = "Schema not available, please try again later."
            raise refused
        if not typed:
            error = RouteNotSupported(f"model '{model.name}' has no schema")
            error.truss_message, error.truss_code = "No schema found", 600
            raise error
        body = {
            "input_schema": found.input_schema,
            "output_schema": found.output_schema,
            "supports_streaming": found.supports_streaming,
        }
        await exchange.reply(200, _encode(body))

    def _find(self, exchange: Exchange) -> HostedModel:
        model = self._catalog.find(exchange.named, exchange.sees)
        exchange.ask_about(model.name)
        return model

    def describe(self, model: HostedModel, exchange: Exchange) -> dict[str, Any]:
        created = datetime.datetime.fromtimestamp(model.created, datetime.UTC)
        capabilities = model.capabilities
        value: dict[str, Any] = {
            "id": model.name,
            "object": "model",
            "created": model.created,
            "owned_by": "gateway",
            "type": "model",
            "display_name": model.spec.display_name or model.name,
            "created_at": created.isoformat().replace("+00:00", "Z"),
            "lifecycle": "active",
            "root": model.name,
            "parent": None,
            "permission": [],
            "status": model.state,
            "capabilities": {
                "routes": self._catalog.routes(model),
                "derived": self._catalog.derived(model),
                "methods": [method.name for method in capabilities.methods],
                **capabilities.extra,
            },
        }
        if capabilities.max_model_len is not None:
            value["max_model_len"] = capabilities.max_model_len
        if _for_anthropic(exchange):  # Anthropic's `capabilities` have other content, which is unknown here
            value |= {"capabilities": None, "max_input_tokens": capabilities.max_model_len}
        if model.state == "unloaded":
            value["loads_on_demand"] = self._hub.is_lazy(model.name)
        if model.reason and model.state != "ready":
            value["status_reason"] = self._catalog.reason(model, exchange.sees, exchange.may_know)
        return value


def _for_anthropic(exchange: Exchange) -> bool:
    return b"anthropic-version" in exchange.headers


def _listing(items: list[dict[str, Any]]) -> dict[str, Any]:
    ids = [item["id"] for item in items]
    return {
        "object": "list",
        "data": items,
        "has_more": False,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
    }
