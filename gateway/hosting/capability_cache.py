"""A cache for values that are computed from the capabilities of a model.

A value is computed once for each spec and capabilities. If that fails, only this model is affected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from ..spec import Capabilities, ModelSpec
    from .model import HostedModel

log = logging.getLogger("gateway.learned")
T = TypeVar("T")


class Learned(Generic[T]):
    """The result of `find(model)`, cached while the model's spec and capabilities objects stay the same.

    A schema may contain anything. If `find` raises, the result is `otherwise()` and a warning is logged, so that one
    model cannot break a page that shows all models.
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
    """Log a warning with the exception that is being handled."""
    log.warning("%s of '%s' is left out", what, model.name, exc_info=True, extra={"model": model.name})
