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
    told = _state(client, name) in ("unloaded", *LOADS)  # a call makes one load that is not
    if told:
        _tell(name)
    with ExitStack() as stack:
        while True:
            try:
                response = stack.enter_context(client.post(path, body))
                break
            except Refused as error:
                if error.status != 503 or _state(client, name) not in LOADS:
                    raise
                if not told:
                    told = True
                    _tell(name)
                time.sleep(min(error.retry_after, LONGEST_PAUSE))  # as the gateway says
        yield response


def _tell(name: str) -> None:
    click.echo(f"{name} is loading …", err=True)


def _state(client: Client, name: str) -> str:
    """How the gateway says that the model is; nothing where it does not say."""
    try:
        return str(client.get(f"/models/{quote(name)}/v1/models")["data"][0]["status"])
    except (click.ClickException, LookupError, TypeError, ValueError):
        return ""
