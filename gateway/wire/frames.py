"""The frames between the gateway and a worker.

One frame: u32 payload length | u8 kind | u32 call id | payload, little-endian. The two top bits of the kind are flags.
MORE: the payload continues in the next frame with this id, so that a 20 MB body does not delay the chunks of other
calls. MEMFD is reserved. The gateway chooses the ids of calls and questions; id 0 is the channel itself. A cancel, end
or error inside a split payload means that the rest will not come.

    frame      direction         payload                    rule
    hello      worker, gateway   WorkerHello / Hello        version check; secrets travel here and in update only
    described  worker            Capabilities as dict       the class is imported, before load(); optional
    ready      worker            Capabilities as dict       after load(); no req before it
    req        gateway           Req head + body
    resp       worker            Resp head + body           `final`: the code has stopped, no end follows
    items      worker            msgpack array of items     everything ready in one turn of the loop
    end        worker            empty                      the model's code has stopped: the slot is free
    error      worker            Failure                    as end; with id 0: load failed, the worker cannot go on
    ask        gateway           Ask                        a question of the gateway itself: it takes no slot
    answer     worker            msgpack value              to a question; no end follows. Never larger than a frame
    cancel     gateway           empty                      a call or question; answered by end or error
    credit     gateway           Credit                     what the client has consumed of a stream
    slot       worker            empty                      a call got its slot (only models with preprocess or
                                                            postprocess, whose calls are sent before they have one)
    waits      worker            empty                      a call begins to wait for its slot (the same models)
    recall     both              empty                      the gateway wants a call back that was sent ahead; the
                                                            worker gives it back, unless it has begun
    message    both              msgpack value              one websocket message
    ping       both              Ping                       heartbeat, with the loop's lag
    log        worker                                       reserved
    batch      worker            Batch                      calls begin to run together; with id 0
    update     gateway           Update                     environment or secrets changed
    scrape     gateway           empty                      answered by metrics
    metrics    worker            Prometheus text            the model's own registry
    shutdown   gateway           Shutdown                   finish, unload, exit 0
    whose      both              Whose                      whether a connection is the worker's; answered by the same

Heads are msgspec arrays: no field names on the wire, and the decoder checks types. Bodies follow their head unchanged.

The gateway does not trust the worker. Three things end that replica, and only that one: a payload that does not decode;
one that would cost far more than its size, see `FROM_WORKER` and `weighing.py`; and one that decodes but is not a valid
answer, see `checks.py`. An honest worker applies the same checks to its own answers and fails the call instead.
`values.py` encodes values.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec

from .values import BROKEN, WireError, check_weight, decode_by, decode_raw, decoder_of, encode, fault_of
from .weighing import SMALL

VERSION = 1
HEADER = struct.Struct("<IBI")
HEAD_SIZE = struct.Struct("<I")
BEHIND_SIZE = HEAD_SIZE.size  # cached: the struct computes it on each access
MAX_FRAME = 256 * 1024  # bytes of payload; one unsplit frame of 20 MB delayed other streams by 20-40 ms
MAX_PAYLOAD = 1 << 28  # bytes of a joined payload; send larger data as a stream
MAX_PENDING = 1 << 30  # bytes of all incomplete payloads, of one worker and of all together
MAX_BATCH = 8192  # items, each of which is counted; settings allow no larger batches
MAX_METRICS = 1 << 20  # bytes of the metrics that one replica registered
MORE, MEMFD, KIND = 0x80, 0x40, 0x3F
WINDOW_ITEMS, WINDOW_BYTES = 64, 256 * 1024  # what a stream may send ahead of the client

HELLO, READY, REQ, RESP, ITEMS, END, ERROR, CANCEL, CREDIT = range(1, 10)
SLOT, MESSAGE, PING, LOG, BATCH, UPDATE, SCRAPE, METRICS, SHUTDOWN, DESCRIBED, WHOSE = range(10, 21)
WAITS, ASK, ANSWER, RECALL = range(21, 25)
NAMES = (
    "",
    *("hello", "ready", "req", "resp", "items", "end", "error", "cancel", "credit"),
    *("slot", "message", "ping", "log", "batch", "update", "scrape", "metrics", "shutdown", "described", "whose"),
    *("waits", "ask", "answer", "recall"),
)

# The frames that may abort a split payload.
GIVING_UP = frozenset((END, ERROR, CANCEL))

# Maximum payload size by kind for frames from a worker, where it is more than one frame.
FROM_WORKER = {RESP: MAX_PAYLOAD, ITEMS: MAX_PAYLOAD, MESSAGE: MAX_PAYLOAD, METRICS: MAX_METRICS}
MAX_ITEM = MAX_PAYLOAD - 16  # bytes of a single item; its list header takes the rest
# On stderr, not on the channel: the first characters of lines that form one log record of the worker.
BEGINS, GOES_ON = "\x1e", "\x1f"

# How the body of a call is encoded, and its answer.
BYTES = 0  # Truss-style: raw bytes in, raw bytes out, parsed in the worker
DATA = 1  # dialects: one msgpack value in, msgpack values out
MESSAGES = 2  # the answer is websocket messages; never in a head


class Head(msgspec.Struct, array_like=True, gc=False):
    """Base of all heads: plain data, never part of a cycle."""


H = TypeVar("H", bound=Head)
SOCKET = "websocket"  # the method of websocket calls

Mode = Annotated[int, msgspec.Meta(ge=0, le=1)]  # BYTES or DATA
Count = Annotated[int, msgspec.Meta(ge=0)]
What = Literal["is_healthy", "swap_class"]
Vectors = Literal["", "array", "base64", "float"]


class WorkerHello(Head):
    version: int
    pid: int
    python: str
    devices: str | None  # CUDA_VISIBLE_DEVICES as the worker sees it


class Hello(Head):
    version: int
    model: dict[str, Any]  # a ModelSpec as plain data
    slots: int
    max_waiting: int  # calls that may wait inside the worker, after preprocess
    secrets: dict[str, str]
    deployment: dict[str, Any] | None  # Truss's `environment`: the deployment
    plugin_dirs: list[str] = []
    endpoint_methods: list[str] = []
    queue_timeout: float = 30.0
    cancel_grace: float = 5.0
    debug: bool = False
    taken_ports: list[int] = []  # ports of the old replica's servers, which runs beside this one


class Whose(Head):
    """A connection from this machine to the gateway."""

    client_port: int
    server_port: int
    is_mine: bool = False


class HTTPScope(Head):
    """The parts of the request that are passed to methods that take the Request."""

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
    deadline: float | None = None  # seconds from now; code does not start after the client's deadline
    scope: HTTPScope | None = None
    route: str = ""  # for the model's log; "" if the gateway itself counts tokens
    events: bool = False  # Truss: `Accept: text/event-stream` sends items that are not text as server-sent events
    vectors: Vectors = ""  # how vectors in the answer are encoded: float32 or JSON text; "" leaves them as they are


class Ask(Head):
    """A question has no route, no client and no body.

    The answer to `is_healthy` is true, false or nil. `swap_class` replaces the class with its new code, like the hot
    reload of Truss; its answer is Capabilities.
    """

    what: What


class Resp(Head):
    """`kind` says how the gateway decodes what follows.

    A stream of BYTES whose first item is neither text nor bytes has a second head, directly before that item. The first
    was sent at the start of the stream, when the type was not known.
    """

    status: int
    kind: Mode
    stream: bool
    final: bool
    content_type: str
    headers: list[tuple[str, str]] = []
    raw: bool = False  # a Response object of the user: passed on unchanged


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
    fatal: bool = False  # with id 0: a retry would fail the same way


class Credit(Head):
    items: Count
    size: Count


class Ping(Head):
    number: int
    lag: Annotated[float, msgspec.Meta(ge=0)]  # seconds that the sender's event loop was late


class Batch(Head):
    """The calls whose items begin to run together, each once, and the seconds that each item has waited.

    `is_again` is set if the items of a batch that failed are going to be run one by one.
    """

    calls: list[Count]
    waits: Annotated[list[Annotated[float, msgspec.Meta(ge=0, le=1e9)]], msgspec.Meta(max_length=MAX_BATCH)]
    is_again: bool = False


class Update(Head):
    secrets: dict[str, str] | None = None
    deployment: dict[str, Any] | None = None


class Shutdown(Head):
    grace: float  # seconds


_decoders: dict[type[Any], Callable[[Any], Any]] = {
    cls: decoder_of(cls)
    for cls in (WorkerHello, Hello, Req, Ask, Resp, Failure, Credit, Ping, Batch, Update, Shutdown, Whose)
}
_decode_chunks = decoder_of(list[bytes])


_LARGEST: dict[type[Head], int] = {Ping: 64, Credit: 64, Whose: 64}  # bytes of heads that hold only numbers


def decode_head(cls: type[H], payload: bytes | memoryview) -> H:
    """Decode a head of type `cls` and check its fields.

    Raises:
        WireError: it is something else.
    """
    if len(payload) > (most := _LARGEST.get(cls, MAX_PAYLOAD)):
        raise WireError(f"{cls.__name__} of {len(payload)} bytes, at most {most} allowed")
    check_weight(payload)
    return cast(H, decode_by(_decoders[cls], payload, cls.__name__))


def join(head: Head, body: bytes | memoryview = b"") -> bytes:
    """Join a head and its body into one payload."""
    packed = encode(head)
    return b"".join((HEAD_SIZE.pack(len(packed)), packed, body))


def split(cls: type[H], payload: bytes | memoryview) -> tuple[H, bytes | memoryview]:
    """Undo `join`. The body is a view if the payload is one."""
    size = len(payload)
    try:
        start = BEHIND_SIZE + HEAD_SIZE.unpack_from(payload)[0]
        if start > size or start > MAX_FRAME:
            raise WireError(f"{cls.__name__} head of {start} bytes in a payload of {size}")
        head: H = _decoders[cls](payload[BEHIND_SIZE:start])
        return head, payload[start:]
    except BROKEN as error:
        raise WireError(f"bad {cls.__name__}: {fault_of(error)}") from error


def join_items(packed: list[bytes]) -> bytes:
    """Join items that were encoded one by one (at most a window of them) into one msgpack array."""
    n = len(packed)
    return (bytes((0x90 | n,)) if n < 16 else b"\xdc" + n.to_bytes(2, "big")) + b"".join(packed)


def split_items(payload: bytes | memoryview, kind: int = DATA) -> tuple[list[Any], int]:
    """Decode an items frame. Returns the items and their size in bytes, as the sender counts it. BYTES items are bytes.

    Raises:
        WireError: not a list, more items than a window, or too costly.
    """
    size = len(payload)
    try:
        if kind == DATA and 0 < size <= SMALL and payload[0] & 0xF0 == 0x90:  # nearly all frames
            return decode_raw(payload), size - 1
        return _split_items(payload, kind)
    except BROKEN as error:
        raise WireError(f"bad items: {fault_of(error)}") from error


def size_of_items(payload: bytes | memoryview) -> int:
    """Return the size in bytes of the items in a frame that is not decoded, as the sender counts it.

    Raises:
        WireError: not a list, or more items than a window.
    """
    first = payload[0] if len(payload) else 0
    if first & 0xF0 == 0x90:
        return len(payload) - 1
    if first != 0xDC or int.from_bytes(payload[1:3], "big") > WINDOW_ITEMS:
        raise WireError("items that are not a list, or more than a window")
    return len(payload) - 3


def _split_items(payload: bytes | memoryview, kind: int) -> tuple[list[Any], int]:
    size = size_of_items(payload)
    if kind == BYTES:
        return _decode_chunks(payload), size
    if kind != DATA:
        raise WireError("items for a websocket")
    check_weight(payload)
    return decode_raw(payload), size


def name_of(kind: int) -> str:
    """Return the name of a kind of frame."""
    return NAMES[kind] if 0 < kind < len(NAMES) else f"unknown ({kind})"
