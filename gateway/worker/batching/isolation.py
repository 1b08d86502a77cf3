"""Give every item of a batch its outcome: what to do if the method raises, or returns too few results.

the method                                  outcome
returns a list of the same length           each element; an exception instance is the error of its item
returns anything else                       `invalid_model_output` for all, with both numbers
raises, one item                            its error
runs out of memory, several items           once: both halves are run, each like a batch; the size is remembered
raises, several items, on_error "isolate"   each item is run once by itself
raises, several items, on_error "fail"      the error for all
raises because the device is lost           the error for all
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from ...errors import InvalidOutput
from ...wording import a_type, counted
from ..bodies.failures import Repeated, is_out_of_memory, is_sticky
from .collector import Item

Items = list[Item]


class Unusable(InvalidOutput):
    """A method did not return a list with a result for each item. It would not do so for single items either."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """`attempt` runs some items and gives each its outcome, or raises before it has given one."""

    attempt: Callable[[Items], Awaitable[None]]
    give: Callable[[Item, Any], None]
    wanted: Callable[[Item], bool]  # whether somebody still waits for the item
    isolates: bool
    on_isolated: Callable[[Items, Exception], None]  # a batch is run item by item
    on_halved: Callable[[Items, Exception], None]  # a batch has exceeded the memory

    async def run(self, items: Items, may_halve: bool = True) -> None:
        """Run a batch. Raises only what is no `Exception`, such as a cancellation."""
        try:
            await self.attempt(items)
        except Exception as error:
            if len(items) == 1:
                self.give(items[0], error)
            elif may_halve and (is_out_of_memory(error) or isinstance(error, MemoryError)):
                self.on_halved(items, error)
                middle = (len(items) + 1) // 2
                await self.run(items[:middle], may_halve=False)
                await self.run(items[middle:], may_halve=False)
            elif not self.isolates or is_sticky(error) or isinstance(error, Unusable):
                give_all(self.give, items, error)
            else:
                self.on_isolated(items, error)
                for item in filter(self.wanted, items):
                    await self.run([item])


def give_all(give: Callable[[Item, Any], None], items: Items, error: BaseException) -> None:
    """Give all items the same error."""
    first, *rest = items
    give(first, error)
    for item in rest:
        give(item, error if item.owner is first.owner else Repeated(error, first.owner.request_id))


def checked(name: str, results: Any, expected: int) -> list[Any]:
    """Return the results as a list.

    Raises:
        Unusable: they are something else, or too few or too many.
    """
    told = f"{name} was given {counted(expected, 'input')}"
    is_text = isinstance(results, (str, bytes, bytearray, Mapping))
    if is_text or not isinstance(results, Sized) or not hasattr(results, "__getitem__"):
        raise Unusable(f"{told} and returned {a_type(results)}, not a list with a result for each")
    if len(results) != expected:
        raise Unusable(f"{told} and returned {counted(len(results), 'result')}")
    return list(results)  # type: ignore[call-overload,no-any-return]
