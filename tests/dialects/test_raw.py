"""What a Model passes on from another server: read or passed through, whole or cut, in every form it may have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.anthropic.messages import MessageEnding
from gateway.dialects.base import Dialect
from gateway.dialects.event_stream import EventStream, Sent, one_line
from gateway.dialects.openai.chat import ChatDialect
from gateway.dialects.openai.chunks import ChunkEnding
from gateway.dialects.openai.completions import CompletionsDialect
from gateway.dialects.raw import Ending, Opening, RawStream
from gateway.dialects.responses.route import ResponseEnding, ResponsesDialect
from gateway.errors import HTTPError, InvalidOutput

from . import anthropic_sdk, responses_sdk, sdk, test_openai_completions
from .relayed import CHAT, COMPLETIONS, MESSAGES, RESPONSES, STREAMS, TEXT, framed, pieces, written
from .test_anthropic_messages import MessagesDialect

DIALECTS: dict[str, Dialect] = {
    "chat": ChatDialect(),
    "completions": CompletionsDialect(),
    "responses": ResponsesDialect(),
    "messages": MessagesDialect(),
}
METHODS = {"chat": "chat_completions"}


def passed(batches: Iterable[list[Any]], ending: Ending) -> tuple[list[bytes], Any]:
    """What goes out of a stream that is passed through, and how it failed."""
    raw = RawStream(ending)
    out = []
    for batch in batches:
        out.append(raw.feed(batch))
        if raw.failure is not None:
            return out, raw.failure
    return [*out, raw.finish()], raw.failure


def whole_text(route: str, batches: list[list[Any]], method: str) -> Any:
    """Text and reason of the whole answer that a route makes of them."""
    items = [item for batch in batches for item in batch]
    if route == "chat":
        choice = json.loads(sdk.encode_whole([(0, items)]))["choices"][0]
        return choice["message"]["content"], choice["finish_reason"]
    if route == "completions":
        choice = json.loads(test_openai_completions.encode_whole([(0, items)], method=method))["choices"][0]
        return choice["text"], choice["finish_reason"]
    if route == "messages":
        message = json.loads(anthropic_sdk.encode_whole(batches, method))
        return "".join(block["text"] for block in message["content"]), message["stop_reason"]
    under_way = responses_sdk.encoder(method)
    for batch in batches:
        under_way.feed(batch)
    return _said(json.loads(under_way.whole()[0]))


def streamed_text(route: str, batches: list[list[Any]], method: str) -> Any:
    """The same of the events that a route makes of them."""
    numbered = [(0, batch) for batch in batches]
    if route == "responses":
        return _said(_events(responses_sdk.stream_of(*batches, method=method))[-1]["response"])
    if route == "messages":
        events = _events(anthropic_sdk.encode_stream(batches, method))
        deltas = [event["delta"] for event in events if "delta" in event]
        return "".join(delta.get("text", "") for delta in deltas), deltas[-1]["stop_reason"]
    if route == "chat":
        choices = [event["choices"][0] for event in _events(sdk.encode_stream(numbered))]
        return "".join(choice["delta"].get("content", "") for choice in choices), choices[-1]["finish_reason"]
    stream = test_openai_completions.encode_stream(numbered, method=method)
    choices = [event["choices"][0] for event in _events(stream)]
    return "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]


def _events(stream: bytes) -> list[Any]:
    return [event for name, event in reads(one_line(stream)) if name != "ping" and event != "[DONE]"]


def _said(response: Any) -> Any:
    return response["output"][0]["content"][0]["text"], response["status"]


def reads(stream: bytes) -> list[tuple[str, Any]]:
    """What goes out, event by event: LF only, no ids, never torn, no line that others would take for two."""
    text = stream.decode()
    assert "\r" not in text and "\ufeff" not in text and text.endswith("\n\n")
    assert text.splitlines() == text.split("\n")[:-1]
    found = []
    for block in text[:-2].split("\n\n"):
        lines = block.split("\n")
        fields = [line.partition(":")[::2] for line in lines]
        assert not {"id", "retry"} & {name for name, _ in fields}
        data = "\n".join(value.removeprefix(" ") for name, value in fields if name == "data")
        named = next((value.strip() for name, value in fields if name == "event"), "")
        if data:
            found.append((named, data if data == "[DONE]" else json.loads(data)))
        else:
            assert lines == [": ping"]
    return found


FORMS = [
    ("chat", "chat_completions", "chat"),
    ("completions", "completions", "completions"),
    ("completions", "completions", "chat"),
    ("completions", "chat_completions", "chat"),
    ("responses", "responses", "responses"),
    ("responses", "responses", "chat"),
    ("responses", "chat_completions", "chat"),
    ("messages", "messages", "messages"),
    ("messages", "messages", "chat"),
    ("messages", "chat_completions", "chat"),
]
ENDED = {"chat": "length", "completions": "length", "responses": "incomplete", "messages": "max_tokens"}


@pytest.mark.parametrize(("route", "method", "form"), FORMS)
@settings(max_examples=40)
@given(data=st.data())
def test_every_form_in_any_pieces_is_read_as_the_same_answer(
    route: str, method: str, form: str, data: st.DataObject
) -> None:
    batches = data.draw(pieces(data.draw(written(STREAMS[form]))))
    expected = (TEXT, "completed" if form == "responses" else ENDED[route])
    assert whole_text(route, batches, method) == expected
    assert streamed_text(route, batches, method) == expected


@pytest.mark.parametrize("form", STREAMS)
@settings(max_examples=40)
@given(data=st.data())
def test_every_form_in_any_pieces_passes_with_the_same_events(form: str, data: st.DataObject) -> None:
    events, dialect = STREAMS[form], DIALECTS[form]
    batches = data.draw(pieces(data.draw(written(events))))
    opening = Opening(dialect.protocol)
    assert next(shows for batch in batches if (shows := opening.feed(batch)) is not None) == "pass"
    out, failure = passed(batches, dialect.ending())
    assert failure is None
    assert all(chunk == b"" or chunk.endswith(b"\n\n") for chunk in out)
    sent = [(name, event) for name, event in reads(b"".join(out)) if name != "ping"]
    assert sent == [(event.get("type", "") if isinstance(event, dict) else "", event) for event in events]


def lines_of(events: list[Any], *, blanks: bool, indent: int | None = None) -> list[str]:
    """A stream as `iter_lines` gives it: without the ends of its lines, perhaps without the empty ones."""
    lines = [": processing", ""]
    for event in events:
        if isinstance(event, dict) and "type" in event:
            lines.append(f"event: {event['type']}")
        text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False, indent=indent)
        lines += [*(f"data: {line}" for line in text.split("\n")), ""]
    return lines if blanks else [line for line in lines if line]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("blanks", [True, False])
@pytest.mark.parametrize(("route", "method", "form"), FORMS)
def test_lines_without_their_ends_are_the_same_stream(
    route: str, method: str, form: str, blanks: bool, indent: int | None
) -> None:
    lines = lines_of(STREAMS[form], blanks=blanks, indent=indent)
    expected = (TEXT, "completed" if form == "responses" else ENDED[route])
    for items in (lines, lines[2 if blanks else 1 :], [line.encode() for line in lines]):
        for batches in ([items], [[item] for item in items]):
            assert whole_text(route, batches, method) == expected
            assert streamed_text(route, batches, method) == expected
    if route == form:
        batches = [[line] for line in lines]
        opening = Opening(DIALECTS[form].protocol)
        assert next(shows for batch in batches if (shows := opening.feed(batch)) is not None) == "pass"
        out, failure = passed(batches, DIALECTS[form].ending())
        assert failure is None
        assert [event for name, event in reads(b"".join(out)) if name != "ping"] == STREAMS[form]


# ── a stream that was cut ────────────────────────────────────────────────────────────────────────────────────────────

OPEN = {"chat": CHAT[:2], "completions": COMPLETIONS[:1], "responses": RESPONSES[:-1], "messages": MESSAGES[:-2]}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("route", "method", "form"), FORMS)
def test_a_stream_that_is_cut_anywhere_before_its_end_is_no_answer(
    route: str, method: str, form: str, end: str
) -> None:
    stream = framed(OPEN[form], end).encode()
    begun = stream.index(b"data:") + 5
    for size in {begun, *range(begun, len(stream), 41), len(stream) - 1, len(stream)}:
        with pytest.raises(InvalidOutput):
            whole_text(route, [[stream[:size]]], method)
        out, failure = passed([[stream[:size]]], DIALECTS[form].ending())
        assert isinstance(failure, InvalidOutput)
        assert all(event in OPEN[form] for _, event in (reads(b"".join(out)) if any(out) else ()))


@pytest.mark.parametrize(("route", "method", "form"), FORMS)
def test_the_reason_alone_is_an_end_and_what_closes_the_stream_is_added(route: str, method: str, form: str) -> None:
    events = STREAMS[form] if form == "responses" else STREAMS[form][:-1]
    for text in (framed(events), framed(events)[:-1], framed(events)[:-2], framed(events) + 'data: {"cut'):
        assert whole_text(route, [[text]], method)[0] == TEXT
        out, failure = passed([[text]], DIALECTS[form].ending())
        assert failure is None
        assert [event for _, event in reads(b"".join(out))] == STREAMS[form]


def test_done_alone_is_an_end_and_is_sent_once_with_nothing_behind_it() -> None:
    for done in ("data: [DONE]", "data:[DONE]\n", "data: [DONE]\r\n\r\n", "data: [DONE]\n\n" * 2 + framed(CHAT)):
        out, failure = passed([[framed(CHAT[:1])], [done]], ChunkEnding())
        assert failure is None
        assert [event for _, event in reads(b"".join(out))] == [CHAT[0], "[DONE]"]
        assert whole_text("chat", [[framed(CHAT[:1])], [done]], "")[0] == "one\u2028"


@pytest.mark.parametrize(
    ("said", "reason"),
    [("", "stop"), ("eos", "stop"), ("eos_token", "stop"), ("model_length", "length"), ("max_tokens", "length")],
)
def test_the_reasons_of_other_servers_are_known_and_an_empty_one_is_none(said: str, reason: str) -> None:
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": ""}]},
        {"choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": said}]},
    ]
    assert whole_text("chat", [[framed([*chunks, "[DONE]"])]], "") == ("ab", reason)
    with pytest.raises(InvalidOutput, match="'abort' is none of"):
        whole_text("chat", [[framed([{"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}])]], "")


def test_thoughts_that_are_parts_of_the_content_are_reasoning() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts: list[Any] = [thought, {"type": "text", "text": "yes"}]
    chunk = {"choices": [{"index": 0, "delta": {"content": parts}, "finish_reason": "stop"}]}
    message = json.loads(anthropic_sdk.encode_whole([[framed([chunk])]], "messages"))
    blocks = [(block["type"], block.get("thinking", block.get("text"))) for block in message["content"]]
    assert blocks == [("thinking", "hm"), ("text", "yes")]


def test_each_of_several_choices_has_to_end() -> None:
    def ends(*indices: int) -> Any:
        chunks = [{"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]} for index in indices]
        return passed([[framed(chunks)]], ChunkEnding(2))[1]

    assert ends(0, 1) is None and isinstance(ends(0, 0), InvalidOutput)


ERRORS = [
    'data: {"error": {"message": "busy"}}\n\n',
    'data: {"error": "busy"}\n\n',
    "event: error\ndata: busy\n\n",
    'event: error\ndata: {"message": "busy"}',
    'event:error\ndata:{"message": "busy"}\n\n',
    'data: {"message": "busy"}\r\nevent: error\r\n\r\n',
    'event: error\ndata: {"type": "error", "message": "busy", "sequence_number": 3}\n\n',
    'data: {"type": "error", "message": "busy"}\n\n',
    'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}\n\n',
    'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}], "error": {"message": "busy"}}\n\n',
]


@pytest.mark.parametrize("text", ERRORS)
@pytest.mark.parametrize("form", STREAMS)
def test_an_error_of_the_other_server_ends_what_is_passed_on_and_is_ours_to_say(form: str, text: str) -> None:
    before, behind = STREAMS[form][:1], framed(STREAMS[form])
    stream = framed(before) + text + (behind if text.endswith("\n") else "")
    for batches in ([[stream]], [[framed(before)], [text], [behind if text.endswith("\n") else ""]], [[*stream]]):
        out, failure = passed(batches, DIALECTS[form].ending())
        assert isinstance(failure, HTTPError) and failure.message == "busy"
        assert [event for _, event in reads(b"".join(out))] == before


def test_a_response_that_failed_passes_for_it_is_in_the_words_of_the_route() -> None:
    text = framed([{"type": "response.failed", "response": {"error": {"message": "busy"}}}])
    raw = RawStream(ResponseEnding())
    assert raw.feed([text, framed(RESPONSES)]) + raw.finish() == text.encode()
    assert raw.failure is None and raw.is_failed


@pytest.mark.parametrize("text", ERRORS)
@pytest.mark.parametrize(("route", "method", "form"), FORMS)
def test_an_error_of_the_other_server_is_the_models_where_it_is_read(
    route: str, method: str, form: str, text: str
) -> None:
    for items in ([text], [framed(STREAMS[form][:1]), text]):
        with pytest.raises(HTTPError, match="busy"):
            whole_text(route, [items], method)


@pytest.mark.parametrize("form", STREAMS)
@pytest.mark.parametrize("text", ERRORS)
def test_an_error_that_comes_first_is_read_so_that_it_has_a_status(form: str, text: str) -> None:
    opening = Opening(DIALECTS[form].protocol)
    assert (opening.feed([text]) or opening.end()) == "read"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({"code": 429, "message": "busy"}, 429, "rate_limit_exceeded"),
        ({"code": "slow_down", "message": "busy"}, 500, "slow_down"),
        ({"code": 7, "message": "busy"}, 500, "model_error"),
    ],
)
def test_a_number_that_is_a_status_is_that_of_the_error(error: Any, status: int, code: str) -> None:
    with pytest.raises(HTTPError) as caught:
        whole_text("chat", [[f"data: {json.dumps({'error': error})}\n\n"]], "")
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize("route", STREAMS)
def test_comments_alone_are_a_stream_that_was_cut(route: str) -> None:
    for text in (": OPENROUTER PROCESSING\n\n", "\ufeff\r\nid: 1\r\n\r\n:", "event: ping\n\n"):
        with pytest.raises(InvalidOutput, match="broke off"):
            whole_text(route, [[text]], METHODS.get(route, route))


@pytest.mark.parametrize("route", STREAMS)
@pytest.mark.parametrize("protocol", ["messages", "responses"])
def test_events_of_a_protocol_that_the_method_does_not_speak_are_no_empty_answer(route: str, protocol: str) -> None:
    kind = {"messages": "message_start", "responses": "response.created"}[protocol]
    text = f'event: {kind}\ndata: {{"type": "{kind}"}}\n\ndata: [DONE]\n\n'
    for method in {"chat_completions", METHODS.get(route, route)} - {protocol}:
        with pytest.raises(InvalidOutput, match=f"events of /v1/{protocol}.*method `{protocol}`"):
            whole_text(route, [[text]], method)


# ── what is text ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text", ["\n\nHello", ":) hi", ":", "d", "data", "event: party\non: Friday", "id: 5\nname: x", "\n"]
)
def test_text_that_begins_as_events_might_is_whole_text(text: str) -> None:
    for batches in ([[text]], [[character] for character in text], [[text.encode()]]):
        assert whole_text("chat", batches, "")[0] == text
        assert streamed_text("chat", batches, "")[0] == text


def test_content_is_text_whatever_it_begins_with_and_so_is_what_follows() -> None:
    assert whole_text("chat", [[{"content": "data: 1"}, "\ndata: 2"]], "")[0] == "data: 1\ndata: 2"
    assert whole_text("chat", [["\n", {"content": "data: 1"}]], "")[0] == "\ndata: 1"


def test_events_of_other_names_are_passed_over_where_they_are_read() -> None:
    text = 'event: heartbeat\ndata: 12:30\n\nevent: timing\ndata: {"ms": 5}\n\n' + framed(STREAMS["chat"])
    assert whole_text("chat", [[text]], "") == (TEXT, "length")
    assert whole_text("messages", [[text]], "messages") == (TEXT, "max_tokens")


@pytest.mark.parametrize(
    "items",
    [
        [":", "", ":", "D"],
        [": a", ": b", "", ": c"],
        ["event:", "id:", "retry: x", "never"],
        ["event: party", "", " on Friday"],
    ],
)
def test_pieces_of_a_text_that_look_like_lines_are_whole_text(items: list[str]) -> None:
    assert whole_text("chat", [items], "")[0] == "".join(items)
    assert streamed_text("chat", [[item] for item in items], "")[0] == "".join(items)


def test_a_text_that_begins_as_data_does_is_told_what_to_do() -> None:
    for text in ("data: 5 apples\n\n", "data: [1]\n\n"):
        with pytest.raises(InvalidOutput, match="for a text that begins with"):
            whole_text("chat", [[text]], "")


# ── what the first items show ────────────────────────────────────────────────────────────────────────────────────────


NO_CHOICE = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{}]}
AZURE = {"chat": "pass", "completions": "read", "responses": "read", "messages": "read"}
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("route", "items", "shows"),
    [
        ("chat", ["", None, b"", "data: {}"], None),
        ("chat", ["", None, b"", 'data: {"mine": 1}\n\n'], "pass"),
        ("chat", ["a", "data: x"], "read"),
        ("chat", [{"content": "data:"}], "read"),
        ("chat", [": ping\n\n", {"content": "a"}], "read"),
        ("chat", [], None),
        ("chat", ["data: no JSON\n\n"], "read"),
        ("chat", [framed(MESSAGES)], "read"),
        ("chat", [framed(COMPLETIONS)], "read"),
        ("completions", [framed(CHAT)], "read"),
        ("responses", [framed(CHAT)], "read"),
        ("messages", [framed(CHAT)], "read"),
        ("messages", [framed([{"type": "ping"}, *MESSAGES])], "pass"),
        ("messages", ["event: message_start\ndata: {}\n\n"], "read"),
        ("messages", [f"data: {json.dumps(MESSAGES[0])}\n\n"], "read"),  # Anthropic's SDK passes over what has no name
        ("messages", [f"data: {json.dumps(MESSAGES[0])}\nevent: message_start\n\n"], "pass"),
        ("messages", [f"event: message\ndata: {json.dumps(MESSAGES[0])}\n\n"], "read"),
        ("responses", ['event: response.created\ndata: {"sequence_number": 0}\n\n'], "read"),
        ("responses", ['data: {"type": "response.created"}\n\n'], "pass"),
        ("chat", [framed([NO_CHOICE])], None),
        *((route, [framed([NO_CHOICE, *CHAT])], shows) for route, shows in AZURE.items()),
        ("chat", [framed([WHOLE])], "read"),  # of a server that does not stream
    ],
)
def test_events_pass_where_they_are_in_the_words_of_the_route(route: str, items: list[Any], shows: str | None) -> None:
    assert Opening(DIALECTS[route].protocol).feed(items) == shows


@pytest.mark.parametrize(("end", "shows"), [("", "pass"), ("\n", "pass"), ("}", "read")])
def test_an_event_whose_blank_line_never_came_is_told_at_the_end(end: str, shows: str) -> None:
    opening = Opening("chat")
    assert opening.feed(['data: {"choices": [{"delta": {}}]}' + end]) is None
    assert opening.end() == shows


def test_every_byte_of_a_large_first_event_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    real = EventStream.feed

    def feed(stream: EventStream, data: bytes) -> list[Sent]:
        nonlocal looked_at
        looked_at += len(data)
        return real(stream, data)

    monkeypatch.setattr(EventStream, "feed", feed)
    event = framed([{"choices": [{"delta": {"content": "x" * 100_000}}]}])
    opening = Opening("chat")
    shown = [opening.feed([event[at : at + 100]]) for at in range(0, len(event), 100)]
    assert shown[-1] == "pass" and set(shown[:-1]) == {None}
    assert looked_at == len(event)


def test_an_item_that_is_no_text_ends_the_stream_behind_what_came_before_it() -> None:
    out, failure = passed([[framed(CHAT[:1]), {"content": "a"}, "never"]], ChunkEnding())
    assert isinstance(failure, InvalidOutput) and [event for _, event in reads(b"".join(out))] == CHAT[:1]


def test_pings_of_the_other_server_are_comments_for_clients_that_know_no_other() -> None:
    ping = "event: ping\ndata: {}\n\n"
    assert RawStream(ChunkEnding()).feed([ping]) == b": ping\n\n"
    assert RawStream(MessageEnding()).feed([ping]) == b'event: ping\ndata: {"type": "ping"}\n\n'
    assert RawStream(ChunkEnding()).feed([": processing\n: on\n\n"]) == b": ping\n\n"


# ── with pings ───────────────────────────────────────────────────────────────────────────────────────────────────────


def with_pings(stream: bytes, ping: bytes) -> bytes:
    """A stream as it is when its model is silent before every event."""
    return b"".join([ping + event + b"\n\n" for event in stream.split(b"\n\n")[:-1]])


@pytest.mark.parametrize("is_passed", [True, False])
@pytest.mark.parametrize("route", STREAMS)
def test_the_sdks_read_every_stream_of_ours_with_pings_between_its_events(route: str, is_passed: bool) -> None:
    with_ids = "".join(f"id: {number}\nretry: 9\n{framed([event])}" for number, event in enumerate(STREAMS[route]))
    if is_passed:
        out, _ = passed([[with_ids]], DIALECTS[route].ending())
        stream = b"".join(out)
    elif route == "chat":
        stream = sdk.encode_stream([(0, [with_ids])])
    elif route == "completions":
        stream = test_openai_completions.encode_stream([(0, [with_ids])])
    elif route == "messages":
        stream = anthropic_sdk.encode_stream([[with_ids]], "messages")
    else:
        stream = responses_sdk.stream_of([with_ids], method="responses")
    pinged = with_pings(stream, DIALECTS[route].ping)
    if route == "chat":
        assert sdk.accumulate(pinged).choices[0].message.content == TEXT
    elif route == "completions":
        assert test_openai_completions.accumulate(pinged)[0]["text"] == TEXT
    elif route == "messages":
        assert [block.text for block in anthropic_sdk.accumulate(pinged).content if block.type == "text"] == [TEXT]
    else:
        assert responses_sdk.accumulated(pinged).output_text == TEXT
