"""What grows with what a client or a model sends is worked on beside the loop, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from served import PATIENCE, Model, Served

from gateway import json_costs
from gateway.dialects.anthropic import messages
from gateway.dialects.openai import chat_request, completions, decisions, moderations, speech
from gateway.dialects.responses import route as responses
from gateway.dialects.scoring import classify, rerank, score, tokenize
from gateway.http.exchange import Exchange
from gateway.http.off_loop import A_TURN, AT_ONCE, LIGHT, Beside
from gateway.http.routes import dialects, stored, token_counts
from gateway.runners.call import Call
from gateway.runners.pending import ClientLeft

PLUGINS = [completions, messages, responses, rerank, score, classify, moderations, decisions, tokenize, speech]
TEXT = "a" * 1024
QUESTION = {"type": "score", "instructions": TEXT, "levels": [{"label": str(level)} for level in range(200)]}
LARGE = TEXT * (AT_ONCE // len(TEXT) + 1)


def test_what_is_small_is_done_at_once_and_what_is_large_on_two_threads() -> None:
    async def main() -> None:
        beside = Beside()
        small = {await beside.do(None, size, threading.get_ident) for size in (0, AT_ONCE)}
        light = {await beside.do(None, size, threading.get_ident) for size in (AT_ONCE + 1, LIGHT)}
        heavy = {await beside.do(None, size, threading.get_ident) for size in (LIGHT + 1, 100 * LIGHT)}
        assert small == {threading.get_ident()} and len(light) == len(heavy) == 1
        assert len(small | light | heavy) == 3

    asyncio.run(main())


def test_of_much_small_work_in_one_turn_of_the_loop_only_some_is_done_at_once() -> None:
    """Otherwise many bodies that become complete together hold up all other requests together."""

    async def main() -> None:
        beside, here = Beside(), threading.get_ident()
        for _ in range(2):
            found = await asyncio.gather(*(beside.do(None, AT_ONCE, threading.get_ident) for _ in range(20)))
            most = A_TURN // AT_ONCE
            assert [each == here for each in found] == [True] * most + [False] * (20 - most)
            await asyncio.sleep(0)

    asyncio.run(main())


def test_large_work_has_its_turn_and_lighter_work_need_not_wait_for_it() -> None:
    begun: list[str] = []
    first, go = threading.Event(), threading.Event()

    def work(name: str) -> str:
        begun.append(name)
        first.set()
        assert go.wait(PATIENCE)
        return name

    async def main() -> None:
        beside = Beside()
        asked = [asyncio.create_task(beside.do(None, LIGHT + 1, lambda name=name: work(name))) for name in "ab"]
        await asyncio.to_thread(first.wait, PATIENCE)
        assert await beside.do(None, LIGHT, lambda: "light") == "light"
        assert begun == ["a"]
        go.set()
        assert await asyncio.gather(*asked) == ["a", "b"]

    asyncio.run(main())


def test_for_a_client_that_has_left_nothing_is_done_when_its_turn_comes() -> None:
    gone = cast(Exchange, SimpleNamespace(client_is_gone=True))
    done: list[int] = []

    async def main() -> None:
        with pytest.raises(ClientLeft):
            await Beside().do(gone, LIGHT + 1, lambda: done.append(1))

    asyncio.run(main())
    assert not done


FED = threading.Event()  # the first value of a stream was encoded


async def streamed(inputs: Any) -> AsyncIterator[str]:
    yield LARGE
    await asyncio.to_thread(FED.wait, PATIENCE)
    yield LARGE


async def failing(inputs: Any) -> AsyncIterator[Any]:
    yield "a"
    yield {"error": "no"}


# Each route, what is asked for, and what its method returns, which are large both.
ROUTES: list[tuple[str, str, dict[str, Any], Any]] = [
    ("/v1/chat/completions", "chat_completions", {"messages": [{"role": "user", "content": LARGE}]}, LARGE),
    ("/v1/completions", "completions", {"prompt": LARGE}, LARGE),
    ("/v1/messages", "messages", {"max_tokens": 9, "messages": [{"role": "user", "content": LARGE}]}, LARGE),
    ("/v1/responses", "responses", {"input": LARGE}, LARGE),
    ("/v1/embeddings", "embeddings", {"input": [LARGE]}, [[0.5] * 10_000]),
    ("/v1/rerank", "rerank", {"query": "q", "documents": [TEXT[:16]] * 10_000}, [0.5] * 10_000),
    ("/v1/score", "score", {"text_1": "a", "text_2": [TEXT[:16]] * 10_000}, [0.5] * 10_000),
    ("/v1/classify", "classify", {"input": [TEXT[:16]] * 5_000}, [{"yes": 0.5}] * 5_000),
    ("/v1/moderations", "moderations", {"input": [TEXT] * 100}, [{"category_scores": {TEXT: 0.5}}] * 100),
    ("/v1/decisions", "decide", {"input": LARGE, "questions": [QUESTION] * 100}, [[0.005] * 200] * 100),
    ("/tokenize", "tokenize", {"prompt": LARGE}, [*range(1000, 31_000)]),
    ("/detokenize", "detokenize", {"tokens": [*range(1000, 31_000)]}, LARGE),
    ("/v1/audio/speech", "speech", {"input": LARGE, "voice": "v"}, LARGE.encode()),
]
SMALL: dict[str, tuple[dict[str, Any], Any]] = {
    "/v1/chat/completions": ({"messages": [{"role": "user", "content": "a"}]}, "b"),
    "/v1/embeddings": ({"input": ["a"]}, [[0.5]]),
    "/v1/rerank": ({"query": "q", "documents": ["a"]}, [0.5]),
    "/v1/responses": ({"input": "a"}, "b"),
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    models = {method: Model({method: lambda inputs, value=value: value}) for _, method, _, value in ROUTES}
    methods = {path: method for path, method, *_ in ROUTES}
    small = {
        f"small-{methods[path]}": Model({methods[path]: lambda inputs, value=value: value})
        for path, (_, value) in SMALL.items()
    }
    stream = Model({"chat_completions": streamed})
    counts = {"completions": lambda inputs: "a", "responses": lambda inputs: "a"}
    counting = Model({**counts, "count_tokens": lambda inputs: {"input_tokens": 1}}, slotless=("count_tokens",))
    others = {"stream": stream, "counting": counting, "failing": Model({"responses": failing})}
    with Served({**models, **small, **others}, plugins=PLUGINS) as served:
        yield served


Work = dict[str, set[int]]


@pytest.fixture
def work(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> Work:
    """By what is done for a request, the threads that do it."""
    found: Work = {}

    def watched(name: str, do: Callable[..., Any]) -> Callable[..., Any]:
        def watching(*given: Any, **named: Any) -> Any:
            found.setdefault(name, set()).add(threading.get_ident())
            value = do(*given, **named)
            if name == "feed":
                FED.set()
            return value

        return watching

    def encoder(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*given: Any) -> Any:
            one = make(*given)
            for name in ("start", "feed", "whole", "finish", "fail", "record", "uncounted"):
                monkeypatch.setattr(one, name, watched(name, getattr(one, name)))
            return one

        return made

    monkeypatch.setattr(dialects, "decode_object", watched("decode", dialects.decode_object))
    monkeypatch.setattr(token_counts, "encode", watched("question", token_counts.encode))
    monkeypatch.setattr(chat_request, "prompt_size", watched("size", chat_request.prompt_size))
    monkeypatch.setattr(stored, "items_of", watched("items", stored.items_of))
    for dialect in {type(each) for each in gateway.hub.plugins.dialects().values()}:
        monkeypatch.setattr(dialect, "read", watched("read", dialect.read))
        monkeypatch.setattr(dialect, "encoder", encoder(dialect.encoder))
    return found


def loop_of(gateway: Served) -> int:
    async def ident() -> int:
        return threading.get_ident()

    return asyncio.run_coroutine_threadsafe(ident(), gateway.loop).result(PATIENCE)


@pytest.mark.parametrize(("path", "method", "body", "value"), ROUTES, ids=[path for path, *_ in ROUTES])
def test_a_large_request_and_a_large_answer_are_no_work_of_the_loop(
    gateway: Served, work: Work, path: str, method: str, body: dict[str, Any], value: Any
) -> None:
    answer = gateway.post(path, {"model": method, **body})
    assert answer.status == 200, answer.body[:200]
    assert {*work} >= {"decode", "read", "feed"} and {*work} & {"whole", "finish"}
    for done in {*work} - {"start", "finish"}:  # of audio, of which nothing is there before and left then
        assert loop_of(gateway) not in work[done], done


@pytest.mark.parametrize("path", SMALL)
def test_a_small_one_is(gateway: Served, work: Work, path: str) -> None:
    method = next(method for each, method, _, _ in ROUTES if each == path)
    assert gateway.post(path, {"model": f"small-{method}", **SMALL[path][0]}).status == 200
    assert {*work} >= {"decode", "read", "feed", "whole"}
    assert all(threads == {loop_of(gateway)} for threads in work.values())


def test_a_large_item_of_a_stream_and_its_end_are_no_work_of_the_loop(gateway: Served, work: Work) -> None:
    body = {"model": "stream", "messages": [{"role": "user", "content": "a"}], "stream": True}
    FED.clear()
    assert LARGE.encode() in gateway.post("/v1/chat/completions", body).body
    assert loop_of(gateway) not in work["feed"] | work["finish"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "field"), [("/v1/completions", "prompt"), ("/v1/responses", "input")])
def test_the_count_of_a_large_request_is_no_work_of_the_loop(
    gateway: Served, work: Work, path: str, field: str, stream: bool
) -> None:
    assert gateway.post(path, {"model": "counting", field: LARGE, "stream": stream}).status == 200
    gateway.wait_until(lambda: "question" in work)
    for done in ("uncounted", "question", *(["start"] if "start" in work else [])):
        assert loop_of(gateway) not in work[done], done


def test_events_that_repeat_a_large_request_are_no_work_of_the_loop(gateway: Served, work: Work) -> None:
    answer = gateway.post("/v1/responses", {"model": "failing", "instructions": LARGE, "input": "a", "stream": True})
    assert answer.body.count(LARGE.encode()) == 3  # as it begins, twice, and as it fails
    for done in ("start", "fail"):
        assert loop_of(gateway) not in work[done], done


def test_a_small_turn_of_a_large_conversation_is_no_work_of_the_loop(gateway: Served, work: Work) -> None:
    kept = gateway.post("/v1/responses", {"model": "responses", "input": LARGE}).json["id"]
    work.clear()
    small = {"model": "small-responses", "input": "a", "previous_response_id": kept}
    answer = gateway.post("/v1/responses", small)
    assert answer.status == 200 and work["decode"] == {loop_of(gateway)}
    for done in ("items", "read"):
        assert loop_of(gateway) not in work[done], done
    work.clear()
    assert gateway.get(f"/v1/responses/{answer.json['id']}/input_items?limit=1").status == 200
    assert loop_of(gateway) not in work["items"]


def test_a_reference_to_a_kept_item_is_read_beside_the_loop(gateway: Served, work: Work) -> None:
    """One of a few bytes may stand for all that a conversation has."""
    kept = gateway.post("/v1/responses", {"model": "responses", "input": LARGE}).json["output"][0]["id"]
    work.clear()
    named = {"model": "small-responses", "input": [{"type": "item_reference", "id": kept}]}
    assert gateway.post("/v1/responses", named).status == 200
    assert loop_of(gateway) not in work["read"]


PIECE = TEXT * 24  # with a few of them an event is large, and each is small
HUNGRY = threading.Event()  # the gateway has read all that a stream has sent


async def one_by_one(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        HUNGRY.clear()
        yield piece
        await asyncio.to_thread(HUNGRY.wait, PATIENCE)


def in_pieces(text: str) -> list[str]:
    return [text[at : at + len(PIECE)] for at in range(0, len(text), len(PIECE))]


def chunk(text: str, reason: str = "null") -> str:
    return f'data: {{"choices":[{{"index":0,"finish_reason":{reason},"delta":{{"content":"{text}"}}}}]}}\n\n'


def call(arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": arguments}}]}


WHOLE = PIECE * 3
END = 'data: {"choices":[{"index":0,"finish_reason":"stop","delta":{}}]}\n\ndata: [DONE]\n\n'
PIECES: dict[str, tuple[str, list[Any]]] = {
    "first-event": ("chat/completions", [*in_pieces(chunk(WHOLE)), END]),
    "later-event": ("chat/completions", [chunk("a"), *in_pieces(chunk(WHOLE, '"stop"')), END]),
    "last-event": ("chat/completions", [chunk("a"), END[: END.index("data: [D")], *in_pieces(chunk(WHOLE).rstrip())]),
    "event-of-another-protocol": ("messages", [chunk("a"), *in_pieces(chunk(WHOLE)), END]),
    "arguments-on-messages": ("messages", [*map(call, in_pieces(f'{{"a":"{WHOLE}"}}')), "a"]),
    "arguments-on-responses": ("responses", [*map(call, in_pieces(f'{{"a":"{WHOLE}"}}')), "a"]),
}


@pytest.mark.parametrize("name", PIECES)
def test_what_came_in_small_pieces_is_read_beside_the_loop_when_it_is_large(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    route, pieces = PIECES[name]
    readers: list[tuple[int, int]] = []
    read, take = json_costs.read, Call.take

    def watched(text: Any, *most: Any) -> Any:
        readers.append((len(text), threading.get_ident()))
        return read(text, *most)

    async def taking(self: Call) -> list[Any] | None:
        if not self.items:
            HUNGRY.set()
        return await take(self)

    monkeypatch.setattr(json_costs, "read", watched)
    monkeypatch.setattr(Call, "take", taking)
    model = Model({"chat_completions": lambda inputs: one_by_one(*pieces)})
    asked = {"input": "a"} if route == "responses" else {"messages": [{"role": "user", "content": "a"}]}
    with Served({"m": model}, plugins=PLUGINS) as gateway:
        answer = gateway.post(f"/v1/{route}", {"model": "m", "max_tokens": 9, "stream": True, **asked})
        assert answer.status == 200 and PIECE.encode() in answer.body, answer.body[:500]
        large = [thread for size, thread in readers if size > AT_ONCE]
        assert large and loop_of(gateway) not in large
