"""gateway keys add, list, change, rotate, revoke"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .tables import tell

if TYPE_CHECKING:
    from ..access.keys import Key

_yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation when several keys have that name.")


@click.group("keys")
def command() -> None:
    """Add, list, change, rotate and revoke API keys."""


@command.command("add")
@click.argument("name")
@click.option(
    "--models", metavar="LIST", help='Model ids or patterns that it may use, as in "chat-*,embed".  [default: all]'
)
@click.option("--scopes", metavar="LIST", default="infer", show_default=True, help="Any of infer, metrics, admin.")
@click.option("--rpm", type=click.IntRange(1), metavar="N", help="Maximum calls per minute.")
@click.option("--max-inflight", type=click.IntRange(1), metavar="N", help="Maximum concurrent calls.")
@click.option("--expires", metavar="TIME", help="A duration such as 90d or 12h, or a date such as 2027-01-31.")
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
    """Create a key and print it, once. Only its hash is stored."""
    from ..access import keys
    from ..telemetry.printable import one_line
    from .key_changes import told

    wanted = _scopes(scopes)
    settings = options.settings_of(config)
    file = settings.gateway.keys_file
    limits: dict[str, Any] = {"rpm": rpm, "max_inflight": max_inflight, "expires": _time(expires)}
    with keys.changing(file):
        found = keys.read(file)
        key, text = keys.create(name, found, scopes=wanted, models=_list(models or "*"), **limits)
        keys.write(file, (*found, key))
    tell(text)
    tell(f"Key {key.id} of {one_line(name)} is in {file}; this is the only time it is shown.", err=True)
    tell(told(settings), err=True)


@command.command("list")
@options.config
@options.as_json
def list_(config: Path | None, as_json: bool) -> None:
    """List the keys, with owners and permissions. The key itself cannot be shown again."""
    from ..access import keys
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


class _LimitOrNone(click.ParamType):  # type: ignore[type-arg]  # only some versions of click take one
    """An integer of at least 1, or "none" for no limit."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "none":
            return value
        return click.IntRange(1).convert(value, param, ctx)


@command.command("change")
@click.argument("which", metavar="ID_OR_NAME")
@click.option("--models", metavar="LIST", help="Model ids or patterns that it may use.")
@click.option("--scopes", metavar="LIST", help="Any of infer, metrics, admin.")
@click.option("--rpm", type=_LimitOrNone(), metavar="N|none", help="Maximum calls per minute.")
@click.option("--max-inflight", type=_LimitOrNone(), metavar="N|none", help="Maximum concurrent calls.")
@click.option("--expires", metavar="TIME|none", help="A duration such as 90d or 12h, or a date such as 2027-01-31.")
@_yes
@options.config
def change(which: str, models: str | None, scopes: str | None, yes: bool, config: Path | None, **limits: Any) -> None:
    """Change what a key may do. Options that are not given stay as they are. The key itself does not change."""
    from ..access import keys
    from .key_changes import told

    new: dict[str, Any] = {name: None if value == "none" else value for name, value in limits.items() if value}
    if "expires" in new:
        new["expires"] = _time(new["expires"])
    if models is not None:
        new["models"] = _list(models)
    if scopes is not None:
        new["scopes"] = _scopes(scopes)
    if not new:
        raise click.UsageError("nothing to change; give --models, --scopes, --rpm, --max-inflight or --expires")
    settings = options.settings_of(config)
    file = settings.gateway.keys_file
    with keys.changing(file):
        found = keys.read(file)
        chosen = keys.those(found, which)
        _confirm("Change", chosen, yes)
        keys.write(file, [replace(key, **new) if key in chosen else key for key in found])
    tell(f"Changed {_named(chosen)}. {told(settings)}")


@command.command("rotate")
@click.argument("which", metavar="ID_OR_NAME")
@click.option(
    "--grace",
    metavar="TIME",
    default="24h",
    show_default=True,
    help="How long the old key stays valid; 0m ends it now.",
)
@options.config
def rotate(which: str, grace: str, config: Path | None) -> None:
    """Replace a key: create a new one and print it, once.

    The new key has the permissions and the stored responses of the old one. The old key ends after --grace.
    """
    from ..access import keys
    from .key_changes import told

    end = _time(grace, "--grace")
    assert end is not None
    settings = options.settings_of(config)
    file = settings.gateway.keys_file
    with keys.changing(file):
        found = keys.read(file)
        chosen = keys.those(found, which)
        if len(chosen) > 1:
            raise click.ClickException(f"several keys are named '{which}': {_named(chosen)}; choose one by its id")
        (old,) = chosen
        new, text = keys.successor(old)
        ends = end if old.expires is None else min(end, old.expires)
        keys.write(file, (*(replace(key, expires=ends) if key == old else key for key in found), new))
    tell(text)
    tell(f"Key {new.id} replaces {old.id}, which ends {ends:%Y-%m-%d %H:%M} UTC. {told(settings)}", err=True)


@command.command("revoke")
@click.argument("which", metavar="ID_OR_NAME")
@_yes
@options.config
def revoke(which: str, yes: bool, config: Path | None) -> None:
    """Revoke a key by its id, or all keys with that name."""
    from ..access import keys
    from .key_changes import told

    settings = options.settings_of(config)
    file = settings.gateway.keys_file
    with keys.changing(file):
        before = keys.read(file)
        gone = keys.those(before, which)
        _confirm("Revoke", gone, yes)
        keys.write(file, keys.without(before, which))
    tell(f"Revoked {_named(gone)}. {told(settings)}")


def _confirm(verb: str, chosen: Sequence[Key], yes: bool) -> None:
    """Ask for confirmation before several keys are changed: perhaps only one was meant."""
    if len(chosen) > 1 and not yes:
        click.confirm(f"{verb} {len(chosen)} keys: {_named(chosen)}?", abort=True, err=True)


def _named(chosen: Sequence[Key]) -> str:
    from ..telemetry.printable import one_line

    return ", ".join(f"{key.id} ({one_line(key.name)})" for key in chosen)


def _scopes(text: str) -> tuple[str, ...]:
    from ..access.callers import SCOPES

    wanted = _list(text)
    if wrong := [scope for scope in wanted if scope not in SCOPES]:
        raise click.BadParameter(f"unknown: {', '.join(wrong)} (have: {', '.join(SCOPES)})", param_hint="--scopes")
    return wanted


def _file(config: Path | None) -> Path:
    return options.settings_of(config).gateway.keys_file


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_SPAN = re.compile(r"(\d+)([mhdw])").fullmatch
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _time(text: str | None, option: str = "--expires") -> datetime.datetime | None:
    if text is None:
        return None
    if match := _SPAN(text):
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        return now + datetime.timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            "use a duration such as 90d, or a date such as 2027-01-31", param_hint=option
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
