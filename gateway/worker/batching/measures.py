"""The cost and the key of each item, from the methods that `batch_cost` and `batch_key` name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...errors import InvalidOutput
from ...wording import a_type
from ..calls.threads import Pool
from ..loading.descriptor import kind_of
from .work import Work

Measured = tuple[float, Any]  # cost and key


class Measures:
    """`pool` has one thread: such methods often use a tokenizer, and items stay in order."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of(self, work: Work, values: list[Any]) -> list[Measured]:
        """Return cost and key of each item.

        Raises:
            InvalidOutput: a method returned something that is none.
            Exception: a method raised.
        """
        if work.cost is None and work.key is None:
            return [(1.0, None)] * len(values)
        costs = await self._each(work.cost, values, 1.0)
        keys = await self._each(work.key, values, None)
        return [(_cost(cost, work.cost), _key(key, work.key)) for cost, key in zip(costs, keys, strict=True)]

    async def _each(self, function: Callable[[Any], Any] | None, values: list[Any], default: Any) -> list[Any]:
        if function is None:
            return [default] * len(values)
        if kind_of(function) == "async":
            return [await function(value) for value in values]
        return await self._pool.run(lambda: [function(value) for value in values])


def _cost(value: Any, function: Any) -> float:
    try:
        cost = float(value)
    except (TypeError, ValueError, OverflowError):
        cost = math.nan
    if not math.isfinite(cost) or cost < 0:
        raise InvalidOutput(f"batch_cost: {_name(function)} returned {a_type(value)}, not a number from 0")
    return cost


def _key(value: Any, function: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        raise InvalidOutput(
            f"batch_key: {_name(function)} returned {a_type(value)}, which cannot be compared quickly; return a text, "
            "a number or a tuple"
        ) from None
    return value


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))
