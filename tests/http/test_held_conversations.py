"""Of a stored conversation that a small request continues, nothing is held while a model answers it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from served import Answer, Model, Served

from gateway.dialects.openai import input_tokens
from gateway.dialects.responses import route
from gateway.http.routes import accounts
from gateway.http.routes.accounts import packed

Serve = Callable[..., Served]
_number = itertools.count()


class Slow:
    """A gateway whose model answers the first request with the mark, and later ones when `go` is set."""

    def __init__(self, serve: Serve, method: str, count: Any = None) -> None:
        self.counted: list[Any] = []
        self.mark = f"the old text {next(_number)} " * 100  # no other test's, of which something may be left
        methods: dict[str, Callable[[Any], Any]] = {method: self._answer}
        if count is not None:
            methods["count_tokens"] = self._count
        self._tokens, self._calls = count, 0
        model = Model(methods, slotless=("count_tokens",))
        self.served = serve({"m": model}, plugins=[route, input_tokens])
        self.go = asyncio.Event()

    def _count(self, inputs: Any) -> Any:
        self.counted.append(inputs)
        return {"input_tokens": self._tokens}

    async def _answer(self, inputs: Any) -> Any:
        del inputs
        self._calls += 1
        if self._calls > 1:
            await self.go.wait()
            yield "a new text"
        else:
            yield self.mark

    def ask(self, **fields: Any) -> Answer:
        return self.served.ask("POST", "/v1/responses", {"model": "m", **fields})

    def held(self) -> list[Any]:
        """The messages and items in memory that contain the mark."""
        lists = [each for each in gc.get_objects() if type(each) is list]  # asks no proxy what it is
        dicts = [item for each in lists for item in each if type(item) is dict]
        return [item for item in dicts if any(type(value) is str and value == self.mark for value in item.values())]

    def while_it_answers(self, then: Callable[[], None], **fields: Any) -> Any:
        """Send a request, and do something while its call runs, when nothing of the conversation is held any more."""
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(self.ask, **fields)
            try:
                self.served.wait_until(lambda: self._calls == 2 and not self.held())
                shares = self.served.hub.shares
                assert shares.bytes == shares.conversations.size == 0
                then()
            finally:
                self.served.loop.call_soon_threadsafe(self.go.set)
            return answer.result().json


def continued(slow: Slow, way: str) -> dict[str, Any]:
    """A small request that goes on from an answer with the mark."""
    first = slow.ask(input=slow.mark).json
    if way == "previous":
        return {"previous_response_id": first["id"], "input": "more"}
    return {"input": [{"type": "item_reference", "id": first["output"][0]["id"]}]}


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("method", ["chat_completions", "responses"])
@pytest.mark.parametrize("way", ["previous", "item"])
def test_nothing_of_a_stored_conversation_is_held_while_its_call_runs(
    serve: Serve, way: str, method: str, store: bool
) -> None:
    slow = Slow(serve, method)
    made = slow.while_it_answers(lambda: None, store=store, **continued(slow, way))
    assert made["status"] == "completed" and made["store"] is store
    if store:
        listed = slow.served.ask("GET", f"/v1/responses/{made['id']}/input_items").body
        assert slow.mark.encode() in listed


def test_an_answer_is_not_stored_if_an_item_that_it_refers_to_is_gone_by_then(serve: Serve) -> None:
    slow = Slow(serve, "chat_completions")
    first = slow.ask(input="one").json
    asked = [{"type": "item_reference", "id": first["output"][0]["id"]}]
    del first["output"]
    made = slow.while_it_answers(lambda: slow.served.ask("DELETE", f"/v1/responses/{first['id']}"), input=asked)
    assert (made["status"], made["store"]) == ("completed", False)


@pytest.mark.parametrize("method", ["chat_completions", "responses"])
@pytest.mark.parametrize("most", [accounts.MAX_LATER, 100])
def test_a_continued_conversation_is_counted_unless_it_is_too_large_to_be_held_for_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, method: str, most: int
) -> None:
    monkeypatch.setattr(accounts, "MAX_LATER", most)
    slow = Slow(serve, method, count=7)
    request = continued(slow, "previous")
    slow.counted.clear()
    made = slow.while_it_answers(lambda: None, **request)
    prompts = [inputs["messages"] for inputs in slow.counted if "messages" in inputs]
    texts = [message["content"] for messages in prompts for message in messages]
    if most > 100:
        assert texts == [slow.mark, slow.mark, "more"] and made["usage"]["input_tokens"] == 7
    else:
        assert texts == [] and made["usage"]["input_tokens"] > len(slow.mark) // 4


def test_packed_inputs_are_no_reference_to_what_was_packed() -> None:
    class Watched(list[Any]):
        pass

    for size, is_counted, found in ((10, True, [{"input": ["a"]}]), (10, False, [{}]), (1 << 21, True, [{}])):
        inputs = [{"input": Watched(["a"])}]
        watched = weakref.ref(inputs[0]["input"])
        recall = packed(inputs, size, is_counted)
        del inputs
        assert watched() is None and recall() == found
