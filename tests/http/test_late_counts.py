"""Token counts that go on when nobody waits for an answer any more: one for each key, and none too large."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lines import Lines
from served import Answer, Model, Served
from test_times import samples_of

from gateway.access import keys
from gateway.dialects.anthropic import messages
from gateway.dialects.responses import route
from gateway.http.routes.accounts import MAX_LATER

Serve = Callable[..., Served]


class Counting:
    """A model that says no counts of its own, and counts when it is let."""

    def __init__(self, serve: Serve, file: Path) -> None:
        self.asked: list[Any] = []
        self._may = asyncio.Event()
        made = {name: keys.create(name) for name in ("alice", "bob")}
        keys.write(file, [key for key, _ in made.values()])
        self._keys = {name: text for name, (_, text) in made.items()}
        model = Model({"chat_completions": self._chat, "count_tokens": self._count}, slotless=("count_tokens",))
        self.served = serve({"m": model}, keys_file=file)

    async def _chat(self, inputs: Any) -> AsyncIterator[str]:
        yield "fine"

    async def _count(self, inputs: Any) -> dict[str, int]:
        self.asked.append(inputs)
        await self._may.wait()
        return {"input_tokens": 1000}

    def stream(self, who: str, text: str = "hi") -> Answer:
        body = {"messages": [{"role": "user", "content": text}], "stream": True}
        return self.served.post("/v1/chat/completions", body, Authorization=f"Bearer {self._keys[who]}")

    @property
    def generated(self) -> int:
        sums = self.served.app._metrics.tokens("m").sums  # type: ignore[attr-defined]
        return int(sums[1])

    def let(self) -> None:
        self.served.do(self._may.set)


def test_a_key_has_one_count_at_a_time_behind_its_streams_and_the_others_are_estimated(
    serve: Serve, tmp_path: Path
) -> None:
    model = Counting(serve, tmp_path / "keys.toml")
    for _ in range(4):
        assert model.stream("alice").status == 200
    model.served.wait_until(lambda: len(model.asked) == 2)  # its prompt and its answer, of the first stream
    assert model.generated == 3  # of "fine" each is one, by the estimate
    assert model.stream("bob").status == 200
    model.served.wait_until(lambda: len(model.asked) == 4)
    model.let()
    model.served.wait_until(lambda: model.generated == 3 + 2 * 1000)
    assert model.stream("alice").status == 200
    model.served.wait_until(lambda: model.generated == 3 + 3 * 1000)


def test_what_is_very_large_is_estimated_behind_a_stream(serve: Serve, tmp_path: Path) -> None:
    model = Counting(serve, tmp_path / "keys.toml")
    model.let()
    assert model.stream("alice", "x" * MAX_LATER).status == 200
    model.served.wait_until(lambda: model.generated == 1)
    assert model.stream("alice", "x" * (MAX_LATER - 1000)).status == 200
    model.served.wait_until(lambda: model.generated == 1001)
    assert len(model.asked) == 2


# ── before the end of an answer that tells its usage ─────────────────────────────────────────────────────────────────


MESSAGES = [{"role": "user", "content": "hi"}]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
TELL_USAGE = [
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/chat/completions", {"messages": MESSAGES, "n": 2}),
    ("/v1/chat/completions", {"messages": MESSAGES, **USAGE}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9}),
    ("/v1/responses", {"input": "hi"}),
    ("/v1/responses", {"input": "hi", "stream": True}),
]


def counting(go: asyncio.Event) -> Model:
    """One that counts once it is let."""

    async def count(inputs: Any) -> dict[str, int]:
        await go.wait()
        return {"input_tokens": 7}

    return Model({"chat_completions": lambda inputs: "fine", "count_tokens": count}, slotless=("count_tokens",))


def asked_to_count(served: Served) -> list[Any]:
    return [call for call in served.models["m"].calls if call.req.method == "count_tokens"]


@pytest.mark.parametrize(("path", "body"), TELL_USAGE)
def test_a_client_that_leaves_while_its_tokens_are_counted_has_left_then_and_they_are_counted_once(
    serve: Serve, lines: Lines, path: str, body: Any
) -> None:
    go = asyncio.Event()
    served = serve({"m": counting(go)}, plugins=[messages, route], access_log=True)
    began = time.monotonic()
    with closing(served.connect()) as connection:
        connection.request("POST", path, json.dumps({"model": "m", **body}))
        served.wait_until(lambda: bool(asked_to_count(served)))
        questions = len(asked_to_count(served))
    served.wait_until(lambda: not served.server.server_state.connections)
    assert samples_of(served, "gateway_cancellations_total", model="m", reason="client_left") == [1]
    left = time.monotonic() - began
    served.do(go.set)
    (event,) = lines.events(1)
    assert (event["status"], event["error"], event["client_gone"]) == (499, None, True)
    assert 0 < event["count"] <= event["duration"] <= left
    assert (event["prompt_tokens"], event["tokens_estimated"]) == (7, False)
    assert len(asked_to_count(served)) == questions


@pytest.mark.parametrize(("path", "body"), TELL_USAGE[:3])
def test_a_key_that_ends_while_tokens_are_counted_ends_the_answer_then(
    serve: Serve, lines: Lines, tmp_path: Path, path: str, body: Any
) -> None:
    go = asyncio.Event()
    key, text = keys.create("alice")
    keys.write(file := tmp_path / "keys.toml", [key])
    served = serve({"m": counting(go)}, keys_file=file, access_log=True)
    with closing(served.connect()) as connection:
        connection.request("POST", path, json.dumps({"model": "m", **body}), {"x-api-key": text})
        served.wait_until(lambda: bool(asked_to_count(served)))
        file.write_text("")
        served.do(served.keys.reload())
        assert b"invalid_api_key" in connection.getresponse().read()
        served.do(go.set)
    (event,) = lines.events(1)
    assert (event["model"], event["error"], event["cause"]) == ("m", "invalid_api_key", "key_revoked")
    assert (event["prompt_tokens"], event["tokens_estimated"]) == (7, False)


def test_a_key_whose_clients_leave_has_one_count_at_a_time_go_on(serve: Serve, lines: Lines, tmp_path: Path) -> None:
    go = asyncio.Event()
    key, text = keys.create("alice")
    keys.write(file := tmp_path / "keys.toml", [key])
    served = serve({"m": counting(go)}, keys_file=file, access_log=True)
    for times in (1, 2):
        with closing(served.connect()) as connection:
            body = json.dumps({"model": "m", "messages": MESSAGES})
            connection.request("POST", "/v1/chat/completions", body, {"x-api-key": text})
            served.wait_until(lambda times=times: len(asked_to_count(served)) == 2 * times)  # type: ignore[misc]
        served.wait_until(lambda: not served.server.server_state.connections)
    second = asked_to_count(served)[2:]
    served.wait_until(lambda: all(call.ended for call in second))
    served.do(go.set)
    assert [(event["status"], event["tokens_estimated"]) for event in lines.events(2)] == [(499, True), (499, False)]
