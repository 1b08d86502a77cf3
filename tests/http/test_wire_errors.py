"""What every route says when something is wrong, in the shape of its path: `wire_errors`, walked for each route.

A route that a plugin of ours registers is among them by itself.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from served import Model, Served
from wire_errors import (
    COUNTING,
    DIALECTS,
    ENDPOINTS,
    KEY,
    MAX_BODY,
    METHODS,
    ORIGIN,
    PREDICT,
    UNKNOWN,
    Client,
    Row,
    an_unknown_path_is_an_error_in_the_shape_of_its_neighbours,
    name_of,
    walk,
)

from gateway.errors import HTTPError, ModelError
from gateway.plugins import BUILTINS
from gateway.runners.replica import LoadError
from gateway.spec import Endpoint

ROUTES = [
    importlib.import_module(module)
    for name, module in BUILTINS.items()
    if module.startswith("gateway.dialects.") and name not in ("openai_chat", "openai_embeddings")  # are served anyway
]


def raises(inputs: Any) -> None:
    raise ModelError("its code raised an error")


def refuses(inputs: Any) -> None:
    raise HTTPError(422, "not like this", code="odd", param="p")


async def forever(inputs: Any) -> None:
    await asyncio.Event().wait()


def model(script: Callable[[Any], Any], **spec: Any) -> Model:
    return Model(dict.fromkeys((*METHODS, "predict"), script), slotless=COUNTING, **spec)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    models = {
        "raises": model(raises),
        "refuses": model(refuses),
        "shapeless": model(lambda inputs: 1.5),
        "slow": model(forever, limits={"request_timeout": 0.05, "first_item_timeout": 0.05}),
        "full": model(forever, limits={"slots": 1, "max_queue": 0}),
        "loading": model(forever, loads=[asyncio.Event()]),
        "broken": model(forever, loads=[LoadError("it cannot be", fatal=True)]),
        "narrow": Model({"predict": lambda inputs: inputs}),
    }
    settings = {"api_key": KEY, "allowed_origins": (ORIGIN,)}
    for each in models.values():
        each.spec["limits"] = {"max_body": MAX_BODY, **each.spec.get("limits", {})}
    with Served(models, plugins=ROUTES, **settings) as served:
        yield Client(served.url)


@pytest.mark.parametrize(("row", "path"), walk([*ENDPOINTS, PREDICT]), ids=name_of)
def test_every_route_says_what_is_wrong_in_the_shape_of_its_path(client: Client, row: Row, path: str) -> None:
    row(client, path)


@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_path_is_an_error_in_the_shape_of_its_neighbours(client: Client, path: str) -> None:
    an_unknown_path_is_an_error_in_the_shape_of_its_neighbours(client, path)


def test_every_route_has_an_example_to_send() -> None:
    """Or this file would not know what to send to it."""
    for endpoint in ENDPOINTS.values():
        assert isinstance(endpoint, Endpoint)
        dialect = DIALECTS[endpoint.dialect]
        assert dialect.body == "form" or "example" in dialect.request_schema, endpoint.path
