"""Orders of operators, as the audit log tells them: refused at the door too, and by the name of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..audit import Outcome, audited, record, refused
from ..errors import GatewayError, UnknownModel
from ..roots import unload
from .actors import actor_of
from .exchange import Exchange
from .guards import scope_of

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub

ACTIONS = {"load": "load", "unload": "unload", "reload": "reload", "hot-reload": "hot reload"}
PLACES = ("/admin/models/", "/v2/repository/models/", "/models/")
IS_READY = "nothing to do: it is ready already"
NOT_LOADED = "nothing to do: it is not loaded"
MAX_NAME = 128  # characters of a name that may be nobody's


def name_of(hub: Hub, exchange: Exchange) -> str:
    """The model that an order is for; where there is none, the name that was given."""
    try:
        return hub.find(exchange.model, exchange.sees).name
    except UnknownModel:
        return exchange.model[:MAX_NAME]


async def unload_for(
    hub: Hub, exchange: Exchange, find: Callable[[Exchange], HostedModel]
) -> tuple[HostedModel, Outcome]:
    """Unload the model that `find` gives, or refuses."""
    actor = actor_of(exchange)
    with audited(actor, "unload", name_of(hub, exchange)) as outcome:
        model = find(exchange)
        had_nothing = model.state == "unloaded" or model.spec.is_stand_in
        is_forgotten = await unload(hub, model)
        if had_nothing and not is_forgotten:
            outcome.words = NOT_LOADED
    if is_forgotten:
        record(actor, "forget", model=model.name)
    return model, outcome


def tell_refused(exchange: Exchange, error: GatewayError) -> None:
    """What the guard refuses has no handler to tell of it."""
    before, _, word = exchange.path.rpartition("/")
    if exchange.method != "POST" or word not in ACTIONS or scope_of(exchange) != "admin":
        return
    place = next((place for place in PLACES if f"{before}/".startswith(place)), None)
    name = before[len(place) :][:MAX_NAME] if place is not None else None
    action = "find" if exchange.path == "/admin/reload" else ACTIONS[word]  # which looks for models
    refused(actor_of(exchange), action, error.message, model=name or None)
