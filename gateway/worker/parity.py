"""How near the answers of Truss-style routes keep to Truss's: improved, or to the letter.

`Rules` are those of every model, `Strict` those of one with `truss_parity = "strict"`: what Truss cannot write, a
stream that fails, an exception with a status then end as they do there. Both speak of bytes in and bytes out only;
what is refused at load is the adapter's. Sources: truss_server.py, model_wrapper.py, serialization.py of Truss 0.18.
"""

from __future__ import annotations

import datetime
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..wire import Failure
from . import truss
from .failures import GENERIC, BadInput, Unhandled, Unserializable, text_of, to_failure

if TYPE_CHECKING:
    from .adapter import Method

# Where the model's code is when it fails: called; iterated, its items sent; iterated, its items collected; iterated
# behind postprocess, where Truss has no buffer of its own.
Stage = Literal["call", "stream", "gather", "tail"]


class Rules:
    """Truss's answers, with its improvements."""

    head_first = False  # whether a stream's status goes out before there is an item

    def read(self, body: bytes, content_type: str, method: Method) -> Any:
        """The inputs of a method.

        Raises:
            BadInput: with Truss's text.
            Unhandled: where Truss's server stumbles itself.
        """
        return truss.read(body, content_type, method)

    def check(self, value: Any, content_type: str) -> None:
        """Raise `Unhandled` for a result that could be delivered, but not by Truss."""

    def write(self, value: Any, binary: bool) -> tuple[bytes, str]:
        """A result as body and content type.

        Raises:
            Unserializable: it has no form there.
        """
        return truss.write(value, binary)

    def chunker(self, first: Any, events: bool) -> tuple[Callable[[Any], bytes], str]:
        """What writes the items of a stream, and its content type, by its first item.

        The function raises `Unserializable` for an item that has no form there.
        """
        return truss.chunker(first, events)

    def text(self, collected: bytes) -> str:
        """The items of a stream that is collected.

        Raises:
            Unserializable: they are not text.
        """
        return truss.text(collected)

    def failure(self, error: BaseException, stage: Stage, debug: bool) -> Failure | None:
        """What the client is told; None for a body that just ends."""
        return to_failure(error, debug)


class Strict(Rules):
    """Truss's answers to the letter."""

    head_first = True

    def read(self, body: bytes, content_type: str, method: Method) -> Any:
        try:
            return truss.read(body, content_type, method, strict=True)
        except BadInput as error:
            # Truss catches what JSON says of itself; the rest of what decoding raises it catches for types and msgpack.
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
                return json.dumps(value, default=_numpy_to_json).encode(), truss.JSON
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
        """One item of a stream, text or bytes.

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
            raise ValueError("an array as an item")  # Truss compares it with its end mark, which ends the stream
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
    """Those of a model, by the value of its setting."""
    return Strict() if parity == "strict" else IMPROVED


def _raised_status(error: BaseException, stage: Stage) -> Failure | None:
    """Truss's way with FastAPI's HTTPException: its status and detail, without its headers; None for all others.

    Of a generator that is collected, Starlette's too: there FastAPI itself catches it.
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
    """Truss's DeepNumpyEncoder."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.integer):
            return int(value)
        if isinstance(value, numpy.floating):
            return float(value)
        if isinstance(value, numpy.ndarray):
            return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _tag(value: Any) -> Any:
    """Truss's msgpack tags, and no others."""
    base = _pydantic_base()
    unknown = (set, frozenset, int) if base is None else (set, frozenset, int, base)
    if isinstance(value, unknown) or is_dataclass(value):
        return value  # msgpack says itself that it cannot
    if isinstance(value, datetime.time) and value.utcoffset() is not None:
        raise ValueError("Cannot represent timezone-aware times.")
    return truss.tag(value)
