"""Callers and their permissions: the holder of a key, or a caller that a plugin's `authorize` accepts.

Everything that a caller gets about models is filtered by its `sees`, which `Catalog.seen` and `Catalog.find` apply.
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
    """A caller, as `authorize` may return it. A plain name is `Caller(name)`: it may use every model and nothing else.

    `models` are patterns of model ids, such as "chat-*". `rpm` limits calls per minute and `max_inflight` concurrent
    calls; both are counted for the name, and None means no limit. Its running requests end at `expires`.

    Raises:
        ValueError: a field is invalid. A single string in place of several is refused: its letters would be patterns.
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
        """The owner of what it stores. Names from plugins and ids of keys never collide."""
        return f"caller:{self.name}"

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    def sees(self, model: str) -> bool:
        """Whether a model exists for this caller."""
        return _matches(model, self.models)

    def has_expired(self, now: datetime.datetime) -> bool:
        return self.expires is not None and now >= self.expires


@functools.lru_cache(10_000)  # checked for every model in each request
def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def _texts(name: str, value: Any, allowed: Collection[str] = ()) -> tuple[str, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise ValueError(f"{name} must be a collection of strings, as in ({value!r},)")
    texts = tuple(value)
    if not all(isinstance(item, str) for item in texts):
        raise ValueError(f"{name} must be strings")
    if allowed and (wrong := [item for item in texts if item not in allowed]):
        raise ValueError(f"{name} may hold {', '.join(allowed)}, not {', '.join(wrong)}")
    return texts


NOBODY = Caller("", scopes=(), models=())  # a caller without a key: it may use open paths only, and sees no model


def everybody(model: str) -> bool:
    """Return True for every model: the view of the operator."""
    return True
