"""Why a model takes no calls, for who sits at the machine of the gateway: clients are not told what its code raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ..wording import in_state
from .client import BrokenOff, Refused

if TYPE_CHECKING:
    from ..settings import Settings


@contextmanager
def explained(settings: Settings, url: str | None, name: str) -> Iterator[None]:
    """An error that says that the model is not ready gets the reason, where the gateway's admin socket gives it.

    An answer that broke off has none with it: its model's log has.
    """
    try:
        yield
    except Refused as error:
        if error.status != 503 or not (reason := _reason(settings, url, name, error.message)):
            raise
        raise click.ClickException(f"{error.message}{reason}") from error
    except BrokenOff as error:
        raise click.ClickException(f"{error.message}; what its model raised: {_logs(name, url)}") from error


def _reason(settings: Settings, url: str | None, name: str, message: str) -> str:
    """Of the model that is called so, or that the message names: `name` may be an alias of it."""
    from .operator import Operator

    try:
        models = Operator.of(settings, url).ask("GET", "/admin/models")["models"]
    except click.ClickException:
        return ""
    named = (model for model in models if model["id"] == name or f"'{model['id']}'" in message)
    if (found := next((model for model in named if model["reason"]), None)) is None:
        return ""
    name = found["id"]
    return f"\n{name} {in_state(found['state'])}: {found['reason']}\nIts log: {_logs(name, url)}"


def _logs(name: str, url: str | None) -> str:
    return f"gateway logs {name}" + (f" --url {url}" if url else "")
