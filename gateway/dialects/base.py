"""The interface of a dialect: it reads a request into `Prepared`, and encodes the answer, streamed or whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from ..errors import MODEL_RAISED, GatewayError
from ..field_copies import check_copies
from ..spec import Capabilities
from ..wire.frames import Vectors
from .raw import Ending, Protocol

SSE, JSON = b"text/event-stream", b"application/json"
Headers = list[tuple[bytes, bytes]]
ESTIMATED = (b"x-gateway-usage", b"estimated")  # the header of an answer with estimated counts


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked request. `inputs` is passed to the Model's method."""

    model: str | None
    inputs: dict[str, Any]
    stream: bool = False
    n: int = 1
    options: dict[str, Any] = field(default_factory=dict)  # the dialect's data for its encoder
    vectors: Vectors = ""  # how vectors in the method's answer are encoded, see `wire.frames.Req`
    left_out: tuple[str, ...] = ()  # parts of the request that the method does not get; listed in a header and the log


@dataclass(frozen=True, slots=True)
class Context:
    """Data for an answer besides its content."""

    model: str  # the name that the client sent
    hex_id: str  # 32 hex digits, after the dialect's prefix
    created: int  # seconds
    calls: int = 1  # calls of the Model's method: 1, or one for each of n choices
    capabilities: Capabilities = field(default_factory=Capabilities)  # of the model, as declared by its class
    stops: tuple[str, ...] = ()  # stop strings that the gateway looks for; with () the model does it


class Used(NamedTuple):
    """The tokens that a request used, and OpenAI's finish reason."""

    prompt: int
    completion: int
    reason: str
    is_estimated: bool = False  # some counts are estimates


class Encoder:
    """Encodes one answer. `items` are values from one call of the Model, as plain data."""

    failure: GatewayError | None = None  # an error that followed the events that `feed` returned last
    ends_with_usage: bool = True  # whether the end of a stream reports token counts
    is_complete: bool = False  # further output of the model is not part of the answer
    content_type: bytes = JSON  # of a whole answer; read when the answer is complete
    stream_type: bytes = SSE  # of a stream; any other type is bytes without framing or pings
    held: int = 0  # bytes that were fed and are read again with what follows, such as an event in progress
    scale: float = 1.0  # the size of the answer relative to what was fed, for an estimate

    def start(self) -> bytes:
        """Return the first events of a stream. They are sent with the first item."""
        return b""

    def work(self, items: list[Any], size: int) -> int:
        """Return how many of the `size` bytes of `items` are work. Text that is only copied is nearly none."""
        return size

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        """Return the events of some items.

        Raises:
            GatewayError: the model's output is invalid, or reports a failure.
        """
        raise NotImplementedError

    def finish(self) -> bytes:
        """Return the end of a successful stream.

        Raises:
            GatewayError: the model's output is not complete.
        """
        return b""

    def fail(self, error: GatewayError) -> bytes:
        """Return the end of a failed stream, which must not look complete. If empty, the connection is broken off."""
        return b""

    def whole(self) -> tuple[bytes, Headers]:
        """Return the body of an answer that is not streamed, and its headers.

        Raises:
            GatewayError: the model's output is not complete.
        """
        raise NotImplementedError

    def retell(self, error: GatewayError, call: int) -> None:
        """Rewrite an error of one call about its inputs in the terms of the route, if they differ."""

    @property
    def has_usage(self) -> bool:
        """Whether `usage` returns counts. Cheap, unlike `usage`, which reads all output."""
        return False

    def usage(self) -> Used | None:
        """Return the usage so far, or None if the dialect has no tokens."""
        return None

    def uncounted(self, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return questions for the model's `count_tokens`, by names of our own. Called after the last value.

        `inputs` are the inputs of each call of the method. The result is empty if the model reported all counts.
        """
        return {}

    def counted(self, numbers: dict[str, int]) -> None:
        """Store the answers to these questions, by the same names."""

    def record(self) -> dict[str, Any] | None:
        """Return the answer to store for later, or None. Called after the last value.

        Raises:
            GatewayError: the model's output is not complete.
        """
        return None

    def not_kept(self) -> None:
        """Note that the answer could not be stored, so that it can say so."""


class Dialect:
    """One protocol. An instance serves all requests, so it holds no state of a request."""

    ping: ClassVar[bytes] = b": ping\n\n"  # sent to keep a silent stream alive
    # JSON schemas for the API document: of the body, of a whole answer, and of the data of stream events. The body's
    # schema has an `example` that can be sent, except for its `model`.
    request_schema: ClassVar[dict[str, Any]] = {"type": "object"}
    response_schema: ClassVar[dict[str, Any]] = {}
    event_schema: ClassVar[dict[str, Any]] = {}
    response_type: ClassVar[str] = "application/json"
    keeps: ClassVar[bool] = False  # see http/routes/stored.py: answers may be stored; its encoders get no `inputs`
    protocol: ClassVar[Protocol] = ""  # the protocol of its streams; events of other protocols are read, not passed on
    ending: ClassVar[type[Ending]] = Ending  # detects the end of streams that models frame themselves
    value_decides: ClassVar[bool] = False  # a method that returns an iterator streams, whatever the request asks for
    takes_ids: ClassVar[bool] = False  # requests may hold token ids, bounded by what the model can read
    body: ClassVar[Literal["json", "form"]] = (
        "json"  # form: multipart, with files as {"filename", "content_type", "data"}
    )

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        """Check and normalise a request for the method that answers it: the route's own, or one it is derived from.

        Raises:
            BadRequest: with the JSON path of the error in `param`.
        """
        raise NotImplementedError

    def calls(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        """Return the inputs of each call of the method: one call, or n calls if the model gives one answer for each.

        Raises:
            BadRequest: a model with these capabilities cannot answer the request.
            TooLarge: the calls would have too many fields together.
        """
        if prepared.n == 1 or capabilities.supports_n:
            return [prepared.inputs]
        check_copies(len(prepared.inputs), prepared.n, "choices")
        return [one_of_n(prepared.inputs, index) for index in range(prepared.n)]

    def encoder(self, prepared: Prepared, context: Context) -> Encoder:
        raise NotImplementedError

    def estimate(self, prepared: Prepared) -> tuple[bytes, Headers]:
        """Return the whole answer for a model without the method, of an endpoint with `beside`."""
        raise NotImplementedError


def one_of_n(inputs: dict[str, Any], index: int) -> dict[str, Any]:
    """Return the inputs of one of n calls, with n = 1 and a seed of its own."""
    own = {**inputs, "n": 1}
    if isinstance(inputs.get("seed"), int) and inputs["seed"] != -1:  # many servers use it for no seed
        own["seed"] = inputs["seed"] + index
    return own


def source_of(inputs: dict[str, Any]) -> Any:
    """Return the messages or the prompt in a method's inputs, as the client sent them."""
    messages = inputs.get("messages")
    return messages if isinstance(messages, list) else inputs.get("prompt", inputs.get("input"))


def prompt_of(inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Return the question to `count_tokens` for the prompt in a method's inputs, or None if there is none."""
    messages = inputs.get("messages")
    if isinstance(messages, list):
        system = inputs.get("system")  # Anthropic's field for the system prompt
        first = [{"role": "system", "content": system}] if system else []
        return {"messages": [*first, *messages], "tools": inputs.get("tools")}
    prompt = source_of(inputs)
    return {"prompt": prompt} if isinstance(prompt, str | list) else None


GENERIC = "The model raised an error; its log has the details under this request's id."


def client_message(error: GatewayError) -> str:
    """Return the message for a client. An exception of the model is replaced by a general message."""
    if error.code == "model_error" and error.message == MODEL_RAISED:
        return GENERIC
    return error.message


def error_body(error: GatewayError) -> dict[str, Any]:
    """Return an error in OpenAI's format, which routes without a format of their own use."""
    return {"error": {"message": client_message(error), "type": error.type, "param": error.param, "code": error.code}}
