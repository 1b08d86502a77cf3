"""Convert the failure in a worker's `error` frame to the error that the client gets."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import Crashed, GatewayError, HTTPError, InvalidOutput, ModelError, OutOfMemory, QueueTimeout, Unavailable
from ..wire.frames import Failure

RETRY_AFTER = 1.0  # seconds, for temporary failures of a worker
_BY_CODE: dict[str, type[GatewayError]] = {
    cls.code: cls for cls in (ModelError, InvalidOutput, OutOfMemory, QueueTimeout, Crashed, Unavailable)
}


def _in_json(detail: Any) -> msgspec.Raw | None:
    """Encode the detail of a model's error, once. None if there is none or JSON cannot represent it."""
    try:
        return None if detail is None else msgspec.Raw(msgspec.json.encode(detail))
    except (TypeError, ValueError, RecursionError):
        return None


def to_error(failure: Failure) -> GatewayError:
    """Convert a worker's failure to the client's error."""
    cls = _BY_CODE.get(failure.code)
    headers = dict(failure.headers)
    error: GatewayError
    if cls is not None and failure.status == cls.status and failure.detail is None:
        error = cls(failure.message, param=failure.param, headers=headers)
        if issubclass(cls, Unavailable):
            error.retry_after = RETRY_AFTER
    else:
        error = HTTPError(
            failure.status,
            failure.message,
            code=failure.code,
            param=failure.param,
            headers=headers,
            detail=_in_json(failure.detail),
        )
    error.truss_code = failure.truss_code
    return error
