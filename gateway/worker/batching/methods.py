"""Find the methods of a class that take batches, and read their signatures.

`predict_batch` serves predict, `embeddings_batch` embeddings, and so on for every method of a route.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from ..loading.descriptor import COUNTING, Kind, ModelDefinitionError, hints_of, kind_of
from ..loading.misspelt_methods import cannot_be_called, without_self

SUFFIX = "_batch"


@dataclass(frozen=True, slots=True)
class BatchMethod:
    """A method that takes a list of inputs and returns a list of results, bound to the instance."""

    name: str
    function: Callable[..., Any]
    kind: Kind
    takes_requests: bool = False  # its second parameter gets the Request of each input
    item_type: type | None = None  # the Pydantic model of an input
    returns: Any = inspect.Signature.empty  # the annotation of a result

    @property
    def serves(self) -> str:
        return self.name.removesuffix(SUFFIX)


def batch_names(endpoint_methods: Iterable[str]) -> frozenset[str]:
    """Return the names that such methods may have."""
    return frozenset(f"{name}{SUFFIX}" for name in {*endpoint_methods, "predict"} - COUNTING)


def used(model: Any, endpoint_methods: Collection[str], has_size: bool) -> frozenset[str]:
    """Return the served methods that are answered by a batch method of the class.

    Without a batch size the class's own method for single inputs is preferred.
    """
    names = {name for name in batch_names(endpoint_methods) if callable(getattr(model, name, None))}
    served = {name.removesuffix(SUFFIX) for name in names}
    return frozenset(name for name in served if has_size or not callable(getattr(model, name, None)))


def batch_method(model: Any, serves: str) -> BatchMethod:
    """Inspect the batch method of a class that serves a method.

    Raises:
        ModelDefinitionError: it cannot be called with a list.
    """
    name = f"{serves}{SUFFIX}"
    function = getattr(model, name)
    if told := cannot_be_called(name, function):
        raise ModelDefinitionError(told)
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    hints = hints_of(function)
    takes_requests = len(parameters) == 2 and _is_requests(parameters[1], hints)
    if not parameters or (len(parameters) > 1 and not takes_requests):
        raise ModelDefinitionError(
            f"`{name}` gets a list of inputs, and the list of their requests if its second parameter is named "
            f"`requests`. Got: {signature} {without_self(name, function)}".rstrip()
        )
    item = _inner(hints.get(parameters[0].name))
    returns = _inner(hints.get("return"), typing.Any)
    return BatchMethod(name, function, kind_of(function), takes_requests, _pydantic(item), returns)


def _is_requests(parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    request = getattr(sys.modules.get("starlette.requests"), "Request", None)
    hint = _inner(hints.get(parameter.name))
    return parameter.name == "requests" or (
        request is not None and isinstance(hint, type) and issubclass(hint, request)
    )


def _inner(hint: Any, default: Any = None) -> Any:
    """Return X of list[X] or another sequence."""
    arguments = typing.get_args(hint)
    return arguments[0] if len(arguments) == 1 else default


def _pydantic(hint: Any) -> type | None:
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return hint if base is not None and isinstance(hint, type) and issubclass(hint, base) else None
