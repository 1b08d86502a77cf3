"""Tokens of requests however they end: counted by the model where it can, else marked, in the log and the metrics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lines import Lines
from prometheus_client.parser import text_string_to_metric_families as parse_text
from served import Model, Served
from test_sse import CHUNK, END

from gateway.access import keys
from gateway.dialects.anthropic import messages
from gateway.dialects.base import Encoder
from gateway.dialects.openai import completions
from gateway.dialects.responses import route
from gateway.errors import HTTPError, ModelError
from gateway.http.off_loop import Beside
from gateway.http.routes.accounts import LAST, MAX_LATER, Relayed

Serve = Callable[..., Served]
PATH, VECTORS = "/v1/chat/completions", "/v1/embeddings"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]}
STREAM = {**CHAT, "stream": True}
USAGE = 'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":22}}\n\n'
DONE = "data: [DONE]\n\n"


def words(inputs: Any) -> dict[str, int]:
    """A token for each word of a prompt, ten for each of an answer."""
    if "text" in inputs:
        return {"input_tokens": 10 * sum(len(text.split()) for text in inputs["text"])}
    texts = [message["content"] for message in inputs.get("messages", ())] or inputs["prompt"]
    return {"input_tokens": sum(len(text.split()) for text in texts)}


class Shop:
    """A gateway with one model, which does what `script` says, and callers with keys."""

    def __init__(self, serve: Serve, file: Path, lines: Lines, script: Any, *, counts: Any = words, **options: Any):
        made = {name: keys.create(name) for name in ("alice", "bob", "ops")}
        made["ops"] = keys.create("ops", scopes=("metrics",))
        keys.write(file, [key for key, _ in made.values()])
        self.texts = {name: text for name, (_, text) in made.items()}
        self.asked: list[Any] = []
        methods = {"chat_completions": script, "embeddings": script, "completions": script, "messages": script}
        methods["responses"] = script
        if counts is not None:
            methods["count_tokens"] = self._count
        self._counts = counts
        model = Model(methods, slotless=("count_tokens",), **options)
        plugins = [completions, messages, route]
        self.served = serve({"m": model}, keys_file=file, access_log=True, plugins=plugins)
        self.lines = lines

    def _count(self, inputs: Any) -> Any:
        self.asked.append(inputs)
        return self._counts(inputs)

    def post(self, body: Any, path: str = PATH, who: str = "alice", **headers: str) -> Any:
        return self.served.post(path, body, x_api_key=self.texts[who], **headers)

    def leave(self, body: Any, has_come: Callable[[], bool]) -> None:
        """A client that hangs up when something is so."""
        with closing(self.served.connect()) as connection:
            head = {"x-api-key": self.texts["alice"]}
            connection.request("POST", PATH, json.dumps(body).encode(), head)
            self.served.wait_until(has_come)
            if body.get("stream"):
                assert b"said" in connection.getresponse().read1()

    def tokens(self) -> tuple[int | None, int | None, bool | None]:
        """Those of the one request that there was, as the access log has them."""
        (event,) = self.lines.events(1)
        return event["prompt_tokens"], event["completion_tokens"], event["tokens_estimated"]

    def counters(self, name: str) -> dict[tuple[str, ...], float]:
        families = parse_text(self.served.get("/metrics", x_api_key=self.texts["ops"]).body.decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(value for _, value in sorted(one.labels.items())): one.value for one in samples}


@pytest.fixture
def shop(serve: Serve, tmp_path: Path, lines: Lines) -> Iterator[Callable[..., Shop]]:
    def make(script: Any, **options: Any) -> Shop:
        return Shop(serve, tmp_path / "keys.toml", lines, script, **options)

    yield make


async def stops(inputs: Any) -> Any:
    """Says two words, and no more."""
    yield "said "
    yield "something"
    await asyncio.Event().wait()


async def fails(inputs: Any) -> Any:
    yield "said "
    yield "something"
    raise ModelError("no")


def refuses(inputs: Any) -> Any:
    raise HTTPError(400, "too long")


def raises(inputs: Any) -> Any:
    raise ModelError("no")


async def hangs(inputs: Any) -> Any:
    await asyncio.Event().wait()


# ── what breaks off ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_whose_client_leaves_is_counted_by_its_model(shop: Callable[..., Shop]) -> None:
    one = shop(stops)
    one.leave(STREAM, lambda: one.served.models["m"].begun.acquire(blocking=False))
    assert one.tokens() == (3, 20, False)


def test_a_stream_that_its_model_breaks_off_is_counted_by_it(shop: Callable[..., Shop]) -> None:
    one = shop(fails)
    assert b"model_error" in one.post(STREAM).body
    assert one.tokens() == (3, 20, False)


def test_a_stream_that_is_out_of_time_is_counted_by_its_model(shop: Callable[..., Shop]) -> None:
    one = shop(stops)
    assert b'"timeout"' in one.post(STREAM, x_request_timeout="0.1").body
    assert one.tokens() == (3, 20, False)


def test_a_broken_stream_that_says_its_usage_is_asked_for_that_no_more(shop: Callable[..., Shop]) -> None:
    one = shop(stops)
    body = {**STREAM, "stream_options": {"include_usage": True}}
    assert b'"timeout"' in one.post(body, x_request_timeout="0.1").body
    assert one.tokens() == (3, 20, False)


@pytest.mark.parametrize(("script", "said"), [(raises, 0), (fails, 20), (hangs, 0), (stops, 20)])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_fails_has_used_its_prompt_and_what_was_said_of_it(
    shop: Callable[..., Shop], script: Any, said: int, stream: bool
) -> None:
    one = shop(script)
    one.post({**CHAT, "stream": stream}, x_request_timeout="0.2")
    assert one.tokens() == (3, said, False)
    assert not said or len(one.asked) == 2
    assert said or [asked.keys() for asked in one.asked] == [{"messages", "tools"}], "of nothing nobody counts"


def test_a_whole_answer_whose_client_leaves_has_used_its_prompt(shop: Callable[..., Shop]) -> None:
    one = shop(hangs)
    one.leave(CHAT, lambda: one.served.models["m"].begun.acquire(blocking=False))
    assert one.tokens() == (3, 0, False)


def test_an_answer_that_its_route_cannot_give_has_used_its_prompt(shop: Callable[..., Shop]) -> None:
    one = shop(lambda inputs: [[0.5, 0.5], [0.5]])
    assert one.post({"model": "m", "input": ["a b", "c"]}, VECTORS).status == 500
    assert one.tokens() == (3, 0, False)


def refuses_by_a_value(inputs: Any) -> Any:
    return {"error": {"message": "too long"}, "status": 400}


async def refuses_by_an_item(inputs: Any) -> Any:
    yield {"error": {"message": "too long", "code": 400}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("refuses", [refuses, refuses_by_a_value, refuses_by_an_item])
def test_a_request_that_its_model_refuses_has_used_nothing(
    shop: Callable[..., Shop], refuses: Any, stream: bool
) -> None:
    one = shop(refuses)
    assert one.post({**CHAT, "stream": stream}).status == 400
    assert one.tokens() == (None, None, None) and not one.asked


def test_a_request_that_never_had_a_slot_has_used_nothing(shop: Callable[..., Shop]) -> None:
    one = shop(hangs, limits={"slots": 1})
    head = {"x-api-key": one.texts["bob"]}
    with closing(one.served.connect()) as connection:
        connection.request("POST", PATH, json.dumps(CHAT).encode(), head)
        assert one.served.models["m"].begun.acquire(timeout=10)
        assert one.post(CHAT, x_request_timeout="0.05").status == 503
        assert one.tokens() == (None, None, None) and not one.asked


# ── estimates ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [fails, lambda inputs: "said something"])
def test_what_nobody_can_count_is_marked_as_estimated(shop: Callable[..., Shop], script: Any, stream: bool) -> None:
    one = shop(script, counts=None)
    one.post({**CHAT, "stream": stream})
    assert one.tokens() == (4, 4, True)
    assert one.counters("gateway_key_estimated_tokens_total") == {("alice", "prompt"): 4, ("alice", "generation"): 4}
    assert one.counters("gateway_estimated_tokens_total") == {("prompt", "m"): 4, ("generation", "m"): 4}


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_counted_is_in_no_series_of_estimates(shop: Callable[..., Shop], stream: bool) -> None:
    one = shop(lambda inputs: "said something")
    one.post({**CHAT, "stream": stream})
    assert one.tokens() == (3, 20, False)
    assert one.counters("gateway_key_estimated_tokens_total") == {("alice", "prompt"): 0, ("alice", "generation"): 0}
    assert one.counters("gateway_estimated_tokens_total") == {("prompt", "m"): 0, ("generation", "m"): 0}


def test_vectors_and_scores_whose_texts_nobody_counts_are_marked(shop: Callable[..., Shop]) -> None:
    one = shop(lambda inputs: [[0.5]], counts=None)
    assert one.post({"model": "m", "input": ["x" * 40]}, VECTORS).status == 200
    assert one.tokens() == (10, 0, True)


def test_a_count_that_fails_is_an_estimate(shop: Callable[..., Shop]) -> None:
    one = shop(fails, counts=raises)
    one.post(STREAM)
    assert one.tokens() == (4, 4, True) and one.asked


# ── events of the model's own ────────────────────────────────────────────────────────────────────────────────────────


def relaying(*items: Any) -> Any:
    async def script(inputs: Any) -> Any:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item

    return script


def text_of(words: str) -> str:
    return CHUNK.replace('"a"', json.dumps(words))


def test_events_that_a_model_gives_itself_are_counted_by_it(shop: Callable[..., Shop]) -> None:
    one = shop(relaying(text_of("said "), text_of("something"), END, DONE))
    assert one.post(STREAM).body.endswith(b"[DONE]\n\n")
    assert one.tokens() == (3, 20, False)
    assert one.counters("gateway_key_tokens_total") == {("alice", "prompt"): 3, ("alice", "generation"): 20}
    assert one.counters("vllm:generation_tokens_total") == {("0", "m"): 20}
    assert one.counters("vllm:request_success_total")["0", "stop", "m"] == 1


def test_counts_that_such_events_say_are_taken_and_nobody_is_asked(shop: Callable[..., Shop]) -> None:
    one = shop(relaying(text_of("said "), text_of("something"), END, USAGE, DONE))
    one.post(STREAM)
    assert one.tokens() == (11, 22, False) and not one.asked


def test_such_events_are_estimated_where_nobody_counts(shop: Callable[..., Shop]) -> None:
    one = shop(relaying(text_of("said "), text_of("something"), END, DONE), counts=None)
    one.post(STREAM)
    assert one.tokens() == (4, 4, True)


@pytest.mark.parametrize("end", [ModelError("no"), 'data: {"error": {"message": "no"}}\n\n', ""])
def test_such_events_that_break_off_are_counted_too(shop: Callable[..., Shop], end: Any) -> None:
    one = shop(relaying(text_of("said "), text_of("something"), end))
    assert b"error" in one.post(STREAM).body
    assert one.tokens() == (3, 20, False)
    assert one.counters("vllm:request_success_total")["0", "error", "m"] == 1


MESSAGE = {
    "message_start": {"message": {"id": "msg_1", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}},
    "content_block_start": {"index": 0, "content_block": {"type": "text", "text": ""}},
    "content_block_delta": {"index": 0, "delta": {"type": "text_delta", "text": "said something"}},
    "content_block_stop": {"index": 0},
    "message_delta": {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    "message_stop": {},
}
RESPONSE = {"id": "r", "object": "response", "status": "completed", "output": []}
COMPLETED = {**RESPONSE, "usage": {"input_tokens": 7, "output_tokens": 9, "total_tokens": 16}}
EVENTS = {
    "/v1/messages": MESSAGE,
    "/v1/responses": {"response.created": {"response": RESPONSE}, "response.completed": {"response": COMPLETED}},
}


@pytest.mark.parametrize(("path", "body"), [("/v1/messages", {**STREAM, "max_tokens": 9}), ("/v1/responses", None)])
def test_counts_are_read_in_the_words_of_every_route(shop: Callable[..., Shop], path: str, body: Any) -> None:
    items = [f"event: {n}\ndata: {json.dumps({'type': n, **data})}\n\n" for n, data in EVENTS[path].items()]
    one = shop(relaying(*items))
    one.post(body or {"model": "m", "input": "one two three", "stream": True}, path)
    assert one.tokens() == (7, 9, False) and not one.asked


PIECE = text_of("word " * 1000)
MANY = 3 * MAX_LATER // len(PIECE)


def test_of_a_long_relay_the_end_says_the_counts(shop: Callable[..., Shop]) -> None:
    one = shop(relaying(*[PIECE] * MANY, END, USAGE, DONE))
    one.post(STREAM)
    assert one.tokens() == (11, 22, False)


def test_of_a_long_relay_without_counts_the_answer_is_estimated_from_its_size(shop: Callable[..., Shop]) -> None:
    one = shop(relaying(*[PIECE] * MANY, END, DONE))
    one.post(STREAM)
    prompt, completion, estimated = one.tokens()
    assert (prompt, estimated) == (3, True) and completion == pytest.approx(MANY * 5000 / 4, rel=0.01)
    assert not any("text" in asked for asked in one.asked)


def test_no_more_of_a_relay_is_kept_than_is_read_behind_it() -> None:
    fed: list[bytes] = []

    class Reader(Encoder):
        def feed(self, items: list[Any], run: int = 0) -> bytes:
            fed.extend(items)
            return b""

        def uncounted(self, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
            return {"completion": {}}

    relayed = Relayed(Reader, Beside())
    for _ in range(MANY):
        relayed.add(PIECE.encode())
    relayed.add(b"x" * (MAX_LATER + 1))

    async def questions(encoder: Encoder) -> dict[str, dict[str, Any]]:
        return encoder.uncounted([])

    asyncio.run(relayed.read(questions))
    assert MAX_LATER / 2 < sum(map(len, fed)) <= MAX_LATER + 2 * LAST * len(PIECE)


# ── the sums ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_usage_of_every_key_is_the_sum_of_its_lines(shop: Callable[..., Shop]) -> None:
    async def script(inputs: Any) -> Any:
        kind = inputs["messages"][0]["content"].split()[0] if "messages" in inputs else "whole"
        if kind == "fails":
            raise ModelError("no")
        if kind == "relays":
            for item in (text_of("said "), text_of("something"), END, DONE):
                yield item
            return
        yield "said "
        if kind == "breaks":
            raise ModelError("no")
        if kind == "hangs":
            await asyncio.Event().wait()
        yield "something" if kind == "whole" else {"usage": {"prompt_tokens": 5, "completion_tokens": 6}}

    one, count = shop(script), 0
    for who in ("alice", "bob"):
        for kind in ("fails", "relays", "breaks", "hangs", "whole", "says")[: 6 if who == "alice" else 4]:
            for more in ({}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, {"n": 2}):
                body = {"model": "m", "messages": [{"role": "user", "content": f"{kind} please"}], **more}
                one.post(body, who=who, x_request_timeout="0.1")
                count += 1
    events = one.lines.events(count)
    sums: dict[tuple[str, ...], float] = {}
    marked: dict[tuple[str, ...], float] = {}
    for event in events:
        for kind, name in (("prompt", "prompt_tokens"), ("generation", "completion_tokens")):
            labels = event["key"], kind
            sums[labels] = sums.get(labels, 0) + event[name]
            marked[labels] = marked.get(labels, 0) + (event[name] if event["tokens_estimated"] else 0)
    assert one.counters("gateway_key_tokens_total") == sums and len(sums) == 4
    assert one.counters("gateway_key_estimated_tokens_total") == marked
    of_model = [one.counters(f"vllm:{kind}_tokens_total")["0", "m"] for kind in ("prompt", "generation")]
    assert of_model == [sum(n for (_, of), n in sums.items() if of == kind) for kind in ("prompt", "generation")]


# ── the time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WAIT = 1.0  # seconds; what does not wait takes much less on a busy machine, too


async def slowly(inputs: Any) -> Any:
    await asyncio.sleep(WAIT)
    return words(inputs)


@pytest.mark.parametrize("more", [{}, {"stream": True, "stream_options": {"include_usage": True}}])
def test_an_answer_that_waits_for_its_counts_says_for_how_long(shop: Callable[..., Shop], more: Any) -> None:
    one = shop(lambda inputs: "said something", counts=slowly)
    answer = one.post({**CHAT, **more})
    (event,) = one.lines.events(1)
    assert WAIT <= event["count"] <= event["duration"] - event["run"] and event["run"] < WAIT
    assert one.counters("gateway_count_seconds_total") == {("m",): pytest.approx(event["count"], abs=1e-5)}
    assert one.counters("gateway_model_duration_seconds_sum")["m", PATH] < WAIT
    if not more:
        told = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
        assert list(told) == ["queue", "load", "model", "count", "gateway"]
        assert float(told["count"]) >= WAIT * 1000 > float(told["gateway"])


@pytest.mark.parametrize("script", [lambda inputs: "said something", fails])
def test_a_count_that_nobody_waits_for_takes_no_time_of_the_answer(shop: Callable[..., Shop], script: Any) -> None:
    one = shop(script, counts=slowly)
    began = time.monotonic()
    one.post(STREAM)
    took = time.monotonic() - began
    (event,) = one.lines.events(1)
    assert event["count"] == 0 and event["duration"] <= took + WAIT / 2
    assert (event["prompt_tokens"], event["completion_tokens"]) == (3, 20)
    assert one.counters("gateway_count_seconds_total") == {("m",): 0}


def test_an_error_waits_for_no_count(shop: Callable[..., Shop]) -> None:
    go = asyncio.Event()

    async def later(inputs: Any) -> Any:
        await go.wait()
        return words(inputs)

    one = shop(fails, counts=later)
    assert one.post(CHAT).status == 500, "it is here, and nothing was counted"
    one.served.do(go.set)
    assert one.tokens() == (3, 20, False)
