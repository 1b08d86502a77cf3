"""JSON text that a model wrote costs no more to read than a request may, wherever it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway import json_costs
from gateway.dialects import model_json
from gateway.dialects.base import Encoder
from gateway.dialects.oip.values import from_predict
from gateway.dialects.openai.chunks import ChunkEnding
from gateway.dialects.plain_json import JsonEncoder
from gateway.dialects.raw import Opening, RawStream
from gateway.dialects.relayed_errors import error_in
from gateway.errors import InvalidOutput
from gateway.wire.values import Structured

from . import anthropic_sdk, responses_sdk, sdk

WORD = "would take too long to read"
MANY = 40_000  # lists, of 8 milliseconds
DEAR = '{"input":"x","type":"message_start","choices":[{"delta":{"content":"a"}}],"error":[' + "[]," * MANY + "[]]}"
EVENT = f"data: {DEAR}\n\n"
CALL = {"tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": DEAR}}]}


@pytest.fixture(autouse=True)
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of what is decoded, where a text may cost a few milliseconds."""
    sizes: list[int] = []
    decode = json_costs.decode

    def watched(body: bytes, found: Any = None) -> Any:
        sizes.append(len(body))
        return decode(body, found)

    monkeypatch.setattr(json_costs, "decode", watched)
    read, most = json_costs.read, json_costs.MOST // 100
    monkeypatch.setattr(json_costs, "read", lambda text, limit=0: read(text, most))
    return sizes


def passed_on() -> None:
    raw = RawStream(ChunkEnding())
    raw.feed(['data: {"choices":[]}\n\n'])
    raw.feed([EVENT])
    assert raw.failure is not None
    raise raw.failure


def passed_as_lines() -> None:
    raw = RawStream(ChunkEnding())
    raw.feed([EVENT.rstrip(), ""])
    assert raw.failure is not None
    raise raw.failure


def cut_off() -> None:
    raw = RawStream(ChunkEnding())
    raw.feed([EVENT.rstrip()])
    raw.finish()


def next_call(under_way: Encoder) -> None:
    under_way.feed([CALL, "a"])
    raise under_way.failure or AssertionError


READERS: list[Callable[[], Any]] = [
    passed_on,
    passed_as_lines,
    cut_off,
    lambda: Opening("chat").feed([EVENT]),
    lambda: error_in("error", DEAR.encode()),
    lambda: sdk.encode_whole([(0, [EVENT])]),
    lambda: anthropic_sdk.encode_whole([[CALL]]),
    lambda: anthropic_sdk.encode_stream([[CALL, "a"]]),
    lambda: next_call(responses_sdk.encoder(stream=True)),
    lambda: JsonEncoder().feed([{"a": Structured({}, DEAR)}]),
    lambda: from_predict(DEAR.encode(), "application/json"),
]


@pytest.mark.parametrize("read", READERS, ids=[str(number) for number in range(len(READERS))])
def test_what_would_take_too_long_is_an_error_of_the_model_and_not_decoded(
    decoded: list[int], read: Callable[[], Any]
) -> None:
    with pytest.raises(InvalidOutput, match=WORD):
        read()
    assert max(decoded, default=0) < MANY


def test_a_stream_that_failed_so_still_has_its_end(decoded: list[int]) -> None:
    under_way = anthropic_sdk.encoder(stream=True)
    with pytest.raises(InvalidOutput, match=WORD) as raised:
        next_call(under_way)
    assert b"event: error" in under_way.fail(raised.value) and max(decoded, default=0) < MANY
    assert under_way.choices[0].calls[0].arguments.whole is None


def test_a_long_text_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert model_json.read(f'"{"x" * (32 << 20)}"') == "x" * (32 << 20)
    assert json_costs.read(f'"{"x" * 1000}"', 2 * json_costs.QUOTE) == "x" * 1000
    assert len(model_json.read("[" + "0.5," * 1_000_000 + "1]")) == 1_000_001
