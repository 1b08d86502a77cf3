"""Why a model takes no calls, for who sits at the machine of the gateway: clients are not told what its code raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .client import Refused

if TYPE_CHECKING:
    from ..settings import Settings


@contextmanager
def explained(settings: Settings, url: str | None, name: str) -> Iterator[None]:
    """An error that says that the model is not ready gets the reason, where the gateway's admin socket gives it."""
    try:
        yield
    except Refused as error:
        if error.status != 503 or not (reason := _reason(settings, url, name)):
            raise
        raise click.ClickException(f"{error.message}{reason}") from error


def _reason(settings: Settings, url: str | None, name: str) -> str:
    from .operator import Operator

    try:
        models = Operator.of(settings, url).ask("GET", "/admin/models")["models"]
    except click.ClickException:
        return ""
    found = next((model for model in models if model["id"] == name and model["reason"]), None)
    if found is None:
        return ""
    there = f" --url {url}" if url else ""
    return f"\n{name} is {found['state']}: {found['reason']}\nIts log: gateway logs {name}{there}"
