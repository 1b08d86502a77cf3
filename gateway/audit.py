"""Who changed what: a line of the log for starts and stops, for every load, unload and reload, for models that come and
go, and for changes of settings, keys and the certificate, with those that were refused.

They are of the logger `gateway.audit`, and are written whatever the level of the log is.
"""

from __future__ import annotations

import asyncio
import logging
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from .printable import quoted

log = logging.getLogger("gateway.audit")
DONE = "done"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who gave an order over HTTP, `words` for people, the rest for machines: None where there is no such thing."""

    words: str
    key: str | None = None
    key_id: str | None = None
    address: str | None = None
    request_id: str | None = None

    def __str__(self) -> str:
        return self.words


def record(
    actor: Actor | str,
    action: str,
    *,
    model: str | None = None,
    outcome: str = DONE,
    level: int = logging.INFO,
    more: Mapping[str, object] = {},
) -> None:
    """`actor` says who it was in words, `outcome` what came of it; `more` are fields of the line beside these."""
    log.setLevel(logging.INFO)
    what = f"{action} of model {quoted(model)}" if model else action
    extra = {"actor": str(actor), "action": action, "outcome": outcome, **more} | ({"model": model} if model else {})
    if isinstance(actor, Actor):
        fields = {name: getattr(actor, name) for name in ("key", "key_id", "address", "request_id")}
        extra |= {name: value for name, value in fields.items() if value is not None}
    log.log(level, "audit: %s by %s: %s", what, actor, outcome, extra=extra)


def refused(actor: Actor | str, action: str, reason: str, *, model: str | None = None, but: str = "") -> None:
    """What was to be changed and could not be, or not so; `but` says what is as it was."""
    outcome = f"failed, but {but}: {reason}" if but else f"failed: {reason}"
    record(actor, action, model=model, outcome=outcome, level=logging.WARNING)


@dataclass(slots=True)
class Outcome:
    """What came of an order that was not refused."""

    words: str = DONE


@contextmanager
def audited(actor: Actor | str, action: str, model: str) -> Iterator[Outcome]:
    """Record what the block does, and how it ends; the block says so where nothing was to be done."""
    outcome = Outcome()
    try:
        yield outcome
    except asyncio.CancelledError:
        record(actor, action, model=model, outcome="given up")
        raise
    except BaseException as error:
        reason = str(error).strip() or type(error).__name__
        refused(actor, action, reason, model=model)
        raise
    record(actor, action, model=model, outcome=outcome.words)


def user(uid: int) -> str:
    """A user of this machine in words."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
