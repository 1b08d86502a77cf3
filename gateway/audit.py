"""Who changed what while the gateway ran: a line of the log for every load, unload and reload, and for changes of keys.

They are of the logger `gateway.audit`, and are written whatever the level of the log is.
"""

from __future__ import annotations

import logging
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .printable import quoted

log = logging.getLogger("gateway.audit")


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


def record(actor: Actor | str, action: str, *, model: str | None = None, outcome: str = "done") -> None:
    """`actor` says who it was in words, `outcome` what came of it."""
    log.setLevel(logging.INFO)
    what = f"{action} of model {quoted(model)}" if model else action
    extra = {"actor": str(actor), "action": action, "outcome": outcome} | ({"model": model} if model else {})
    if isinstance(actor, Actor):
        fields = {name: getattr(actor, name) for name in ("key", "key_id", "address", "request_id")}
        extra |= {name: value for name, value in fields.items() if value is not None}
    log.info("audit: %s by %s: %s", what, actor, outcome, extra=extra)


@contextmanager
def audited(actor: Actor | str, action: str, model: str, *, with_reason: bool = True) -> Iterator[None]:
    """Record what the block does, and how it ends; without the reason where another line of the log has it."""
    try:
        yield
    except BaseException as error:
        reason = f": {str(error) or type(error).__name__}" if with_reason else ""
        record(actor, action, model=model, outcome=f"failed{reason}")
        raise
    record(actor, action, model=model)


def user(uid: int) -> str:
    """A user of this machine in words."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
