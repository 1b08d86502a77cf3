"""Bodies: read within bounds of size, time and number of pieces; decoded strictly, or refused by name."""

from __future__ import annotations

import asyncio
import json
import math
import tracemalloc
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes import VirtualLoop
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import json_costs
from gateway.errors import BadRequest, InvalidJSON, SlowBody, TooLarge
from gateway.http.body import (
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_KEYS,
    MAX_TEXTS,
    BodyReader,
    decode_json,
    decode_object,
)
from gateway.http.collected_body import MAX_READS
from gateway.runners.pending import ClientLeft

Events = list[Any]


class Client:
    """What a server's `receive` gives: parts of a body, pauses in seconds, and "gone"."""

    def __init__(self, events: Events) -> None:
        self.events, self.asked = list(events), 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if self.events and isinstance(self.events[0], float):
            await asyncio.sleep(self.events.pop(0))
        if not self.events:
            await asyncio.Event().wait()
        event = self.events.pop(0)
        if event == "gone":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": event, "more_body": bool(self.events)}


def run(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def read(events: Events, limit: int = 10_000, length: bytes | None = None, **times: float) -> bytes:
    body: bytes = run(BodyReader(**times).read(Client(events).receive, length, limit))
    return body


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20), st.integers(0, 600))
def test_however_a_body_is_cut_it_is_its_concatenation_or_too_large(parts: list[bytes], limit: int) -> None:
    whole = b"".join(parts)
    if len(whole) <= limit:
        assert read(parts, limit) == whole
    else:
        with pytest.raises(TooLarge):
            read(parts, limit)


def test_a_large_body_is_not_put_together_in_one_turn() -> None:
    size, client = 1 << 24, Client([b"x" * (1 << 16)] * (1 << 8))

    async def work() -> None:
        tracemalloc.start()
        try:
            assert len(await BodyReader().read(client.receive, None, size)) == size
            assert tracemalloc.get_traced_memory()[1] < 1.5 * size
        finally:
            tracemalloc.stop()

    run(work())


@pytest.mark.parametrize("parts", [[b"x" * 99], [b"x" * 50, b"x" * 49], [b"x"] * 99])
def test_the_limit_is_exact(parts: list[bytes]) -> None:
    assert len(read(parts, 99)) == len(read(parts, 100)) == 99
    with pytest.raises(TooLarge):
        read(parts, 98)


class Flow:
    """That of a connection which is not read, because of a body that is large."""

    read_paused = True

    def resume_reading(self) -> None:
        self.read_paused = False


@pytest.mark.parametrize("is_whole", [True, False])
def test_behind_a_large_body_the_connection_is_read_on_so_that_its_end_is_seen(is_whole: bool) -> None:
    flow = Flow()
    cycle: Any = SimpleNamespace(body=bytearray(b"xy"), more_body=not is_whole, disconnected=False, flow=flow)
    client = Client([b"x", b"y"])
    assert run(BodyReader().read(client.receive, None, 10, cycle)) == b"xy"
    assert client.asked == (0 if is_whole else 2) and not flow.read_paused


def test_a_declared_length_over_the_limit_is_refused_before_reading() -> None:
    client = Client([b"x"])
    with pytest.raises(TooLarge) as caught:
        run(BodyReader().read(client.receive, b"101", 100))
    assert client.asked == 0 and caught.value.headers == {"connection": "close"}
    assert read([b"x"], 100, b"100") == read([b"x"], 100, b"0" * 5000 + b"100") == b"x"


@pytest.mark.parametrize("length", [b"", b"-5", b"+5", b"1e3", b"0x10", b"five", "٥".encode()])
def test_a_length_that_is_no_number_says_nothing(length: bytes) -> None:
    assert read([b"abc"], 10, length) == b"abc"


def test_no_progress_and_no_end_are_408() -> None:
    for events in ([b"a", 16.0, b"b"], [16.0, b"a"], [*([b"a", 14.0] * 5), b"a"]):
        with pytest.raises(SlowBody) as caught:
            read(events)
        assert caught.value.headers == {"connection": "close"}
    assert read([*([b"a", 14.0] * 4), b"a"]) == b"aaaaa"
    assert read([b"a", 14.0, b"b"], idle_timeout=15.0, total_timeout=14.5) == b"ab"


def test_a_flood_of_tiny_chunks_is_refused_and_a_large_body_in_as_many_is_not() -> None:
    with pytest.raises(BadRequest, match="tiny chunks"):
        read([b"x"] * (MAX_READS + 2), 10**6)
    parts = [b"x" * 256] * (MAX_READS + 2)
    assert len(read(parts, 10**7)) == 256 * len(parts)
    assert len(read([b"x"] * MAX_READS, 10**6)) == MAX_READS


@pytest.mark.parametrize("events", [["gone"], [b"a", "gone"], [b"a", b"b", 1.0, "gone"]])
def test_a_client_that_leaves_in_the_middle_is_no_error(events: Events) -> None:
    with pytest.raises(ClientLeft):
        read(events)


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def decoded(body: bytes) -> Any:
    """The value; None for InvalidJSON and "invalid" never for anything else."""
    try:
        return decode_json(body)
    except InvalidJSON as error:
        assert error.status == 400 and error.code == "invalid_json"
        return InvalidJSON


def refuse(name: str) -> Any:
    raise ValueError(name)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff")
@example(b'"\xed\xa0\x80"')
@example(b'"\\ud800"')
@example(b"\xef\xbb\xbf{}")
@example(b"NaN")
@example(b"-Infinity")
@example(b"[1e999]")
@example(b"1" * 5000)
@example(b'{"a": ' + b"9" * 5000 + b"}")
@example(b"[" * 100_000)
@example(b'{"":' * 50_000)
@example(b"[" * 65 + b"]" * 65)
def test_any_bytes_are_a_value_or_invalid_json(body: bytes) -> None:
    value = decoded(body)
    if value is InvalidJSON:
        return
    assert value == json.loads(body, parse_constant=refuse)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(values, st.booleans())
def test_any_json_value_is_read_as_the_standard_library_reads_it(value: Any, escaped: bool) -> None:
    assert decoded(json.dumps(value, ensure_ascii=escaped).encode()) == value


@given(values, st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_damaged_body_is_read_alike_or_refused(value: Any, place: int, damage: bytes) -> None:
    body = json.dumps(value).encode()
    body = body[:place] + damage + body[place + 1 :]
    found = decoded(body)
    if found is not InvalidJSON:
        assert found == json.loads(body, parse_constant=refuse)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"NaN", b"[NaN]", b'{"a":Infinity}', b"-Infinity", b"1e400", b"1" * 5000, b'"\xff"', b'"\\ud83d"'),
        *(b"{'a':1}", b"[1,]", b"01", b"{}{}", b"tru", b'"a\nb"', b"/**/1", b"\xff\xfe{\x00}\x00", b"{1:2}"),
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert decoded(body) is InvalidJSON


def nested(depth: int, opening: str, closing: str) -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"]}[{":', "}]")])
def test_depth_64_is_read_and_65_is_not(opening: str, closing: str) -> None:
    levels = 2 if opening.startswith("[{") else 1
    assert decoded(nested(MAX_DEPTH // levels, opening, closing)) is not InvalidJSON
    assert decoded(nested(MAX_DEPTH // levels + 1, opening, closing)) is InvalidJSON


def test_brackets_in_strings_and_side_by_side_are_no_depth() -> None:
    text = "[" * 500 + '\\"' + "{" * 500
    assert decoded(json.dumps({"a": text, '[["\\': [[]] * 500}).encode()) == {"a": text, '[["\\': [[]] * 500}


@given(st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=3), max_leaves=200), st.integers(55, 70))
def test_depth_is_measured_as_a_walk_over_the_value_would(value: Any, wrap: int) -> None:
    for _ in range(wrap):
        value = [value]

    def depth(item: Any) -> int:
        return 1 + max((depth(inner) for inner in item), default=0)

    assert (decoded(json.dumps(value).encode()) is InvalidJSON) is (depth(value) > MAX_DEPTH)


TOO_MUCH = {
    "objects": (b"{},", MAX_ITEMS),
    "arrays": (b"[],", MAX_ITEMS),
    "arrays in arrays": (b"[" * 50 + b"]" * 50 + b",", MAX_ITEMS // 50),
    "texts": (b'"",', MAX_TEXTS),
    "keys": (b'{"":"",' + b'"":0,' * 98 + b'"":0},', MAX_KEYS // 100),
}


@pytest.mark.parametrize(("piece", "most"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_json_that_is_dear_to_read_is_refused_before_it_is_read(piece: bytes, most: int) -> None:
    assert decode_json(b"[" + piece * (most - 1) + b"1]") is not None
    with pytest.raises(TooLarge):
        decode_json(b"[" + piece * (most + 1) + b"1]")


def test_what_all_kinds_take_together_is_bounded_too() -> None:
    kinds = (b'"",', MAX_TEXTS), (b"1e308,", 200_000), (b"9007199254740993e0,", 200_000)
    parts = [piece * (most - 1) for piece, most in kinds]
    for part in parts:
        assert decode_json(b"[" + part + b"1]") is not None
    with pytest.raises(TooLarge, match="together take long to read"):
        decode_json(b"[" + b"".join(parts) + b"1]")


def test_slow_numbers_of_a_short_body_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise some kilobytes would hold the loop for a tenth of a second."""
    read: list[str] = []
    hook = msgspec.json.Decoder(float_hook=read.append).decode
    monkeypatch.setattr(json_costs, "_by_float", hook)
    decode_json(b"[" + b"1e308," * 40 + b"1]")
    assert read == ["1e308"] * 40


@pytest.mark.parametrize(
    "piece",
    [
        b"1.1102230246251565e-16,",
        b"0.1234567,",
        b"123456.789E+03,",
        b'"1e308",',
        b"-0.5e0,",
        b"0.00012345678901234567,",
        b"4503599627370495,",
    ],
)
def test_numbers_as_programs_write_them_may_be_many(piece: bytes) -> None:
    assert len(decode_json(b"[" + piece * (1 << 17) + b"1]")) == (1 << 17) + 1


@given(st.recursive(st.text('a[{"\\,', max_size=5), lambda i: st.lists(i) | st.dictionaries(st.text(max_size=3), i)))
def test_arrays_and_objects_are_counted_as_a_walk_over_the_value_would(value: Any) -> None:
    def count(item: Any) -> int:
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else None
        return 0 if inner is None else 1 + sum(map(count, inner))

    body = json.dumps(value).encode()
    assert decode_json(body, count(value)) == value
    if count(value):
        with pytest.raises(TooLarge):
            decode_json(body, count(value) - 1)


def test_a_large_text_may_hold_what_it_likes() -> None:
    text = '[{"\\' * 1_000_000
    assert decode_json(json.dumps([text]).encode()) == [text]


def test_a_byte_order_mark_is_ignored_once() -> None:
    assert decode_json(b'\xef\xbb\xbf{"a": "\xef\xbb\xbf"}') == {"a": "\ufeff"}
    for body in (b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf{}", b"{}\xef\xbb\xbf"):
        with pytest.raises(InvalidJSON):
            decode_json(body)


def test_of_duplicate_keys_the_last_wins() -> None:
    assert decoded(b'{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}


def test_numbers_keep_their_kind() -> None:
    assert type(decoded(b"1")) is int and type(decoded(b"1.0")) is float
    assert decoded(b"-0.0") == 0 and math.copysign(1, decoded(b"-0.0")) == -1


@pytest.mark.parametrize(("body", "name"), [(b"[]", "an array"), (b'"x"', "a string"), (b"1", "a number")])
def test_a_body_that_is_no_object_is_named(body: bytes, name: str) -> None:
    with pytest.raises(InvalidJSON, match=name):
        decode_object(body)
    with pytest.raises(InvalidJSON, match="null"):
        decode_object(b"null")
    with pytest.raises(InvalidJSON, match="a boolean"):
        decode_object(b"true")
