"""What runs a batch: a method that takes lists, or one that takes single inputs, as a batch of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..bodies import truss
from ..loading.descriptor import Kind, Method
from .isolation import checked
from .items import Form, form_of
from .methods import BatchMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`serves` is the served method, `name` that of the method of the class that is called."""

    serves: str
    name: str
    function: Callable[..., Any]
    kind: Kind
    size: int
    is_batched: bool  # the method takes lists
    takes_requests: bool = False
    form: Form | None = None
    item_type: type | None = None  # of the parts of a request; whole requests have been validated before
    cost: Callable[[Any], Any] | None = None
    key: Callable[[Any], Any] | None = None

    @staticmethod
    def of_batch(
        method: BatchMethod, size: int, cost: Callable[[Any], Any] | None, key: Callable[[Any], Any] | None
    ) -> Work:
        return Work(
            serves=method.serves,
            name=method.name,
            function=method.function,
            kind=method.kind,
            size=size,
            is_batched=True,
            takes_requests=method.takes_requests,
            form=form_of(method.serves),
            item_type=method.item_type,
            cost=cost,
            key=key,
        )

    @staticmethod
    def of_single(method: Method) -> Work:
        """A method without lists, which takes its turn between the batches of the others. An item is its arguments."""
        return Work(
            serves=method.name,
            name=method.name,
            function=method.function,
            kind=method.kind,
            size=1,
            is_batched=False,
        )

    def split(self, value: Any) -> list[Any] | None:
        """Return the items of a request that contains a list; None if the request is one item.

        Raises:
            BadInput: a part does not fit the type of the method's items.
        """
        if self.form is None or not isinstance(value, dict) or (parts := self.form.split(value)) is None:
            return None
        if self.item_type is not None:
            return [truss.validate(part, self.item_type) for part in parts]
        return parts

    def join(self, results: list[Any]) -> Any:
        return results if self.form is None else self.form.join(results)

    def arguments(self, values: list[Any], requests: list[Any]) -> tuple[Any, ...]:
        if not self.is_batched:
            return values[0]  # type: ignore[no-any-return]
        return (values, requests) if self.takes_requests else (values,)

    def results(self, found: Any, count: int) -> list[Any]:
        """Return the result of each item.

        Raises:
            Unusable: the method returned something else than a list of the same length.
        """
        return checked(self.name, found, count) if self.is_batched else [found]
