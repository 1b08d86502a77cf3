"""A call of a model that may not be ready: who sits at the terminal is told that it loads, and waits for it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import quote

import click

from .client import Client, Refused

LOADS = ("loading", "restarting")
LONGEST_PAUSE = 5.0  # seconds; a load may be over long before it was expected to be


@contextmanager
def answered(client: Client, name: str, path: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
    """The answer of a model, to be read as it comes; as long as it loads it is asked again.

    Raises:
        Refused: it is not ready, and does not load.
    """
    state, on_demand = _state(client, name)
    told = state in LOADS or on_demand  # a call makes such a one load
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
                time.sleep(min(error.retry_after, LONGEST_PAUSE))  # as the gateway says
        yield response


def _tell(name: str) -> None:
    click.echo(f"{name} is loading …", err=True)


def _state(client: Client, name: str) -> tuple[str, bool]:
    """How the gateway says that the model is, nothing where it does not say; and whether its next call loads it."""
    try:
        found = client.get(f"/models/{quote(name)}/v1/models")["data"][0]
        return str(found["status"]), bool(found.get("loads_on_demand"))
    except (click.ClickException, LookupError, TypeError, ValueError, AttributeError):
        return "", False
