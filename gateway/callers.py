"""Who is calling, and what that one may do: the holder of a key, or somebody whom a plugin's `authorize` lets in.

Everything that a caller is told of models passes through its `sees`, which `Hub.seen` and `Hub.find` ask.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Scope = Literal["infer", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = ("infer", "metrics", "admin")


@dataclass(frozen=True, slots=True)
class Caller:
    """What `authorize` may return. A plain name is `Caller(name)`: it uses every model, and may do nothing else.

    `models` are patterns of ids, as in "chat-*"; `rpm` calls a minute and `max_inflight` calls at once are counted
    for the name; None is no limit. What it has under way ends at `expires`.

    Raises:
        ValueError: a field makes no sense. One text in place of several is refused: its letters would be patterns.
    """

    name: str
    _: KW_ONLY
    scopes: tuple[str, ...] = ("infer",)
    models: tuple[str, ...] = ("*",)
    rpm: int | None = None
    max_inflight: int | None = None
    expires: datetime.datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", _texts("scopes", self.scopes, SCOPES))
        object.__setattr__(self, "models", _texts("models", self.models))
        for name in ("rpm", "max_inflight"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ValueError("expires must be a time with an offset, as in datetime.now(UTC)")

    @property
    def owner(self) -> str:
        """Whose the things are that it leaves behind. Names of plugins and keys are never taken for each other."""
        return f"caller:{self.name}"

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    def sees(self, model: str) -> bool:
        """Whether a model exists for it."""
        return _matches(model, self.models)

    def has_expired(self, now: datetime.datetime) -> bool:
        return self.expires is not None and now >= self.expires


@functools.lru_cache(10_000)  # each request of each key asks it for every model
def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def _texts(name: str, value: Any, allowed: Collection[str] = ()) -> tuple[str, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise ValueError(f"{name} must be several texts, as in ({value!r},)")
    texts = tuple(value)
    if not all(isinstance(item, str) for item in texts):
        raise ValueError(f"{name} must be texts")
    if allowed and (wrong := [item for item in texts if item not in allowed]):
        raise ValueError(f"{name} may hold {', '.join(allowed)}, not {', '.join(wrong)}")
    return texts


NOBODY = Caller("", scopes=(), models=())  # asks without a key what may be asked without one, and sees no model


def everybody(model: str) -> bool:
    """Sees every model: whoever operates the gateway."""
    return True
