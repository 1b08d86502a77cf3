"""What a dialect is: a request read into `Prepared`, and an encoder for its answer, streamed or whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from ..errors import BadRequest, GatewayError
from ..spec import Capabilities
from .raw import Ending, Protocol

SSE, JSON = b"text/event-stream", b"application/json"
Headers = list[tuple[bytes, bytes]]
ESTIMATED = (b"x-gateway-usage", b"estimated")  # the header of an answer whose counts nobody counted


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was checked. `inputs` is what the Model's method gets."""

    model: str | None
    inputs: dict[str, Any]
    stream: bool = False
    n: int = 1
    options: dict[str, Any] = field(default_factory=dict)  # the dialect's own notes for its encoder
    left_out: tuple[str, ...] = ()  # what of the request the method does not get; a header and the log say so


@dataclass(frozen=True, slots=True)
class Context:
    """What an answer needs to know beside its content."""

    model: str  # the name the client sent
    hex_id: str  # 32 hex digits, behind the dialect's prefix
    created: int  # seconds
    runs: int = 1  # calls of the Model's method: 1, or one for each of n choices
    capabilities: Capabilities = field(default_factory=Capabilities)  # of the model, as its class declares them
    stops: tuple[str, ...] = ()  # stop strings that the gateway looks for; () leaves it to the model


class Used(NamedTuple):
    """What a request used, in tokens, and OpenAI's word for why it ended."""

    prompt: int
    completion: int
    reason: str
    is_estimated: bool = False  # nobody counted all of them


class Encoder:
    """One answer under way. `items` are values of one run of the Model, plain data from the wire."""

    failure: GatewayError | None = None  # what came behind the events that `feed` returned last
    ends_with_usage: bool = True  # whether the end of a stream says how many tokens there were
    is_complete: bool = False  # nothing that the model may still say belongs to the answer
    content_type: bytes = JSON  # of a whole answer; read when it is complete
    stream_type: bytes = SSE  # of a stream; anything else is bytes without framing or pings
    scale: float = 1.0  # how many times as long the answer is as what was fed of it, for an estimate

    def start(self) -> bytes:
        """The first events of a stream; sent when the first item is there."""
        return b""

    def feed(self, items: list[Any], run: int = 0) -> bytes:
        """The events of some items.

        Raises:
            GatewayError: the model's output makes no sense, or says that it failed.
        """
        raise NotImplementedError

    def finish(self) -> bytes:
        """What ends a good stream.

        Raises:
            GatewayError: the model's output is not complete.
        """
        return b""

    def fail(self, error: GatewayError) -> bytes:
        """What ends a failed one: it never looks finished. With nothing to say, the connection is broken off."""
        return b""

    def whole(self) -> tuple[bytes, Headers]:
        """The body of an answer that was not streamed, and headers about it.

        Raises:
            GatewayError: the model's output is not complete.
        """
        raise NotImplementedError

    def retell(self, error: GatewayError, run: int) -> None:
        """Puts what one run of the method said about its inputs into the words of the route, where they are others."""

    @property
    def has_usage(self) -> bool:
        """Whether `usage` says something, which takes a look at all that was said."""
        return False

    def usage(self) -> Used | None:
        """What was used so far; None where a dialect has no tokens."""
        return None

    def uncounted(self, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """What the model's `count_tokens` should be asked, under names of ours; read when no more values come.

        `inputs` is what each run of the method was given. Empty where the model gave all counts itself.
        """
        return {}

    def counted(self, numbers: dict[str, int]) -> None:
        """The answers, under the same names."""

    def record(self) -> dict[str, Any] | None:
        """The answer to keep for later, asked when all values have come; None: this one is not to be kept.

        Raises:
            GatewayError: the model's output is not complete.
        """
        return None

    def not_kept(self) -> None:
        """It could not be kept, and should say so."""


class Dialect:
    """One protocol. An instance serves all requests, so it holds nothing of one."""

    ping: ClassVar[bytes] = b": ping\n\n"  # what keeps a silent stream alive
    # JSON schemas for the API document: of the body, of a whole answer, of the data of a stream's events. That of the
    # body has an `example` that may be sent, but for its `model`.
    request_schema: ClassVar[dict[str, Any]] = {"type": "object"}
    response_schema: ClassVar[dict[str, Any]] = {}
    event_schema: ClassVar[dict[str, Any]] = {}
    response_type: ClassVar[str] = "application/json"
    keeps: ClassVar[bool] = False  # clients may ask for answers again and go on from them: see http/stored.py
    protocol: ClassVar[Protocol] = ""  # in whose words its streams are; events of others are read, and not passed on
    ending: ClassVar[type[Ending]] = Ending  # of streams that models frame themselves
    takes_ids: ClassVar[bool] = False  # its requests may hold token ids, of which there are no more than a model reads
    body: ClassVar[Literal["json", "form"]] = (
        "json"  # form: multipart, its files as {"filename", "content_type", "data"}
    )

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        """Check and normalise a request for the method that will answer it: the route's, or one it is derived from.

        Raises:
            BadRequest: with the JSON path of what is wrong in `param`.
        """
        raise NotImplementedError

    def runs(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        """What each call of the method gets: one call, or n of them when the model answers once a call.

        Raises:
            BadRequest: the request is not for a model with these capabilities.
        """
        if prepared.n == 1 or capabilities.supports_n:
            return [prepared.inputs]
        return [one_of_n(prepared.inputs, index) for index in range(prepared.n)]

    def encoder(self, prepared: Prepared, context: Context) -> Encoder:
        raise NotImplementedError

    def estimate(self, prepared: Prepared) -> tuple[bytes, Headers]:
        """The whole answer for a model that has no method for it, of an endpoint that stands `beside` another."""
        raise NotImplementedError


def one_of_n(inputs: dict[str, Any], index: int) -> dict[str, Any]:
    """What one of n runs gets: n is 1 for it, and a seed of its own."""
    run = {**inputs, "n": 1}
    if isinstance(inputs.get("seed"), int) and inputs["seed"] != -1:  # many servers' word for none
        run["seed"] = inputs["seed"] + index
    return run


def prompt_of(inputs: dict[str, Any]) -> dict[str, Any] | None:
    """What `count_tokens` is asked for the prompt in the inputs of a method; None when there is none in it."""
    messages = inputs.get("messages")
    if isinstance(messages, list):
        system = inputs.get("system")  # Anthropic's place for it
        first = [{"role": "system", "content": system}] if system else []
        return {"messages": [*first, *messages], "tools": inputs.get("tools")}
    prompt = inputs.get("prompt", inputs.get("input"))
    return {"prompt": prompt} if isinstance(prompt, str | list) else None


MODEL_RAISED = "Internal Server Error (in model/chainlet)."  # what a worker says of an exception, in Truss's words
GENERIC = "The model raised an error; its log has the details under this request's id."


def public(error: GatewayError) -> str:
    """The message for a client; a model's own exception has none but this."""
    if error.code == "model_error" and error.message == MODEL_RAISED:
        return GENERIC
    return error.message


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_NAMES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
}


def take(body: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """An optional field of a JSON type; null is absent.

    Raises:
        BadRequest: invalid_type.
    """
    value = body.get(name)
    if value is None:
        return default
    if kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)  # JSON has no infinity
    elif kind is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    else:
        good = isinstance(value, kind)
    if not good:
        raise wrong_type(name, _NAMES[kind], value)
    return value


def take_range(body: dict[str, Any], name: str, least: int, most: int | None, default: Any = None) -> Any:
    """An optional integer within bounds."""
    value = take(body, name, int, default)
    if value is not None and (value < least or (most is not None and value > most)):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise BadRequest(f"'{name}' must be {bounds}, not {value}", param=name)
    return value


def put(chat: dict[str, Any], name: str, value: Any, word: str) -> None:
    """`value` as chat's field `name`, of a request that has another word for it and may have sent both.

    Raises:
        BadRequest: they say different things.
    """
    if chat.get(name, value) != value:
        raise BadRequest(f"'{name}' and '{word}' say different things; send '{word}'", param=name)
    chat[name] = value


def wrong_type(name: str, expected: str, value: Any) -> BadRequest:
    got = _NAMES.get(type(value), "null")
    return BadRequest(f"'{name}' must be {expected}, not {got}", param=name, code="invalid_type")


def missing(name: str, got: Iterable[str] = ()) -> BadRequest:
    """`got` is what was sent instead, perhaps in the words of another service."""
    told = f" (got: {', '.join(sorted(got))})" if got else ""
    return BadRequest(f"missing required parameter: '{name}'{told}", param=name, code="missing_required_parameter")
