"""What a method is given: the body, read in the way of its route and typed if the method is, and the Request."""

from __future__ import annotations

from typing import Any

from .. import wire
from . import truss
from .adapter import Method
from .request import build
from .run import Run


def read(run: Run, method: Method) -> tuple[Any, Any]:
    """The inputs and the Request of a call; None for what the method does not take.

    Raises:
        BadInput: the body does not fit the method.
    """
    head = run.head
    request = None
    if head.scope is not None:
        request = build(head.scope, run.body, run.cancellation, head.request_id)
    if not method.parses:
        return None, request
    if head.mode == wire.BYTES:
        return run.rules.read(run.body, head.content_type, method), request
    inputs = wire.decode(run.body)
    return (truss.validate(inputs, method.input_type) if method.input_type is not None else inputs), request
