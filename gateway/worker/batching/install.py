"""Let the methods of a class that take batches answer the calls of single inputs. Done once, when a model loads.

If the number of slots results from the batch size, slots are places in the queue of the next batches, and must not let
the code run more often at once. So the methods without batches take turns with the batches.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

from ...spec import Batching, ModelSpec
from ...wording import few
from ..bodies.failures import say
from ..loading.descriptor import Descriptor, Method, ModelDefinitionError, readers_of
from .methods import SUFFIX, BatchMethod, batch_method
from .runner import Batcher
from .work import Work

NONE = (
    "batch_size is set, but the class has no method for batches: write predict_batch(self, inputs), which gets a list "
    "of inputs and returns a list with a result for each, or remove batch_size"
)


def install(
    model: Any, found: Descriptor, served: Collection[str], spec: ModelSpec, before: Batcher | None = None
) -> Descriptor:
    """Return the descriptor with methods for single inputs in place of the batch methods that serve `served`.

    `before` are the batches of the class whose code has been replaced.

    Raises:
        ModelDefinitionError: a method cannot be called with a list, or a setting names a method that does not exist.
    """
    settings = spec.batching
    if spec.parity == "strict":
        if settings.size is not None:
            raise ModelDefinitionError('batch_size has no effect with truss_parity = "strict", which has no batches')
        return found
    if settings.size is not None and not served:
        raise ModelDefinitionError(" ".join((NONE, *(each.text for each in found.asked))))
    if in_vain := settings.in_vain:
        say(f"WARNING gateway: no effect without batch_size: {', '.join(in_vain)}")
    if not served:
        return found
    if settings.size is None:
        names = ", ".join(f"{name}{SUFFIX}" for name in sorted(served))
        say(f"{names}: called with one input at a time, because batch_size is not set")
    cost, key = (_named(model, name, settings) for name in ("cost", "key"))
    concurrency = settings.concurrency if settings.size is not None else spec.limits.slots
    batcher = before or Batcher(settings, concurrency)
    methods = dict(found.methods)
    for name in sorted(served):
        method = batch_method(model, name)
        work = Work.of_batch(method, settings.size or 1, cost, key)
        methods[name] = _single(method, work, batcher)
    if "predict" in served and found.preprocess is None:
        methods["predict"] = replace(methods["predict"], readers=readers_of(model))
    if settings.size is not None and not settings.has_own_slots:
        for name, single in found.methods.items():
            if name not in served and single.needs_slot:
                methods[name] = replace(single, function=batcher.serve(Work.of_single(single)), kind="async")
    return replace(found, methods=methods, batcher=batcher)


def _single(method: BatchMethod, work: Work, batcher: Batcher) -> Method:
    """Return the method that passes each input to a batch."""
    return Method(
        name=method.serves,
        function=batcher.serve(work),
        kind="async",
        takes="inputs_and_request" if method.takes_requests else "inputs",
        input_type=method.item_type if work.form is None else None,
        returns=method.returns,
    )


def _named(model: Any, setting: str, settings: Batching) -> Callable[[Any], Any] | None:
    """Return the method that a setting names."""
    if (name := getattr(settings, setting)) is None or settings.size is None:
        return None
    function = getattr(model, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    have = sorted(_methods(model))
    close = difflib.get_close_matches(name, have, n=1)
    fix = f"did you mean {close[0]}?" if close else f"it has {few(have, 5) or 'no methods'}"
    raise ModelDefinitionError(f"batch_{setting} names `{name}`, but the class has no such method: {fix}")


def _methods(model: Any) -> Iterator[str]:
    for name in dir(type(model)):
        if not name.startswith("_") and not name.endswith(SUFFIX) and callable(getattr(model, name, None)):
            yield name
