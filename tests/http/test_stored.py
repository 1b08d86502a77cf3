"""Responses that are kept: gone on from, asked for again, forgotten; and by whom."""

from __future__ import annotations

import asyncio
import http.client
import json
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from served import PATIENCE, Answer, Model, Served

from gateway import json_costs
from gateway.access import keys
from gateway.dialects.responses import route
from gateway.errors import ModelError
from gateway.hosting import stored_responses
from gateway.http.routes import stored
from gateway.http.routes.stored import Losses
from gateway.settings.schema import ResponsesSettings

Serve = Callable[..., Served]


class Gateway:
    """A gateway whose model writes down what it was given."""

    def __init__(self, serve: Serve, say: Any = "fine", **settings: Any) -> None:
        self.seen: list[Any] = []

        def chat(inputs: dict[str, Any]) -> Any:
            self.seen.append(inputs["messages"])
            return say(inputs) if callable(say) else say

        self.model = Model({"chat_completions": chat})
        models = {"m": self.model, "other": Model({"chat_completions": lambda inputs: "other"})}
        self.served = serve(models, plugins=[route], **settings)

    def create(self, text: Any = "hi", path: str = "/v1/responses", **fields: Any) -> Any:
        return self.ask("POST", path, {"model": "m", "input": text, **fields}).json

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> Answer:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return self.served.ask(method, path, body, **headers)

    def get(self, path: str, key: str | None = None) -> Answer:
        return self.ask("GET", f"/v1/responses/{path}", key=key)


@pytest.fixture
def gateway(serve: Serve) -> Gateway:
    return Gateway(serve)


def is_unknown(answer: Answer) -> bool:
    return (answer.status, answer.error["code"]) == (404, "response_not_found")


def last_event(stream: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(stream.strip().rpartition(b"data: ")[2])
    return event


# ── kept and gone on from ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_conversation_may_be_long_but_not_without_end(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LONGEST", 9)
    items = [{"role": "user", "content": "x"}]
    first = gateway.create(items * 4)
    second = gateway.create(items * 4, previous_response_id=first["id"])  # and one that was answered
    assert second["status"] == "completed"
    for given, previous in (("x", second["id"]), (items, second["id"]), (items * 10, None)):
        refused = gateway.create(given, previous_response_id=previous)
        assert refused["error"]["param"] == "input" and "at most 9" in refused["error"]["message"]
    assert len(gateway.seen) == 2


def test_few_items_of_very_many_parts_are_no_conversation(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MOST", 200)
    parts = [{"type": "input_text", "text": "x"}]
    first = gateway.create([{"role": "user", "content": parts * 100}])
    second = gateway.create("y", previous_response_id=first["id"])
    assert second["status"] == "completed"
    third = gateway.create([{"role": "user", "content": parts * 100}], previous_response_id=second["id"])
    refused = gateway.create("y", previous_response_id=third["id"])
    assert refused["error"]["param"] == "previous_response_id" and "at most 200" in refused["error"]["message"]


def test_items_of_responses_of_very_many_parts_are_not_fetched(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference is a few bytes, and what it stands for may be megabytes."""
    monkeypatch.setattr(stored, "MOST", 200)
    parts = [{"type": "input_text", "text": "x"}]
    first, second = (gateway.create([{"role": "user", "content": parts * 100}])["id"] for _ in range(2))
    ids = [gateway.get(f"{one}/input_items").json["data"][0]["id"] for one in (first, second)]
    references = [{"type": "item_reference", "id": identity} for identity in ids]
    assert gateway.create(references[:1])["status"] == "completed"
    refused = gateway.create(references)
    assert refused["error"]["param"] == "input" and "more than 200" in refused["error"]["message"]


def test_items_of_responses_that_take_long_to_read_are_not_read(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as numbers far from 1: a request of a hundred bytes may refer to megabytes of them."""
    made = gateway.create([{"role": "user", "content": "a", "x": [1e308] * 2000}])
    item = gateway.get(f"{made['id']}/input_items").json["data"][0]["id"]
    again = {"input": "y", "previous_response_id": made["id"]}, {"input": [{"type": "item_reference", "id": item}]}
    for request in again:
        assert gateway.create(**request)["status"] == "completed"
    monkeypatch.setattr(stored, "MOST_COST", 1_000_000)
    for request in again:
        assert "long to read" in gateway.create(**request)["error"]["message"]
    assert "long to read" in gateway.get(f"{made['id']}/input_items").json["error"]["message"]


def test_stored_numbers_that_can_be_slow_are_read_one_at_a_time(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    made = gateway.create([{"role": "user", "content": "a", "x": [1e308] * 40}])
    monkeypatch.setattr(json_costs, "_by_float", msgspec.json.Decoder(float_hook=read.append).decode)
    assert gateway.create("y", previous_response_id=made["id"])["status"] == "completed"
    assert read == ["1e308"] * 40


def test_a_response_can_be_asked_for_again_and_forgotten(gateway: Gateway) -> None:
    made = gateway.create()
    assert made["store"] is True
    again = gateway.get(made["id"])
    assert (again.status, again.json) == (200, made)
    assert again.headers["content-type"] == "application/json"
    gone = gateway.ask("DELETE", f"/v1/responses/{made['id']}")
    assert gone.json == {"id": made["id"], "object": "response", "deleted": True}
    assert is_unknown(gateway.get(made["id"]))
    assert is_unknown(gateway.ask("DELETE", f"/v1/responses/{made['id']}"))
    assert is_unknown(gateway.get(f"{made['id']}/input_items"))


def test_a_response_is_shown_piece_by_piece_and_deleted_without_being_read(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that reads slowly must not hold a copy, nor what it once sent."""
    gateway = Gateway(serve, "y" * 1000)
    made = gateway.create("x" * 5000)
    pieces: list[tuple[int, int]] = []
    read = gateway.served.responses._piece

    def piece(found: Any, start: int, size: int) -> bytes | None:
        pieces.append((start, size))
        return read(found, start, size)

    monkeypatch.setattr(gateway.served.responses, "_piece", piece)
    monkeypatch.setattr(stored, "PIECE", 500)
    monkeypatch.delattr(stored_responses, "Kept")
    again = gateway.get(made["id"])
    assert (again.status, again.json, again.headers["content-type"]) == (200, made, "application/json")
    assert pieces == [(start, 500) for start in range(0, int(again.headers["content-length"]), 500)]
    assert gateway.ask("DELETE", f"/v1/responses/{made['id']}").status == 200
    assert is_unknown(gateway.get(made["id"]))


def test_a_response_that_is_deleted_while_it_is_sent_breaks_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(serve, "y" * 1000)
    made = gateway.create()
    store = gateway.served.responses
    read = store.piece

    async def piece(found: Any, start: int, size: int) -> bytes | None:
        if start:
            await store.delete("", made["id"])
        return await read(found, start, size)

    monkeypatch.setattr(store, "piece", piece)
    monkeypatch.setattr(stored, "PIECE", 500)
    with pytest.raises(http.client.IncompleteRead):
        gateway.get(made["id"])


def test_a_streamed_response_is_kept_before_its_client_can_go_on(gateway: Gateway) -> None:
    stream = gateway.ask("POST", "/v1/responses", {"model": "m", "input": "hi", "stream": True}).body
    last = last_event(stream)
    assert last["type"] == "response.completed" and last["response"]["store"] is True
    assert gateway.get(last["response"]["id"]).json == last["response"]


def test_a_conversation_goes_on_from_what_was_said_but_not_from_its_instructions(gateway: Gateway) -> None:
    first = gateway.create("one", instructions="Be brief.")
    second = gateway.create([{"role": "user", "content": "two"}], previous_response_id=first["id"])
    third = gateway.create("three", previous_response_id=second["id"], instructions="Be long.", stream=False)
    assert third["previous_response_id"] == second["id"]
    assert gateway.seen[-1] == [
        {"role": "system", "content": "Be long."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "three"},
    ]
    assert gateway.seen[1][0] == {"role": "user", "content": "one"}


@pytest.mark.parametrize("way", ["previous", "item", "listed"])
def test_small_requests_of_a_large_conversation_wait_until_there_is_room_to_read_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Until then, none of them holds a copy."""
    gateway = Gateway(serve, max_queued_bytes=1 << 20)
    first = gateway.create("x" * 300_000)
    room, store, loop = gateway.served.hub.shares.conversations, gateway.served.responses, gateway.served.loop
    go, reading = asyncio.Event(), []
    name = "items" if way == "item" else "chain"
    read = getattr(store, name)

    async def slowly(*given: Any) -> Any:
        reading.append(room.size)
        await go.wait()
        return await read(*given)

    monkeypatch.setattr(store, name, slowly)

    def ask(_: int) -> int:
        if way == "listed":
            return gateway.get(f"{first['id']}/input_items").status
        more = {"previous_response_id": first["id"]} if way == "previous" else {}
        given = refer(first["output"][0]["id"]) if way == "item" else "more"
        return gateway.ask("POST", "/v1/responses", {"model": "m", "input": given, **more}).status

    with ThreadPoolExecutor(5) as threads:
        answers = threads.map(ask, range(5))
        gateway.served.wait_until(lambda: room.waiting == 4)
        assert len(reading) == 1 and reading[0] > 300_000
        loop.call_soon_threadsafe(go.set)
        assert list(answers) == [200] * 5
    assert max(reading) < 600_000 and room.size == 0 and gateway.served.hub.shares.bytes == 0


def test_tool_calls_are_answered_by_their_outputs_alone(serve: Serve) -> None:
    call = {"tool_calls": [{"id": "c1", "name": "weather", "arguments": {"city": "Oslo"}}], "reasoning_content": "hm"}
    gateway = Gateway(serve, lambda inputs: call if inputs["messages"][-1]["role"] == "user" else "rain")
    first = gateway.create("weather?", tools=[{"type": "function", "name": "weather"}])
    output = {"type": "function_call_output", "call_id": "c1", "output": "wet"}
    assert gateway.create([output], previous_response_id=first["id"])["output"][0]["content"][0]["text"] == "rain"
    function = {"name": "weather", "arguments": '{"city":"Oslo"}'}
    calls = [{"id": "c1", "type": "function", "function": function}]
    assert gateway.seen[-1] == [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": calls, "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "wet"},
    ]


def test_a_conversation_cannot_go_on_from_what_nobody_kept(gateway: Gateway) -> None:
    first = gateway.create("one")
    second = gateway.create("two", previous_response_id=first["id"])
    gateway.ask("DELETE", f"/v1/responses/{first['id']}")
    for previous, gone in (("resp_unknown", "resp_unknown"), (second["id"], first["id"])):
        answer = gateway.ask("POST", "/v1/responses", {"input": "x", "model": "m", "previous_response_id": previous})
        assert answer.status == 404 and gone in answer.error["message"]
        assert answer.error["type"] == "invalid_request_error"
        assert (answer.error["code"], answer.error["param"]) == ("previous_response_not_found", "previous_response_id")


def test_what_is_wrong_in_a_later_request_is_named_as_its_client_counts(gateway: Gateway) -> None:
    first = gateway.create("one")
    body = {"model": "m", "previous_response_id": first["id"], "input": [{"type": "mcp_call", "id": "x"}]}
    assert gateway.ask("POST", "/v1/responses", body).error["param"] == "input[0].type"
    body = {"model": "m", "previous_response_id": 7, "input": "x"}
    assert gateway.ask("POST", "/v1/responses", body).error["param"] == "previous_response_id"


def test_what_a_client_wants_forgotten_is_never_kept(gateway: Gateway) -> None:
    made = gateway.create(store=False)
    assert made["store"] is False and is_unknown(gateway.get(made["id"]))


def test_where_nothing_may_be_kept_every_answer_says_so(serve: Serve) -> None:
    gateway = Gateway(serve, responses=ResponsesSettings(max_size=0))
    made = gateway.create()
    assert made["store"] is False and is_unknown(gateway.get(made["id"]))


def test_an_answer_that_is_too_large_to_keep_says_so(serve: Serve) -> None:
    gateway = Gateway(serve, "x" * 5000, responses=ResponsesSettings(max_size=5000))
    body = {"model": "m", "input": "hi", "stream": True}
    assert gateway.create()["store"] is False
    assert last_event(gateway.ask("POST", "/v1/responses", body).body)["response"]["store"] is False


def test_a_store_that_fails_costs_no_answer(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> bool:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(gateway.served.responses, "_keep", broken)
    for _ in range(3):
        made = gateway.create()
        assert made["output"][0]["content"][0]["text"] == "fine" and made["store"] is False
    (line,) = [record.getMessage() for record in caplog.records if "could not be stored" in record.getMessage()]
    assert line.endswith("could not be stored: OperationalError: disk full")


def test_a_disk_that_stays_full_is_a_line_a_minute_with_the_number_of_those_that_were_not_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    losses = Losses(lambda: now)
    for second in (0, 1, 59, 60, 119):
        now = float(second)
        losses.add(f"r{second}", sqlite3.OperationalError("database or disk is full"))
    why = "could not be stored: OperationalError: database or disk is full"
    assert [record.getMessage() for record in caplog.records] == [
        f"the response of request r0 {why}",
        f"the response of request r60 {why}; 2 responses since the last such line were not stored",
    ]
    assert not any(record.exc_info for record in caplog.records)


def test_a_stream_that_failed_is_not_kept(serve: Serve) -> None:
    async def breaks(_: Any) -> Any:
        yield "some"
        raise ModelError("out of luck")

    gateway = Gateway(serve, breaks)
    last = last_event(gateway.ask("POST", "/v1/responses", {"model": "m", "input": "hi", "stream": True}).body)
    assert last["type"] == "response.failed" and last["response"]["store"] is False
    assert is_unknown(gateway.get(last["response"]["id"]))


def test_a_stream_that_its_client_left_is_not_kept(serve: Serve) -> None:
    async def endless(_: Any) -> Any:
        while True:
            yield "and so on "

    gateway = Gateway(serve, endless)
    connection = gateway.served.connect()
    connection.request("POST", "/v1/responses", json.dumps({"model": "m", "input": "hi", "stream": True}))
    response = connection.getresponse()
    response.readline()
    created = json.loads(response.readline().removeprefix(b"data: "))["response"]
    connection.close()
    response.close()
    assert gateway.model.stopped.acquire(timeout=PATIENCE)
    assert is_unknown(gateway.get(created["id"]))


# ── items by reference ───────────────────────────────────────────────────────────────────────────────────────────────


def refer(*identities: str) -> list[Any]:
    return [{"type": "item_reference", "id": identity} for identity in identities]


def asked(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_refers_to_items_is_answered_as_one_that_sends_them(serve: Serve, stream: bool) -> None:
    call = {"tool_calls": [{"id": "c1", "name": "weather", "arguments": {"city": "Oslo"}}], "reasoning_content": "hm"}
    gateway = Gateway(serve, lambda inputs: call if len(inputs["messages"]) < 2 else {"content": "wet"})
    tools = [{"type": "function", "name": "weather"}]
    given: list[Any] = [asked("weather?")]
    whole: list[Any] = list(given)
    for more in ({"type": "function_call_output", "call_id": "c1", "output": "rain"}, asked("thanks"), asked("bye")):
        body = {"model": "m", "input": given, "tools": tools, "stream": stream}
        answer = gateway.ask("POST", "/v1/responses", body)
        output = (last_event(answer.body)["response"] if stream else answer.json)["output"]
        given += [*refer(*(item["id"] for item in output)), more]
        whole += [*output, more]
    gateway.create(given, tools=tools)
    gateway.create(whole, tools=tools)
    assert len(gateway.seen[-1]) == 7 and gateway.seen[-2] == gateway.seen[-1]


def test_a_reference_needs_no_type_and_outlives_the_response_that_said_the_item_first(gateway: Gateway) -> None:
    first = gateway.create("one")
    item = first["output"][0]
    second = gateway.create([asked("one"), {"id": item["id"]}, asked("two")])
    gateway.ask("DELETE", f"/v1/responses/{first['id']}")
    gateway.create([asked("one"), *refer(item["id"]), asked("three")])
    assert gateway.seen[-1][1] == {"role": "assistant", "content": "fine"}
    listed = gateway.get(f"{second['id']}/input_items?order=asc").json["data"]
    assert listed[1] == item
    first_asked = gateway.get(f"{second['id']}/input_items").json["data"][-1]
    gateway.create([*refer(first_asked["id"]), asked("four")])
    assert gateway.seen[-1] == [asked("one"), asked("four")]


@pytest.mark.parametrize("store", [True, False])
def test_an_item_that_nobody_kept_is_refused_by_its_id(gateway: Gateway, store: bool) -> None:
    item = gateway.create("one", store=store)["output"][0]
    identity = "msg_unknown" if store else item["id"]
    error = gateway.ask("POST", "/v1/responses", {"model": "m", "input": [asked("x"), *refer(identity)]}).error
    assert (error["code"], error["param"]) == ("item_not_found", "input[1].id") and identity in error["message"]
    assert error["type"] == "invalid_request_error"


def test_an_item_of_another_key_or_a_lost_model_does_not_exist(
    locked: tuple[Gateway, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, text = locked
    made = gateway.ask("POST", "/v1/responses", {"model": "m", "input": "hi"}, text["one"]).json
    body = {"input": [*refer(made["output"][0]["id"]), asked("x")]}
    ask = {name: gateway.ask("POST", "/v1/responses", {"model": "m", **body}, text[name]) for name in ("one", "two")}
    unknown = gateway.ask("POST", "/v1/responses", {"model": "m", "input": refer("msg_none")}, text["two"])
    assert ask["one"].status == 200
    assert (ask["two"].status, ask["two"].error["code"]) == (unknown.status, unknown.error["code"])
    monkeypatch.setattr(keys.Key, "sees", lambda key, model: model == "other")
    lost = gateway.ask("POST", "/v1/responses", {"model": "other", **body}, text["one"])
    assert (lost.status, lost.error["code"]) == (400, "item_not_found")


def test_an_item_cannot_be_there_twice(gateway: Gateway) -> None:
    first = gateway.create("one")
    item = first["output"][0]
    twice: list[dict[str, Any]] = [
        {"input": refer(item["id"], item["id"])},
        {"input": [item, *refer(item["id"])]},
        {"input": [asked("x"), *refer(item["id"])], "previous_response_id": first["id"]},
    ]
    for fields in twice:
        error = gateway.ask("POST", "/v1/responses", {"model": "m", **fields}).error
        assert error["code"] == "invalid_value" and item["id"] in error["message"]
        assert error["param"] == f"input[{len(fields['input']) - 1}].id"


def test_a_method_of_its_own_gets_known_items_and_the_references_that_nobody_knows(serve: Serve) -> None:
    seen: list[Any] = []
    model = Model({"responses": lambda inputs: seen.append(inputs["input"]) or "fine"})
    served = serve({"m": model}, plugins=[route])
    item = served.post("/v1/responses", {"input": "hi"}).json["output"][0]
    served.post("/v1/responses", {"input": refer(item["id"], "msg_upstream")})
    assert seen[-1] == [item, *refer("msg_upstream")]
    again = served.post("/v1/responses", {"input": refer("msg_upstream")})
    assert again.status == 200 and seen[-1] == refer("msg_upstream")


# ── whose ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def locked(serve: Serve, tmp_path: Path) -> Iterator[tuple[Gateway, dict[str, str]]]:
    """A gateway with keys; "narrow" sees the model `other` only."""
    made = {name: keys.create(name) for name in ("one", "two")}
    made["narrow"] = keys.create("narrow", models=("other",))
    keys.write(tmp_path / "keys.toml", [key for key, _ in made.values()])
    yield Gateway(serve, keys_file=tmp_path / "keys.toml"), {name: text for name, (_, text) in made.items()}


def test_a_response_exists_for_the_key_that_asked_for_it_alone(locked: tuple[Gateway, dict[str, str]]) -> None:
    gateway, text = locked
    body = {"model": "m", "input": "hi"}
    made = gateway.ask("POST", "/v1/responses", body, text["one"]).json
    assert gateway.get(made["id"], text["one"]).status == 200
    for path in (made["id"], f"{made['id']}/input_items"):
        assert is_unknown(gateway.get(path, text["two"]))
        assert gateway.get(path).status == 401
    assert is_unknown(gateway.ask("DELETE", f"/v1/responses/{made['id']}", key=text["two"]))
    gone_on = {**body, "previous_response_id": made["id"]}
    assert gateway.ask("POST", "/v1/responses", gone_on, text["two"]).error["code"] == "previous_response_not_found"
    assert gateway.ask("POST", "/v1/responses", gone_on, text["one"]).status == 200


def test_a_key_that_lost_a_model_lost_its_responses(
    locked: tuple[Gateway, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, text = locked
    made = gateway.ask("POST", "/v1/responses", {"model": "m", "input": "hi"}, text["one"]).json
    monkeypatch.setattr(keys.Key, "sees", lambda key, model: model == "other")
    assert is_unknown(gateway.get(made["id"], text["one"]))
    body = {"model": "other", "input": "hi", "previous_response_id": made["id"]}
    assert gateway.ask("POST", "/v1/responses", body, text["one"]).error["code"] == "previous_response_not_found"


def test_below_the_base_url_of_a_model_its_responses_are_the_only_ones(gateway: Gateway) -> None:
    made = gateway.create(path="/models/m/v1/responses")
    assert gateway.ask("GET", f"/models/m/v1/responses/{made['id']}").json == made
    assert gateway.ask("GET", f"/models/m/v1/responses/{made['id']}/input_items").status == 200
    assert is_unknown(gateway.ask("GET", f"/models/other/v1/responses/{made['id']}"))
    assert gateway.ask("GET", f"/models/none/v1/responses/{made['id']}").error["code"] == "model_not_found"
    assert gateway.ask("DELETE", f"/models/m/v1/responses/{made['id']}").json["deleted"] is True


# ── the routes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_other_methods_are_refused_with_those_that_there_are(gateway: Gateway) -> None:
    for start in ("", "/models/m"):
        for path, allowed in (("resp_1", "GET, HEAD, DELETE"), ("resp_1/input_items", "GET, HEAD")):
            answer = gateway.ask("PUT", f"{start}/v1/responses/{path}")
            assert (answer.status, answer.headers["allow"]) == (405, allowed)
    for path in ("resp_1/cancel", "compact", "input_tokens", ""):
        assert gateway.ask("POST", f"/v1/responses/{path}").error["code"] == "unknown_url"
    made = gateway.create()
    head = gateway.ask("HEAD", f"/v1/responses/{made['id']}")
    assert (head.status, head.body) == (200, b"") and int(head.headers["content-length"]) > 100


def test_a_kept_response_cannot_be_streamed(gateway: Gateway) -> None:
    made = gateway.create()
    answer = gateway.get(f"{made['id']}?stream=true")
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "stream", "unsupported_value")
    assert gateway.get(f"{made['id']}?stream=false&include=message.output_text.logprobs").status == 200


def test_input_items_come_page_by_page(gateway: Gateway) -> None:
    made = gateway.create([{"role": "user", "content": str(number)} for number in range(7)])
    path = f"{made['id']}/input_items"

    def page(query: str) -> tuple[str, bool]:
        value = gateway.get(f"{path}?{query}").json
        assert value["object"] == "list"
        assert (value["first_id"], value["last_id"]) == (value["data"][0]["id"], value["data"][-1]["id"])
        return "".join(item["content"][0]["text"] for item in value["data"]), value["has_more"]

    ids = [item["id"] for item in gateway.get(f"{path}?order=asc").json["data"]]
    assert page("") == ("6543210", False)
    assert page("limit=3&order=asc") == ("012", True)
    assert page(f"limit=3&order=asc&after={ids[2]}") == ("345", True)
    assert page(f"limit=3&order=asc&after={ids[5]}") == ("6", False)
    assert page(f"limit=3&after={ids[4]}") == ("321", True)
    assert page(f"limit=2&order=asc&before={ids[3]}") == ("12", True)
    assert page(f"order=asc&after={ids[0]}&before={ids[3]}") == ("12", False)
    rest = gateway.get(f"{path}?order=asc&after={ids[6]}").json
    assert (rest["data"], rest["has_more"], rest["first_id"], rest["last_id"]) == ([], False, None, None)
    for query, name in (
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        (f"limit={1:09}0000", "limit"),
        (f"limit={'1' * 5000}", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
    ):
        assert gateway.get(f"{path}?{query}").error["param"] == name
    assert gateway.get(f"{path}?after=msg_none").error["param"] == "after"


def test_the_input_of_a_conversation_is_all_that_came_before(gateway: Gateway) -> None:
    first = gateway.create("one")
    second = gateway.create("two", previous_response_id=first["id"])
    items = gateway.get(f"{second['id']}/input_items?order=asc").json["data"]
    assert [(item["role"], item["content"][0]["text"]) for item in items] == [
        ("user", "one"),
        ("assistant", "fine"),
        ("user", "two"),
    ]
    gateway.ask("DELETE", f"/v1/responses/{first['id']}")
    assert len(gateway.get(f"{second['id']}/input_items").json["data"]) == 1


def test_questions_about_responses_are_no_calls_of_a_model(gateway: Gateway) -> None:
    made = gateway.create()
    for path in ("m", "nobody"):
        for query in ("?stream=true", "/input_items?limit=0", ""):
            gateway.ask("GET", f"/models/{path}/v1/responses/{made['id']}{query}")
    counted = [line for line in gateway.ask("GET", "/metrics").body.decode().splitlines() if "requests_total{" in line]
    counted = [line for line in counted if 'model=""' not in line]  # what was refused
    assert len(counted) == 1 and 'route="/v1/responses"' in counted[0] and counted[0].endswith(" 1.0")


def test_a_method_of_its_own_may_be_sent_any_items(serve: Serve) -> None:
    served = serve({"m": Model({"responses": lambda inputs: "fine"})}, plugins=[route])
    odd = [{"type": ["x"], "id": 5}, {"type": "message", "role": "user", "content": 7}, {"role": "user"}, "text"]
    made = served.post("/v1/responses", {"input": odd}).json
    assert made["store"] is True
    listed = served.get(f"/v1/responses/{made['id']}/input_items?order=asc").json["data"]
    assert [item["type"] for item in listed] == ["item_reference", "message", "message"]


def test_the_api_page_knows_the_routes(gateway: Gateway) -> None:
    paths = gateway.ask("GET", "/openapi.json").json["paths"]
    assert set(paths["/v1/responses/{response}"]) == {"get", "delete"}
    assert "get" in paths["/models/{model}/v1/responses/{response}/input_items"]
