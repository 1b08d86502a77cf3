"""Orders of operators in the audit log, under the name of the model, including refused ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import GatewayError, UnknownModel
from ...hosting.model_roots import unload
from ...telemetry.audit import Outcome, audited, record, refused
from ...telemetry.redaction import cut
from ..exchange import Exchange
from .audit_actors import actor_of

if TYPE_CHECKING:
    from ...hosting.catalog import Catalog
    from ...hosting.hub import Hub
    from ...hosting.model import HostedModel

ACTIONS = {"load": "load", "unload": "unload", "reload": "reload", "hot-reload": "hot reload"}
IS_READY = "nothing to do: it is ready already"
NOT_LOADED = "nothing to do: it is not loaded"
MAX_NAME = 128  # characters of a name that may not exist


def name_of(catalog: Catalog, exchange: Exchange) -> str:
    """Return the model that an order is for, or the given name if there is no such model."""
    try:
        return catalog.find(exchange.named, exchange.sees).name
    except UnknownModel:
        return cut(exchange.named, MAX_NAME)


async def unload_for(
    hub: Hub, exchange: Exchange, find: Callable[[Exchange], HostedModel]
) -> tuple[HostedModel, Outcome]:
    """Unload the model that `find` returns. `find` may raise to refuse."""
    actor = actor_of(exchange)
    with audited(actor, "unload", name_of(hub.catalog, exchange)) as outcome:
        model = find(exchange)
        had_nothing = model.state == "unloaded" or model.spec.is_stand_in
        is_forgotten = await unload(hub, model)
        if had_nothing and not is_forgotten:
            outcome.words = NOT_LOADED
    if is_forgotten:
        record(actor, "forget", model=model.name)
    return model, outcome


def tell_refused(exchange: Exchange, error: GatewayError) -> None:
    """Log an order that the guard refused, since no handler does."""
    row = exchange.row
    word = row.template.rpartition("/")[2]
    if exchange.method != "POST" or row.verb != "POST" or row.scope != "admin" or word not in ACTIONS:
        return
    name = cut(exchange.asked, MAX_NAME) if "{model}" in row.template else ""
    action = "find" if row.template == "/admin/reload" else ACTIONS[word]  # it searches for models
    refused(actor_of(exchange), action, error.message, model=name or None)
