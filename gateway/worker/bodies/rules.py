"""How closely the answers of Truss-style routes follow Truss: with improvements, or exactly.

Models use `Rules`; a model with `truss_parity = "strict"` uses `Strict`, where unsupported results, failing streams and
exceptions with a status end as in Truss. Both only convert from bytes and to bytes; the adapter refuses models at load.
Sources: truss_server.py, model_wrapper.py, serialization.py of Truss 0.18.
"""

from __future__ import annotations

import datetime
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...wire.frames import Failure
from . import json_text, truss
from .failures import GENERIC, BadInput, Unhandled, Unserializable, text_of, to_failure

if TYPE_CHECKING:
    from ..loading.descriptor import Method

# Where the model's code failed: in the call; in a stream while items were sent; in one that was collected; or in one
# after postprocess, where Truss has no buffer of its own.
Stage = Literal["call", "stream", "gather", "tail"]


class Rules:
    """The answers of Truss, with improvements."""

    head_first = False  # whether the status of a stream is sent before its first item

    def read(self, body: bytes | memoryview, content_type: str, method: Method) -> Any:
        """Return the inputs of a method.

        Raises:
            BadInput: with Truss's text.
            Unhandled: where Truss's own server fails.
        """
        return truss.read(body, content_type, method)

    def check(self, value: Any, content_type: str) -> None:
        """Raise `Unhandled` for a result that we could send but Truss could not."""

    def write(self, value: Any, binary: bool) -> tuple[bytes, str]:
        """Encode a result. Returns body and content type.

        Raises:
            Unserializable: it cannot be encoded.
        """
        return truss.write(value, binary)

    def chunker(self, first: Any, events: bool) -> tuple[Callable[[Any], bytes], str]:
        """Return a function that encodes the items of a stream, and the content type, chosen by the first item.

        The function raises `Unserializable` for an item that cannot be encoded.
        """
        return truss.chunker(first, events)

    def text(self, collected: bytes) -> str:
        """Return the items of a collected stream as text.

        Raises:
            Unserializable: they are not text.
        """
        return truss.text(collected)

    def failure(self, error: BaseException, stage: Stage, debug: bool) -> Failure | None:
        """Return what the client is told; None if the body just ends."""
        return to_failure(error, debug)


class Strict(Rules):
    """The answers of Truss, exactly."""

    head_first = True

    def read(self, body: bytes | memoryview, content_type: str, method: Method) -> Any:
        try:
            return truss.read(body, content_type, method, strict=True)
        except BadInput as error:
            # Truss catches JSONDecodeError; for typed methods and msgpack it catches every ValueError.
            lenient = method.input_type is not None or truss.is_binary(content_type)
            caught = ValueError if lenient else json.JSONDecodeError
            if error.__cause__ is None or isinstance(error.__cause__, caught):
                raise
            raise Unhandled(error.__cause__) from error

    def check(self, value: Any, content_type: str) -> None:
        if _is_generator(value) or _is_response(value):
            return
        if inspect.iscoroutine(value):
            value.close()
        if hasattr(value, "__next__") or hasattr(value, "__aiter__") or inspect.isawaitable(value):
            self.write(value, truss.is_binary(content_type))

    def write(self, value: Any, binary: bool) -> tuple[bytes, str]:
        base = _pydantic_base()
        try:
            if not binary:
                if base is not None and isinstance(value, base):
                    return value.model_dump_json().encode(), truss.JSON  # type: ignore[attr-defined]
                return _write_json(value), truss.JSON
            if isinstance(value, bytes):
                return value, truss.BINARY
            if base is not None and isinstance(value, base):
                value = value.model_dump(mode="python")  # type: ignore[attr-defined]
            return truss.pack(value, _tag), truss.BINARY
        except Exception as error:
            raise Unhandled(error.__cause__ or error) from error

    def chunker(self, first: Any, events: bool) -> tuple[Callable[[Any], bytes], str]:
        return self.chunk, truss.BINARY

    def chunk(self, item: Any) -> bytes:
        """Encode one item of a stream, str or bytes.

        Raises:
            Unhandled: it is neither.
        """
        if isinstance(item, str):
            try:
                return item.encode()
            except UnicodeEncodeError as error:
                raise Unhandled(error) from error
        if isinstance(item, (bytes, memoryview)):
            return bytes(item)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(item, numpy.ndarray) and item.size > 1:
            raise ValueError("an array as an item")  # Truss compares it with its end mark, which fails
        raise Unhandled(TypeError(f"a stream's items are str or bytes, not {type(item).__name__}"))

    def text(self, collected: bytes) -> str:
        return collected.decode()

    def failure(self, error: BaseException, stage: Stage, debug: bool) -> Failure | None:
        if isinstance(error, (BadInput, Unserializable, SystemExit, KeyboardInterrupt)):
            return to_failure(error, debug)
        if stage == "stream":
            return None
        raised = _raised_status(error, stage)
        if raised is not None:
            return raised
        if stage == "gather":
            return to_failure(Unhandled(error))
        text = text_of(error)
        return Failure(500, "model_error", f"{GENERIC} {text}" if debug else GENERIC, reason=text)


IMPROVED = Rules()


def rules_of(parity: str) -> Rules:
    """Return the rules for a value of the setting."""
    return Strict() if parity == "strict" else IMPROVED


def _raised_status(error: BaseException, stage: Stage) -> Failure | None:
    """Convert FastAPI's HTTPException as Truss does: status and detail, without headers. None for other exceptions.

    In a collected generator this applies to Starlette's exception too, because FastAPI itself catches it there.
    """
    module = sys.modules.get("starlette.exceptions" if stage == "gather" else "fastapi")
    kind = getattr(module, "HTTPException", None)
    if kind is None or not isinstance(error, kind):
        return None
    status, detail = error.status_code, error.detail
    if stage == "call":
        try:
            "user_stack_trace" in detail  # noqa: B015  (Truss looks for one of its own, and fails for a number)
        except TypeError as unhandled:
            return to_failure(Unhandled(unhandled))
    return Failure(status, "model_error" if status >= 500 else "invalid_value", str(detail), detail=detail)


def _is_generator(value: Any) -> bool:
    return inspect.isgenerator(value) or inspect.isasyncgen(value)


def _is_response(value: Any) -> bool:
    starlette = sys.modules.get("starlette.responses")
    return starlette is not None and isinstance(value, starlette.Response)


def _pydantic_base() -> type | None:
    return getattr(sys.modules.get("pydantic"), "BaseModel", None)


def _numpy_to_json(value: Any) -> Any:
    """The same as Truss's DeepNumpyEncoder."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.integer):
            return int(value)
        if isinstance(value, numpy.floating):
            return float(value)
        if isinstance(value, numpy.ndarray):
            return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_write_json = json_text.Writer(_numpy_to_json)


def _tag(value: Any) -> Any:
    """Encode the types that Truss has msgpack tags for, and no others."""
    base = _pydantic_base()
    unknown = (set, frozenset, int) if base is None else (set, frozenset, int, base)
    if isinstance(value, unknown) or is_dataclass(value):
        return value  # msgpack raises an error for it
    if isinstance(value, datetime.time) and value.utcoffset() is not None:
        raise ValueError("Cannot represent timezone-aware times.")
    return truss.tag(value)
