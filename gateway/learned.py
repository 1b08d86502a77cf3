"""What is found out from what a model says of itself: once each time that it says so, and at nobody else's cost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from .hosted import HostedModel
    from .spec import Capabilities, ModelSpec

log = logging.getLogger("gateway.learned")
T = TypeVar("T")


class Learned(Generic[T]):
    """What `find` makes of a model, kept while its spec and its capabilities are the same ones.

    A schema may say anything. If it is more than `find` can take, there is `otherwise()` instead, and a line in the
    log: what all models are shown on must not fail by one.
    """

    def __init__(self, what: str, find: Callable[[HostedModel], T], otherwise: Callable[[], T]) -> None:
        self._what, self._find, self._otherwise = what, find, otherwise
        self._known: WeakKeyDictionary[HostedModel, tuple[ModelSpec, Capabilities, T]] = WeakKeyDictionary()

    def __call__(self, model: HostedModel) -> T:
        known = self._known.get(model)
        if known is not None and known[0] is model.spec and known[1] is model.capabilities:
            return known[2]
        try:
            found = self._find(model)
        except Exception:
            tell_left_out(model, self._what)
            found = self._otherwise()
        self._known[model] = model.spec, model.capabilities, found
        return found


def tell_left_out(model: HostedModel, what: str) -> None:
    """A line in the log, with the exception that is being handled."""
    log.warning("%s of '%s' is left out", what, model.name, exc_info=True, extra={"model": model.name})
