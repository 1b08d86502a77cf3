"""gateway keys add, list, revoke"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import click

from . import options


@click.group("keys")
def command() -> None:
    """Add, list and revoke API keys."""


@command.command("add")
@click.argument("name")
@click.option("--models", metavar="LIST", help='Ids or patterns that it may use, as in "chat-*,embed".  [default: all]')
@click.option("--scopes", metavar="LIST", default="infer", show_default=True, help="Of infer, metrics, admin.")
@click.option("--rpm", type=click.IntRange(1), metavar="N", help="Calls a minute.")
@click.option("--max-inflight", type=click.IntRange(1), metavar="N", help="Calls at once.")
@click.option("--expires", metavar="TIME", help="A span such as 90d or 12h, or a date such as 2027-01-31.")
@options.config
def add(
    name: str,
    models: str | None,
    scopes: str,
    rpm: int | None,
    max_inflight: int | None,
    expires: str | None,
    config: Path | None,
) -> None:
    """Make a key and print it, once. Only its hash is kept."""
    from .. import keys
    from ..callers import SCOPES
    from ..printable import one_line

    wanted = _list(scopes)
    if wrong := [scope for scope in wanted if scope not in SCOPES]:
        raise click.BadParameter(f"unknown: {', '.join(wrong)} (have: {', '.join(SCOPES)})", param_hint="--scopes")
    file = _file(config)
    limits: dict[str, Any] = {"rpm": rpm, "max_inflight": max_inflight, "expires": _time(expires)}
    key, text = keys.create(name, scopes=wanted, models=_list(models or "*"), **limits)
    with keys.changing(file):
        keys.write(file, (*keys.read(file), key))
    click.echo(text)
    click.echo(f"Key {key.id} of {one_line(name)} is in {file}; this is the only time that it is shown.", err=True)
    click.echo("A running gateway takes it up within half a minute, or at once on SIGHUP.", err=True)


@command.command("list")
@options.config
@options.as_json
def list_(config: Path | None, as_json: bool) -> None:
    """Print the keys: whose they are and what they may do. Nobody can print a key itself."""
    from .. import keys
    from .tables import show, show_json, table

    now = datetime.datetime.now(datetime.UTC)
    found = keys.read(_file(config))
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "scopes": list(key.scopes),
            "models": list(key.models),
            "rpm": key.rpm,
            "max_inflight": key.max_inflight,
            "expires": key.expires.isoformat() if key.expires else None,
            "expired": key.has_expired(now),
        }
        for key in found
    ]
    if as_json:
        show_json(rows)
        return
    heads = ("id", "name", "scopes", "models", "a minute", "at once", "expires")
    cells = [
        (
            key.id,
            key.name,
            ", ".join(key.scopes),
            ", ".join(key.models),
            str(key.rpm or ""),
            str(key.max_inflight or ""),
            (f"{key.expires:%Y-%m-%d %H:%M}" + (" (over)" if key.has_expired(now) else "")) if key.expires else "",
        )
        for key in found
    ]
    show(table(heads, cells))


@command.command("revoke")
@click.argument("which", metavar="ID_OR_NAME")
@options.config
def revoke(which: str, config: Path | None) -> None:
    """Take a key away: the one of that id, or all of that name."""
    from .. import keys
    from ..printable import one_line

    file = _file(config)
    with keys.changing(file):
        before = keys.read(file)
        after = keys.without(before, which)
        keys.write(file, after)
    gone = ", ".join(f"{key.id} ({one_line(key.name)})" for key in before if key not in after)
    click.echo(f"Revoked {gone}. A running gateway follows within half a minute, or at once on SIGHUP.")


def _file(config: Path | None) -> Path:
    return options.settings_of(config).gateway.keys_file


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_SPAN = re.compile(r"(\d+)([mhdw])").fullmatch
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _time(text: str | None) -> datetime.datetime | None:
    if text is None:
        return None
    if match := _SPAN(text):
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        return now + datetime.timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("a span such as 90d, or a date such as 2027-01-31", param_hint="--expires") from None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
