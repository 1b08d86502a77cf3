"""The audit log: who changed what.

It has a line for starts and stops, for each load, unload and reload, for models that appear or disappear, and for
changes of settings, keys and the certificate. Refused attempts are logged too. The logger is `gateway.audit`; it writes
at every log level.
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
    """The sender of an HTTP command: `words` for people, the other fields for machines (None if not known)."""

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
    """Write an audit line. `actor` is who caused the action, `outcome` its result, `more` additional fields."""
    log.setLevel(logging.INFO)
    what = f"{action} of model {quoted(model)}" if model else action
    extra = {"actor": str(actor), "action": action, "outcome": outcome, **more} | ({"model": model} if model else {})
    if isinstance(actor, Actor):
        fields = {name: getattr(actor, name) for name in ("key", "key_id", "address", "request_id")}
        extra |= {name: value for name, value in fields.items() if value is not None}
    log.log(level, "audit: %s by %s: %s", what, actor, outcome, extra=extra)


def refused(actor: Actor | str, action: str, reason: str, *, model: str | None = None, but: str = "") -> None:
    """Record an action that failed or was refused; `but` says what stays as it was."""
    outcome = f"failed, but {but}: {reason}" if but else f"failed: {reason}"
    record(actor, action, model=model, outcome=outcome, level=logging.WARNING)


@dataclass(slots=True)
class Outcome:
    """The outcome of a command that was not refused."""

    words: str = DONE


@contextmanager
def audited(actor: Actor | str, action: str, model: str) -> Iterator[Outcome]:
    """Record the action in the block and how it ends.

    The block may change `Outcome.words`, for example to "nothing to do".
    """
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
    """Return the name of a user of this machine, in words."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
