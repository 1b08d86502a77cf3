"""The inputs of a method: the body, decoded for its route and validated if the method is typed; and the Request."""

from __future__ import annotations

from typing import Any

import msgspec

from ...wire import frames
from ...wire.values import decode
from ..calls.run import Run
from ..loading.descriptor import Method
from . import truss
from .request import build


def read(run: Run, method: Method) -> tuple[Any, Any]:
    """Return the inputs and the Request of a call; None for what the method does not take.

    Raises:
        BadInput: the body does not fit the method.
    """
    head = run.head
    if head.mode == frames.BYTES:
        inputs = run.rules.read(run.body, head.content_type, method) if method.parses else None
        return inputs, _request(run, run.body)
    if not method.parses and head.scope is None:
        return None, None
    inputs = decode(run.body)
    request = None if head.scope is None else _request(run, msgspec.json.encode(inputs))
    if method.input_type is not None:
        inputs = truss.validate(inputs, method.input_type)
    return (inputs if method.parses else None), request


def _request(run: Run, body: bytes | memoryview) -> Any:
    if run.head.scope is None:
        return None
    return build(run.head.scope, bytes(body), run.cancellation, run.head.request_id)
