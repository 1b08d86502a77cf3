"""Why a model is not ready, for users on the gateway's machine. Clients do not get exceptions of a model's code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ..wording import in_state
from .client import BrokenOff, Refused

if TYPE_CHECKING:
    from ..settings.schema import Settings


@contextmanager
def explained(settings: Settings, url: str | None, name: str) -> Iterator[None]:
    """Add the reason to an error that says that the model is not ready, if the gateway's admin socket gives one.

    For an answer that broke off, point to the model's log.
    """
    try:
        yield
    except Refused as error:
        if error.status != 503 or not (reason := _reason(settings, url, name, error.message)):
            raise
        raise click.ClickException(f"{error.message}{reason}") from error
    except BrokenOff as error:
        raise click.ClickException(
            f"{error.message}; for the exception of the model, see: {_logs(name, url)}"
        ) from error


def _reason(settings: Settings, url: str | None, name: str, message: str) -> str:
    """Return the reason of the model with this name, or of the one that the message names: `name` may be an alias."""
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
