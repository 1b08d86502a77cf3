"""Convert an exception of the model to the client's error and to records in the model's log.

Nothing here raises: an exception may have a broken `__str__` or broken properties, and the call must still end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import GatewayError
from ...spec import ModelSpec
from ...wire.checks import headers_are_clean
from ...wire.frames import MAX_FRAME, Failure
from ...wire.values import check_weight, encode
from ...wording import with_article
from ..loading.retry_advice import about_place, about_secret, about_variable, missing_variable
from ..loading.secrets import SecretNotFound
from ..loading.terminal import examine
from ..loading.tracebacks import has_own, lines_of
from ..log_records import as_one

GENERIC = "Internal Server Error (in model/chainlet)."
MAX_TEXT = 16 * 1024  # characters kept of a message or reason that is too long
CUDA_LOST = "CUDA error"  # sticky: the CUDA context is lost, so the worker must restart


class BadInput(Exception):
    """The body does not fit the method, or there is no such method: 400 or 404, code 700 on Truss-style routes."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value", status: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.status = message, param, code, status


class Unserializable(Exception):
    """A result that cannot be encoded."""


class Repeated(Exception):
    """The exception of a whole batch, for the calls after the first one: its traceback is logged once."""

    def __init__(self, error: BaseException, first: str) -> None:
        super().__init__(f"the batch failed, see [{first}]")
        self.error = self.__cause__ = error


class Unhandled(Unserializable):
    """An error inside Truss's own server, which reports its text to the client."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(text_of(error))


def to_failure(error: BaseException, debug: bool = False) -> Failure:
    """Return what the client is told: who failed, which status, and nothing about the model's internals."""
    try:
        return _to_failure(error, debug)
    except Exception:
        return Failure(500, "model_error", GENERIC, reason=type(error).__name__)


def encode_failure(failure: Failure) -> bytes:
    """Encode a failure. Details that cannot be encoded are left out; texts that are too long are cut."""
    try:
        payload = encode(failure)
        if len(payload) <= MAX_FRAME:
            check_weight(payload)
            return payload
    except Exception:
        pass
    failure.detail, failure.message, failure.reason = None, _cut(failure.message), _cut(failure.reason)
    if len(payload := encode(failure)) > MAX_FRAME:
        failure.headers, failure.param, failure.code = [], None, failure.code[:64]
        payload = encode(failure)
    return payload


def _cut(text: str) -> str:
    """Cut the text; replace lone surrogates."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text)} characters)"


def _to_failure(error: BaseException, debug: bool) -> Failure:
    if isinstance(error, Repeated):
        error = error.error
    if isinstance(error, BadInput):
        return Failure(error.status, error.code, error.message, param=error.param, truss_code=700)
    if isinstance(error, GatewayError):
        return _of_ours(error)
    if isinstance(error, Unserializable):
        text = str(error) if isinstance(error, Unhandled) else f"TypeError: {error}"
        return Failure(500, "invalid_model_output", f"Unhandled exception: {text}", truss_code=500)
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return Failure(500, "model_error", GENERIC, reason=text_of(error), truss_code=0)
    status = getattr(error, "status_code", None)
    if type(status) is int and 400 <= status <= 599:
        detail = getattr(error, "detail", None)
        if detail is None:
            detail = getattr(error, "message", None)
        if isinstance(detail, (str, dict, list, int, float)):
            return _raised_status(error, status, detail)
    text = text_of(error)
    if is_out_of_memory(error):
        return Failure(503, "insufficient_memory", "The device ran out of memory on this request.", reason=text)
    return Failure(500, "model_error", f"{GENERIC} {text}" if debug else GENERIC, reason=text)


def _of_ours(error: GatewayError) -> Failure:
    headers = _clean(error.headers)
    if error.retry_after is not None:
        headers.append(("Retry-After", str(max(1, round(error.retry_after)))))
    return Failure(
        error.status if 400 <= error.status <= 599 else 500,
        error.code,
        error.message,
        param=error.param,
        headers=headers,
        detail=getattr(error, "detail", None),
        truss_code=error.truss_code,
    )


def _raised_status(error: BaseException, status: int, detail: Any) -> Failure:
    message = detail if isinstance(detail, str) else str(detail)
    code = "model_error" if status >= 500 else "invalid_value"
    headers = _clean(getattr(error, "headers", None) or {})
    return Failure(status, code, message, headers=headers, detail=detail)


def _clean(headers: Any) -> list[tuple[str, str]]:
    """Return the headers that can be sent; a line break in one could forge a response."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    found = [(_header(name), _header(value)) for name, value in pairs]
    return [pair for pair in found if headers_are_clean([pair])]


def _header(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def text_of(error: BaseException) -> str:
    """Return its type and message, even if its `__str__` raises."""
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be read)"
    return f"{type(error).__name__}: {text}"


def notes_of(error: BaseException) -> str:
    """Return the notes that were added to it, to append to its text."""
    return "".join(f"; {' '.join(note.split())}" for note in getattr(error, "__notes__", ()))


def is_out_of_memory(error: BaseException) -> bool:
    """Recognize torch's OutOfMemoryError (by name, because torch is not imported here) and CUDA's message."""
    by_name = any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__)
    return by_name or f"{CUDA_LOST}: out of memory" in text_of(error)


def is_sticky(error: BaseException) -> bool:
    """Return whether the device's context is lost, so that every later call in this process would fail too."""
    return any(CUDA_LOST in text_of(step) and not is_out_of_memory(step) for step in _chain(error))


def missing_secret(error: BaseException) -> SecretNotFound | None:
    """Return the missing secret, if that is the cause."""
    return next((step for step in _chain(error) if isinstance(step, SecretNotFound)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def say(text: str) -> None:
    """Write a record to the model's log. It starts on a new line, even if the model has printed an unfinished one.

    stderr may have been closed by the model.
    """
    start = "" if os.isatty(2) else "\n"  # the log ignores empty lines
    try:
        print(f"{start}{as_one(text)}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def log(error: BaseException, request_id: str, spec: ModelSpec, told: str) -> None:
    """Print the traceback to the model's log, starting at the first frame in the model's own files.

    `told` names the route and method that raised it. If the model refuses a request with one of our errors, its code
    has not failed, and one line is logged.
    """
    if isinstance(error, Repeated):
        say(f"[{request_id}] {told}: {error}")
        return
    if isinstance(error, GatewayError) and error.status < 500:
        say(f"[{request_id}] refused with {error.status} {error.code}: {error.message}")
        return
    if isinstance(error, Unserializable) and spec.parity != "strict":
        _say_unsent(error, request_id, spec, told)
        return
    say(f"[{request_id}] {_heading(error, spec, told)}\n{trace_of(error, spec)}")
    examine(error, spec)
    if (variable := missing_variable(error)) is not None:
        say(f"[{request_id}] {variable} is not there{about_variable(variable, spec.name)}")
    if (secret := missing_secret(error)) is not None:
        say(f"[{request_id}] {secret}{about_secret(secret.name, secret.is_declared)}")
    if told_place := about_place(error, spec.data_dir):
        say(f"[{request_id}] {told_place.removeprefix('; ')}")


def _say_unsent(error: Unserializable, request_id: str, spec: ModelSpec, told: str) -> None:
    """Log one line about a result that cannot be sent, and a traceback if the model's own code failed in it.

    The line contains a level, as `logging` writes it, because only tracebacks count as errors otherwise.
    """
    say(f"[{request_id}] ERROR gateway: {told} returned a value that cannot be sent: {error}")
    places = places_of(spec)
    if (own := next((step for step in _chain(error) if has_own(step, places)), None)) is not None:
        say(trace_of(own, spec))


def _heading(error: BaseException, spec: ModelSpec, told: str) -> str:
    if spec.parity == "strict":
        return "Model raised HTTPException" if _has_status(error) else GENERIC
    return f"{told} raised {with_article(type(error).__name__)}"


def trace_of(error: BaseException, spec: ModelSpec) -> str:
    """Return the traceback, or one line if it cannot be formatted."""
    try:
        return lines_of(error, places_of(spec))
    except Exception:
        return text_of(error)


def places_of(spec: ModelSpec) -> list[str]:
    """Return the directories of the model's own code."""
    return [str(place) for place in (spec.root, *spec.import_dirs)]


def _has_status(error: BaseException) -> bool:
    try:
        return hasattr(error, "status_code")
    except Exception:
        return False
