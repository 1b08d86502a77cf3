"""Call a model that may not be ready: tell the user that it is loading, and wait."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import quote

import click

from .client import Client, Refused
from .tables import tell

LOADS = ("loading", "restarting")
LONGEST_PAUSE = 5.0  # seconds; a load may end long before the estimate


@contextmanager
def answered(client: Client, name: str, path: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
    """Yield the response of a model, to be read as it arrives. While the model loads, the request is repeated.

    Raises:
        Refused: the model is not ready and is not loading.
    """
    state, on_demand = _state(client, name)
    told = state in LOADS or on_demand  # a call loads a model that loads on demand
    if told:
        _tell(name)
    with ExitStack() as stack:
        while True:
            try:
                response = stack.enter_context(client.post(path, body))
                break
            except Refused as error:
                if error.status != 503 or _state(client, name)[0] not in LOADS:
                    raise
                if not told:
                    told = True
                    _tell(name)
                time.sleep(min(error.retry_after, LONGEST_PAUSE))  # as the gateway asks in Retry-After
        yield response


def _tell(name: str) -> None:
    tell(f"{name} is loading …", err=True)


def _state(client: Client, name: str) -> tuple[str, bool]:
    """Return the model's state as the gateway reports it ("" if unknown), and whether its next call loads it."""
    try:
        found = client.get(f"/models/{quote(name)}/v1/models")["data"][0]
        return str(found["status"]), bool(found.get("loads_on_demand"))
    except (click.ClickException, LookupError, TypeError, ValueError, AttributeError):
        return "", False
