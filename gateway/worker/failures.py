"""What an exception of the model becomes for its client, and for the model's log."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

from ..errors import GatewayError
from ..wire import Failure

GENERIC = "Internal Server Error (in model/chainlet)."
CUDA_LOST = "CUDA error"  # sticky: the context is gone, and with it the worker


class BadInput(Exception):
    """The body does not fit the method: 400, code 700 on Truss-style routes."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class Unserializable(Exception):
    """A result that has no form on the wire."""


def to_failure(error: BaseException, debug: bool = False) -> Failure:
    """Say what happened, in the words of decisions: who failed, which status, and nothing of the model's insides."""
    if isinstance(error, BadInput):
        return Failure(400, error.code, error.message, param=error.param, truss_code=700)
    if isinstance(error, GatewayError):
        return Failure(
            error.status,
            error.code,
            error.message,
            param=error.param,
            headers=list(error.headers.items()),
            detail=getattr(error, "detail", None),
            truss_code=error.truss_code,
        )
    if isinstance(error, Unserializable):
        return Failure(500, "invalid_model_output", f"Unhandled exception: TypeError: {error}", truss_code=500)
    status = getattr(error, "status_code", None)
    if type(status) is int and 400 <= status <= 599:
        detail = getattr(error, "detail", None)
        if detail is None:
            detail = getattr(error, "message", None)
        if isinstance(detail, (str, dict, list)):
            return _raised_status(error, status, detail)
    if is_out_of_memory(error):
        return Failure(503, "insufficient_memory", "The device ran out of memory on this request.")
    text = f"{type(error).__name__}: {error}"
    return Failure(500, "model_error", f"{GENERIC} {text}" if debug else GENERIC, reason=text)


def _raised_status(error: BaseException, status: int, detail: Any) -> Failure:
    message = detail if isinstance(detail, str) else str(detail)
    headers = getattr(error, "headers", None) or {}
    code = "model_error" if status >= 500 else "invalid_value"
    return Failure(
        status,
        code,
        message,
        headers=[(str(name), str(value)) for name, value in dict(headers).items()],
        detail=detail,
    )


def is_out_of_memory(error: BaseException) -> bool:
    """torch's OutOfMemoryError, by name: torch is not ours to import."""
    return any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__)


def log(error: BaseException, request_id: str, root: str) -> None:
    """Print the traceback to the model's log, from the last frame of the model's own files on."""
    kind = "Model raised HTTPException" if hasattr(error, "status_code") else GENERIC
    trimmed = _from_model_file(error.__traceback__, root)
    lines = traceback.format_exception(type(error), error, trimmed)
    print(f"[{request_id}] {kind}\n{''.join(lines)}", file=sys.stderr, end="", flush=True)


def _from_model_file(trace: TracebackType | None, root: str) -> TracebackType | None:
    best, step = None, trace
    while step is not None:
        if best is None and step.tb_frame.f_code.co_filename.startswith(root):
            best = step
        step = step.tb_next
    return best or trace
