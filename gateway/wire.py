"""The frames between the gateway and a worker.

One frame: u32 payload length | u8 kind | u32 call id | payload, little-endian. The two top bits of the kind are flags:
MORE says that the payload goes on in the next frame of this id, so that a 20 MB body does not hold up the chunks of
others; MEMFD is reserved. Ids are chosen by the gateway; id 0 is the channel itself. A cancel, end or error in the
middle of a split payload says that the rest of it will not come.

    frame      direction         payload                    rule
    hello      worker, gateway   WorkerHello / Hello        version check; secrets travel here and in update only
    described  worker            Capabilities as dict       the class is there, load() still to come; may be left out
    ready      worker            Capabilities as dict       after load(); no req before it
    req        gateway           Req head + body
    resp       worker            Resp head + body           `final`: the code has stopped, no end follows
    items      worker            msgpack array of items     everything ready in one turn of the loop
    end        worker            empty                      the model's code has stopped: the slot is free
    error      worker            Failure                    as end; with id 0: load failed, the worker cannot go on
    cancel     gateway           empty                      answered by end or error
    credit     gateway           Credit                     what the client has taken of a stream
    slot       worker            empty                      a call got its slot (models with preprocess or postprocess
                                                            only, whose calls are sent before they have one)
    waits      worker            empty                      a call waits for its slot from now on (the same models)
    message    both              msgpack value              one websocket message
    ping       both              Ping                       heartbeat, with the loop's lag
    log        worker                                       reserved
    metric     worker                                       reserved
    update     gateway           Update                     environment or secrets changed
    scrape     gateway           empty                      answered by metrics
    metrics    worker            Prometheus text            the model's own registry
    shutdown   gateway           Shutdown                   finish, unload, exit 0
    whose      both              Whose                      whether a connection is the worker's; answered by the same

Heads are msgspec arrays: no field names on the wire, and a decoder that checks types. Bodies follow their head
untouched. The gateway treats the worker as the less trusted side: whatever does not decode breaks that replica only,
and so does what costs more than its bytes would say, see `FROM_WORKER` and `weighing.py`. A worker that keeps to the
rules looks at its own answers with the same eyes, and fails the call.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar, cast

import msgspec

from .weighing import SMALL, TooHeavy, weigh

VERSION = 1
HEADER = struct.Struct("<IBI")
HEAD_SIZE = struct.Struct("<I")
BEHIND_SIZE = HEAD_SIZE.size  # once: the struct counts it anew whenever it is asked
MAX_FRAME = 256 * 1024  # bytes of payload; one unsplit 20 MB frame held other streams back 20-40 ms
MAX_PAYLOAD = 1 << 28  # bytes of a payload put together again; what is larger is better sent as a stream
MAX_PENDING = 1 << 30  # bytes of all payloads that are not complete yet, of one worker and of all together
MAX_METRICS = 1 << 20  # bytes of what one replica registered
MORE, MEMFD, KIND = 0x80, 0x40, 0x3F
WINDOW_ITEMS, WINDOW_BYTES = 64, 256 * 1024  # what a stream may have under way before the client takes it

HELLO, READY, REQ, RESP, ITEMS, END, ERROR, CANCEL, CREDIT = range(1, 10)
SLOT, MESSAGE, PING, LOG, METRIC, UPDATE, SCRAPE, METRICS, SHUTDOWN, DESCRIBED, WHOSE, WAITS = range(10, 22)
NAMES = (
    "",
    *("hello", "ready", "req", "resp", "items", "end", "error", "cancel", "credit"),
    *("slot", "message", "ping", "log", "metric", "update", "scrape", "metrics", "shutdown", "described", "whose"),
    "waits",
)

# What a sender may break off a split payload with.
GIVING_UP = frozenset((END, ERROR, CANCEL))

# The bytes that a payload of each kind may have when a worker sends it, if they are more than those of one frame.
FROM_WORKER = {RESP: MAX_PAYLOAD, ITEMS: MAX_PAYLOAD, MESSAGE: MAX_PAYLOAD, METRICS: MAX_METRICS}
MAX_ITEM = MAX_PAYLOAD - 16  # bytes of an item that is sent alone, behind the head of its list
MAX_HEAD = 64 * 1024  # bytes of the headers of an answer, as of a request
MAX_DIMENSIONS = 32  # of an array: those of NumPy 1
# Beside the channel, on stderr: the first characters of the lines that are one record of the worker's log.
BEGINS, GOES_ON = "\x1e", "\x1f"

# How the body of a call is to be read, and what comes back.
BYTES = 0  # Truss-style: raw bytes in, raw bytes out, parsed in the worker
DATA = 1  # dialects: one msgpack value in, msgpack values out
MESSAGES = 2  # of a call whose answer is messages, a websocket's; no head says so


class WireError(Exception):
    """The peer broke the protocol; the channel is of no further use."""


class Head(msgspec.Struct, array_like=True, gc=False):
    """Base of all heads: plain data, never part of a cycle."""


H = TypeVar("H", bound=Head)
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
CONTENT_TYPE = re.compile(r"[\x20-\x7e]{0,255}")
SOCKET = "websocket"  # the method whose calls have messages
USUAL_TYPES = frozenset(("", "application/json", "application/octet-stream"))  # which need no look

Mode = Annotated[int, msgspec.Meta(ge=0, le=1)]  # BYTES or DATA
Count = Annotated[int, msgspec.Meta(ge=0)]


class WorkerHello(Head):
    version: int
    pid: int
    python: str
    devices: str | None  # CUDA_VISIBLE_DEVICES as the worker sees it


class Hello(Head):
    version: int
    model: dict[str, Any]  # a ModelSpec as plain data
    slots: int
    max_waiting: int  # calls that may wait inside the worker, behind preprocess
    secrets: dict[str, str]
    deployment: dict[str, Any] | None  # Truss's `environment`: of which deployment this is
    plugin_dirs: list[str] = []
    endpoint_methods: list[str] = []
    queue_timeout: float = 30.0
    cancel_grace: float = 5.0
    debug: bool = False
    taken_ports: list[int] = []  # that servers of the replica listen on beside which this one is loaded


class Whose(Head):
    """A connection from this machine to the gateway."""

    client_port: int
    server_port: int
    is_mine: bool = False


class HTTPScope(Head):
    """What a method that takes the Request gets to see of it."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str


class Req(Head):
    method: str
    mode: Mode
    stream: bool
    content_type: str
    request_id: str
    gather: bool = False  # Truss: `Accept: application/json` collects a generator into one JSON string
    deadline: float | None = None  # seconds from now in which the client wants it; no code begins after them
    scope: HTTPScope | None = None
    route: str = ""  # that it came by, for the model's log; "" where the gateway itself asks
    events: bool = False  # Truss: `Accept: text/event-stream` gets items that are no text as server-sent events


class Resp(Head):
    """`kind` says how the gateway reads what follows.

    A stream of BYTES whose first item is neither text nor bytes has a second one, right before that item: its first
    went out when the stream began, and nobody knew then what it would be.
    """

    status: int
    kind: Mode
    stream: bool
    final: bool
    content_type: str
    headers: list[tuple[str, str]] = []
    raw: bool = False  # a Response object of the user: passed untouched


class Failure(Head):
    """Why a call, or with id 0 the worker, ended. `message` is for the client, `reason` for the operator."""

    status: int
    code: str
    message: str
    reason: str = ""
    param: str | None = None
    headers: list[tuple[str, str]] = []
    detail: Any = None  # Truss-style routes show a dict detail as an object
    truss_code: int = 600  # X-BASETEN-ERROR-CODE
    fatal: bool = False  # with id 0: another try would end the same way


class Credit(Head):
    items: Count
    size: Count


class Ping(Head):
    number: int
    lag: Annotated[float, msgspec.Meta(ge=0)]  # seconds the sender's loop was late


class Update(Head):
    secrets: dict[str, str] | None = None
    deployment: dict[str, Any] | None = None


class Shutdown(Head):
    grace: float  # seconds


class Array:
    """A numeric array on its way to the gateway: packed bytes, never a list of Python floats.

    `data` is little-endian float32, row-major, `shape` its dimensions. No dataclass: msgspec would make a map of it.
    """

    __slots__ = ("data", "shape")

    def __init__(self, shape: tuple[int, ...], data: bytes) -> None:
        self.shape, self.data = shape, data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and (self.shape, self.data) == (other.shape, other.data)

    __hash__ = None  # type: ignore[assignment]  # a dict of such keys could be made to take for ever

    def __repr__(self) -> str:
        return f"Array(shape={self.shape})"


class Structured:
    """A Pydantic instance on its way to the gateway: its set fields, and its JSON.

    Which of the two is meant depends on the route: a delta, or the answer to a response_format.
    """

    __slots__ = ("fields", "json")

    def __init__(self, fields: dict[str, Any], json: str) -> None:
        self.fields, self.json = fields, json

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structured) and (self.fields, self.json) == (other.fields, other.json)

    __hash__ = None  # type: ignore[assignment]  # as above


ARRAY_EXT, STRUCTURED_EXT = 1, 2  # msgpack extension codes


def _encode_extension(value: Any) -> Any:
    if isinstance(value, Array):
        shape = struct.pack(f"<B{len(value.shape)}I", len(value.shape), *value.shape)
        return msgspec.msgpack.Ext(ARRAY_EXT, shape + value.data)
    if isinstance(value, Structured):
        return msgspec.msgpack.Ext(STRUCTURED_EXT, encode([value.fields, value.json]))
    raise NotImplementedError(f"{type(value).__name__} cannot travel over the channel")


def _decode_extension(code: int, view: memoryview) -> Any:
    if code == STRUCTURED_EXT:
        return Structured(*_decode_structured(view))
    if code != ARRAY_EXT or not len(view):
        raise WireError(f"unknown msgpack extension {code}")
    dimensions = view[0]
    if dimensions > MAX_DIMENSIONS:
        raise WireError(f"array of {dimensions} dimensions")
    start = 1 + 4 * dimensions
    if len(view) < start:
        raise WireError("array extension too short")
    shape = struct.unpack_from(f"<{dimensions}I", view, 1)
    data = bytes(view[start:])
    expected = 4
    for n in shape:
        expected *= n
    if len(data) != expected or not data:  # with a dimension of none, another could claim four billion rows
        raise WireError(f"array of shape {shape} with {len(data)} bytes")
    return Array(shape, data)


BROKEN = (msgspec.DecodeError, struct.error, UnicodeDecodeError, RecursionError)  # what decoding may raise

_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_extension)
encode = _encoder.encode
encode_into = _encoder.encode_into
_decode_any = msgspec.msgpack.Decoder(ext_hook=_decode_extension).decode
_decode_structured = msgspec.msgpack.Decoder(tuple[dict[str, Any], str], ext_hook=_decode_extension).decode
_decoders: dict[type[Any], Callable[[Any], Any]] = {
    cls: msgspec.msgpack.Decoder(cls, ext_hook=_decode_extension).decode
    for cls in (WorkerHello, Hello, Req, Resp, Failure, Credit, Ping, Update, Shutdown, Whose)
}
_decode_chunks = msgspec.msgpack.Decoder(list[bytes]).decode


def decode(payload: bytes | memoryview) -> Any:
    """One msgpack value, of somebody who is trusted or whose value was weighed.

    Raises:
        WireError: it is not one.
    """
    return _decode(_decode_any, payload, "msgpack")


def decode_weighed(payload: bytes | memoryview) -> Any:
    """One msgpack value, of a worker.

    Raises:
        WireError: it is not one, or costs too much.
    """
    check_weight(payload)
    return _decode(_decode_any, payload, "msgpack")


def check_weight(payload: bytes | memoryview) -> None:
    """Refuse a msgpack value that would cost too much.

    Raises:
        WireError: it is of no honest worker, which looks before it sends.
    """
    try:
        weigh(payload, STRUCTURED_EXT)
    except TooHeavy as error:
        raise WireError(str(error)) from error


def decode_head(cls: type[H], payload: bytes | memoryview) -> H:
    """The head of type `cls`, its fields checked.

    Raises:
        WireError: it is something else.
    """
    check_weight(payload)
    return cast(H, _decode(_decoders[cls], payload, cls.__name__))


def _decode(decoder: Callable[[Any], Any], payload: bytes | memoryview, what: str) -> Any:
    try:
        return decoder(payload)
    except BROKEN as error:
        raise WireError(f"bad {what}: {error}") from error


def join(head: Head, body: bytes | memoryview = b"") -> bytes:
    """A head and the body that follows it, as one payload."""
    packed = encode(head)
    return b"".join((HEAD_SIZE.pack(len(packed)), packed, body))


def split(cls: type[H], payload: bytes | memoryview) -> tuple[H, bytes | memoryview]:
    """What `join` joined; the body is a view where the payload is one."""
    size = len(payload)
    try:
        start = BEHIND_SIZE + HEAD_SIZE.unpack_from(payload)[0]
        if start > size or start > MAX_FRAME:
            raise WireError(f"{cls.__name__} head of {start} bytes in a payload of {size}")
        head: H = _decoders[cls](payload[BEHIND_SIZE:start])
        return head, payload[start:]
    except BROKEN as error:
        raise WireError(f"bad {cls.__name__}: {error}") from error


def join_items(packed: list[bytes]) -> bytes:
    """Items that were encoded one by one, at most a window of them, as one msgpack array."""
    n = len(packed)
    return (bytes((0x90 | n,)) if n < 16 else b"\xdc" + n.to_bytes(2, "big")) + b"".join(packed)


def split_items(payload: bytes | memoryview, kind: int = DATA) -> tuple[list[Any], int]:
    """The items of an items frame, and their bytes as their sender counts them. Those of BYTES are bytes.

    Raises:
        WireError: they are no list, or more than a window holds, or cost too much.
    """
    size = len(payload)
    try:
        if kind == DATA and 0 < size <= SMALL and payload[0] & 0xF0 == 0x90:  # what nearly all are
            return _decode_any(payload), size - 1
        return _split_items(payload, size, kind)
    except BROKEN as error:
        raise WireError(f"bad items: {error}") from error


def _split_items(payload: bytes | memoryview, size: int, kind: int) -> tuple[list[Any], int]:
    first = payload[0] if size else 0
    mark = 1
    if first & 0xF0 != 0x90:
        if first != 0xDC or int.from_bytes(payload[1:3], "big") > WINDOW_ITEMS:
            raise WireError("items that are no list of what a window holds")
        mark = 3
    if kind == BYTES:
        return _decode_chunks(payload), size - mark
    if kind != DATA:
        raise WireError("items for a websocket")
    check_weight(payload)
    return _decode_any(payload), size - mark


def decode_message(payload: bytes | memoryview) -> tuple[str, Any]:
    """One message of a websocket: ("send", text or bytes) or ("close", (code, reason)).

    Raises:
        WireError: it is something else.
    """
    match decode_weighed(payload):
        case ["send", str() | bytes() as data]:
            return "send", data
        case ["close", [int(code), str(reason)]] if is_close(code, reason):
            return "close", (code, reason)
    raise WireError("a message that is none")


def is_close(code: int, reason: str) -> bool:
    """Whether a websocket can be closed so: by a number that may be sent, and 123 bytes of a reason."""
    may_be_sent = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    return may_be_sent and len(reason.encode("utf-8", "replace")) <= 123


def check_resp(head: Resp) -> None:
    """Refuse the head of an answer that must not reach a client's socket.

    Raises:
        WireError: a worker let it through, though its own code never does.
    """
    check_answer(head.status, head.headers)
    if not head.raw and head.status != 200:
        raise WireError(f"status {head.status} without a Response")
    if not CONTENT_TYPE.fullmatch(head.content_type):
        raise WireError("a content type with control characters, or one that is too long")


def check_form(head: Resp, req: Req) -> None:
    """Refuse an answer in another form than its call has, which the readers of that one could not take.

    Raises:
        WireError: as it says.
    """
    if req.method == SOCKET:
        if head.raw or head.stream or head.final or head.kind != DATA:
            raise WireError("an answer to a websocket, which has messages")
    elif head.stream == head.final:
        raise WireError("an answer that is neither whole nor a stream")
    elif head.kind != (BYTES if head.raw else req.mode):
        raise WireError("an answer whose values are not of the kind that was asked for")


def check_failure(failure: Failure) -> None:
    """The same for an error.

    Raises:
        WireError: its status is that of no error, or a header would end the head.
    """
    check_answer(failure.status, failure.headers)
    if failure.status < 400:
        raise WireError(f"an error with status {failure.status}")


def check_answer(status: int, headers: list[tuple[str, str]]) -> None:
    """Refuse a status of no answer, headers that would end the head, and more of them than anybody takes.

    Raises:
        WireError: as it says.
    """
    if not 200 <= status <= 599:
        raise WireError(f"status {status}")
    if not headers:
        return
    if not headers_are_clean(headers):
        raise WireError("a header with control characters")
    if sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD:
        raise WireError(f"headers of more than {MAX_HEAD >> 10} KiB")


def headers_are_clean(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether each is a token and a line of latin-1: with a line break in it, a header would forge an answer."""
    return all(HEADER_NAME.fullmatch(name) and HEADER_VALUE.fullmatch(value) for name, value in headers)


def name_of(kind: int) -> str:
    """A kind of frame as people call it."""
    return NAMES[kind] if 0 < kind < len(NAMES) else f"unknown ({kind})"
