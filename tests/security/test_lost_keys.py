"""T192: a request whose key is lost ends at once, whatever it waits for. An order that has begun is carried out."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import http.client
import inspect
import json
import socket
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeReplica
from litestar import get, post
from served import PATIENCE, Answer, Model, Served
from test_callers import CHAT, DIALECTS, MINE, Holders, fine, large_item_and_more, never, plugin

from gateway.access.callers import SCOPES
from gateway.errors import RouteNotSupported, Unauthorized
from gateway.hosting import health_check
from gateway.hosting.model_roots import Changes
from gateway.http import self_calls
from gateway.http.exchange import Exchange
from gateway.http.metrics import models as of_models
from gateway.http.off_loop import AT_ONCE, Beside
from gateway.http.route_table import ROUTES
from gateway.http.routes import admin, dialects, models, oip
from gateway.http.routes.accounts import Account
from gateway.http.routes.health import ask_health
from gateway.settings.schema import ModelSettings

Serve = Callable[..., Served]
LARGE = "a" * (AT_ONCE + 1)
LAZY = {MINE: ModelSettings(load="lazy")}
CHECKED = {"has_health_check": True}


class Asked:
    """A request of the key that will be lost."""

    def __init__(self, holders: Holders, method: str, path: str, body: Any = None) -> None:
        self._holders = holders
        self.connection = holders.served.connect()
        sent = None if body is None else json.dumps(body)
        parts: list[bytes] = []
        self.connection.connect()
        self.connection.send = parts.append  # type: ignore[method-assign, assignment]
        self.connection.request(method, path, sent, {"Authorization": f"Bearer {holders.text}"})
        del self.connection.send
        self.connection.sock.sendall(b"".join(parts))  # at once: a small predict is then answered without a task

    def lose(self) -> Answer:
        """Take the key away, and return the answer."""
        self._holders.change()
        response = self.connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())

    def ends(self) -> None:
        """Take the key away: the answer says so, and the connection takes the next request."""
        answer = self.lose()
        assert answer.status == 401 and b"revoked while this ran" in answer.body, answer.body
        self.connection.request("GET", "/livez")
        response = self.connection.getresponse()
        assert response.status == 200 and b"ok" in response.read()
        self.connection.close()


class Gate:
    """What somebody waits for in a thread, or in the loop, until the test ends."""

    def __init__(self) -> None:
        self.reached, self._go = threading.Event(), threading.Event()

    def wait(self, *given: Any, **named: Any) -> None:
        self.reached.set()
        assert self._go.wait(PATIENCE)

    async def hold(self, *given: Any, **named: Any) -> Any:
        self.reached.set()
        await asyncio.Event().wait()

    def open(self) -> None:
        self._go.set()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The server under the gateway takes none of these ends for a failure."""
    yield
    assert not [record for record in caplog.get_records("call") if record.exc_info or record.name.startswith("uvicorn")]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def test_what_waits_for_a_thread_ends(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """Its work is done there, or waits for that of others."""
    monkeypatch.setattr(dialects, "decode_object", gate.wait)
    holders = Holders(serve, tmp_path, {MINE: fine()})
    body = {"messages": [{"role": "user", "content": LARGE}]}
    done = Asked(holders, "POST", "/v1/chat/completions", body)
    assert gate.reached.wait(PATIENCE)
    waits = Asked(holders, "POST", "/v1/chat/completions", body)
    permits = holders.permits
    holders.served.wait_until(lambda: permits.running == 2)
    done.ends()
    waits.ends()
    assert not holders.served.models[MINE].calls


def test_a_stream_whose_item_waits_for_a_thread_is_broken_off(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """Its call hears of the end, but nobody waits for the call then."""
    do = Beside.do

    async def held(self: Any, exchange: Any, size: int, work: Any, *more: Any) -> Any:
        if size > AT_ONCE and exchange is not None and getattr(work, "func", work).__name__ == "feed":
            await gate.hold()
        return await do(self, exchange, size, work, *more)

    go = asyncio.Event()

    async def talk(inputs: Any) -> Any:
        yield "first"
        await go.wait()
        yield LARGE
        await never(inputs)

    monkeypatch.setattr(Beside, "do", held)
    holders = Holders(serve, tmp_path, {MINE: Model({"chat_completions": talk})})
    with contextlib.closing(
        Asked(holders, "POST", "/v1/chat/completions", {"stream": True, **CHAT}).connection
    ) as mine:
        answer = mine.getresponse()
        assert answer.status == 200 and answer.read(1)
        holders.served.do(go.set)
        assert gate.reached.wait(PATIENCE)
        holders.change()
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
    assert b"[DONE]" not in caught.value.partial


@pytest.mark.parametrize("path", ["/v1/chat/completions", f"/models/{MINE}/predict"])
@pytest.mark.parametrize("tables", [{}, LAZY], ids=["at the start", "on demand"])
def test_a_stream_that_waits_for_its_client_is_broken_off(serve: Serve, tmp_path: Path, path: str, tables: Any) -> None:
    """Its call hears of the end too."""
    model = Model(dict.fromkeys(("chat_completions", "predict"), large_item_and_more))
    holders = Holders(serve, tmp_path, {MINE: model}, tables=tables, send_timeout=3600.0)
    with contextlib.closing(Asked(holders, "POST", path, {"stream": True, **CHAT}).connection) as mine:
        assert mine.sock.recv(5, socket.MSG_PEEK), "it is on its way"
        holders.change()
        there: set[Any] = holders.served.server.server_state.connections
        holders.served.wait_until(lambda: [each.is_lingering for each in there] == [True])


@pytest.mark.parametrize("path", ["/v1/chat/completions", f"/models/{MINE}/predict"])
@pytest.mark.parametrize("tables", [{}, LAZY], ids=["at the start", "on demand"])
def test_what_waits_for_a_model_that_loads_ends(serve: Serve, tmp_path: Path, path: str, tables: Any) -> None:
    model = fine(loads=[asyncio.Event()], limits={"wait_for_ready": PATIENCE})
    holders = Holders(serve, tmp_path, {MINE: model}, tables=tables)
    asked = Asked(holders, "POST", path, CHAT)
    waiting = holders.served.hub.catalog.models[MINE]._early
    holders.served.wait_until(lambda: len(waiting) == 1)
    asked.ends()
    assert not len(waiting)


@pytest.mark.parametrize("path", [f"/v1/models/{MINE}", f"/v2/models/{MINE}/ready", "/metrics", "/admin/models"])
def test_a_query_of_a_worker_ends(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    for module in (admin, of_models):
        monkeypatch.setattr(module, "ask_health", lambda models, seconds: asyncio.wait_for(ask_health(models, 99), 99))
    monkeypatch.setattr(of_models, "SCRAPE_TIMEOUT", PATIENCE)
    monkeypatch.setattr(health_check, "HEALTH_TIMEOUT", PATIENCE)
    model = Model({"predict": never, "is_healthy": never}, capabilities=CHECKED)
    holders = Holders(serve, tmp_path, {MINE: model}, limits={"scopes": SCOPES}, admin_http=True)
    asked = Asked(holders, "GET", path)
    assert model.begun.acquire(timeout=PATIENCE)
    asked.ends()


def test_a_scrape_of_workers_ends_with_its_request(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def scrape(replica: Any) -> str:
        begun.set()
        try:
            await never(None)
        finally:
            cancelled.set()
        return ""

    monkeypatch.setattr(FakeReplica, "scrape", scrape)
    monkeypatch.setattr(of_models, "SCRAPE_TIMEOUT", PATIENCE)
    holders = Holders(serve, tmp_path, {MINE: fine()}, limits={"scopes": SCOPES})
    asked = Asked(holders, "GET", "/metrics")
    assert begun.wait(PATIENCE)
    asked.ends()
    assert cancelled.wait(PATIENCE)


@pytest.mark.parametrize("stage", ["counts", "prepares"])
def test_what_waits_for_a_count_of_tokens_ends(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate, stage: str
) -> None:
    model = Model(
        {"completions": lambda inputs: "a", "count_tokens": gate.hold},
        slotless=("count_tokens",),
    )
    if stage == "prepares":
        monkeypatch.setattr(Account, "_questions", gate.hold)
    holders = Holders(serve, tmp_path, {MINE: model}, plugins=DIALECTS)
    asked = Asked(holders, "POST", "/v1/completions", {"prompt": "a"})
    assert gate.reached.wait(PATIENCE)
    asked.ends()


STORED = {
    "find": ("GET", "/v1/responses/resp_0", None),
    "chain": ("POST", "/v1/responses", {"input": "a", "previous_response_id": "resp_0"}),
    "items": ("POST", "/v1/responses", {"input": [{"type": "item_reference", "id": "msg_0"}]}),
    "keep": ("POST", "/v1/responses", {"input": "a"}),
}


@pytest.mark.parametrize("step", STORED)
def test_what_waits_for_stored_responses_ends(serve: Serve, tmp_path: Path, gate: Gate, step: str) -> None:
    holders = Holders(serve, tmp_path, {MINE: fine()}, plugins=DIALECTS)
    setattr(holders.served.responses, step, gate.hold)
    asked = Asked(holders, *STORED[step])
    assert gate.reached.wait(PATIENCE)
    asked.ends()


def test_a_stream_that_waits_to_be_stored_is_broken_off(serve: Serve, tmp_path: Path, gate: Gate) -> None:
    holders = Holders(serve, tmp_path, {MINE: fine()}, plugins=DIALECTS)
    holders.served.responses.keep = gate.hold
    asked = Asked(holders, "POST", "/v1/responses", {"input": "a", "stream": True})
    assert gate.reached.wait(PATIENCE)
    with pytest.raises(http.client.IncompleteRead) as caught:
        asked.lose()
    assert b"response.completed" not in caught.value.partial


def test_no_answer_is_sent_for_a_lost_key_whatever_its_route_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by code that hears of no cancellation."""
    sent: list[Any] = []
    monkeypatch.setattr(Exchange, "reply_now", lambda self, *answer: sent.append(answer) or True)

    async def main() -> None:
        exchange = Exchange({"method": "GET", "path": "/", "headers": []}, None, None)
        exchange.end(Unauthorized("it is gone"))
        with pytest.raises(Unauthorized, match="it is gone"):
            await exchange.reply(200, b"{}")

    asyncio.run(main())
    assert not sent


def test_what_waits_for_the_look_at_who_asks_ends(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    monkeypatch.setattr(self_calls, "check_question", gate.hold)
    holders = Holders(serve, tmp_path, {MINE: fine()})
    asked = Asked(holders, "GET", "/v1/models")
    assert gate.reached.wait(PATIENCE)
    monkeypatch.undo()
    asked.ends()


@pytest.mark.parametrize("kind", ["async", "sync", "stubborn"])
def test_a_route_of_a_plugin_ends(serve: Serve, tmp_path: Path, gate: Gate, kind: str) -> None:
    @get("/plugged")
    async def waits() -> str:
        await gate.hold()
        return "late"

    @get("/plugged")
    async def stays() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await gate.hold()
        return "late"

    @get("/plugged", sync_to_thread=True)
    def blocks() -> str:
        gate.wait()
        return "late"

    route = {"async": waits, "sync": blocks, "stubborn": stays}[kind]
    extra = plugin("extra", configure_app=lambda config: config.route_handlers.append(route))
    holders = Holders(serve, tmp_path, {MINE: fine()}, plugins=[extra])
    asked = Asked(holders, "GET", "/plugged")
    assert gate.reached.wait(PATIENCE)
    asked.ends()


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def orders(serve: Serve, place: Path, model: Model, **options: Any) -> Holders:
    return Holders(serve, place, {MINE: model}, limits={"scopes": SCOPES}, admin_http=True, **options)


def outcomes(caplog: pytest.LogCaptureFixture, action: str) -> list[str]:
    lines = [vars(record) for record in caplog.records if record.name == "gateway.audit"]
    return [line["outcome"] for line in lines if line["action"] == action and line.get("key") == "ada"]


@pytest.mark.parametrize("path", [f"/admin/models/{MINE}/load", f"/v2/repository/models/{MINE}/load"])
def test_a_load_goes_on_and_is_told(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async def read_again(*given: Any) -> bool:  # it has no directory
        return False

    monkeypatch.setattr(admin, "reload", read_again)
    loaded = asyncio.Event()
    holders = orders(serve, tmp_path, fine(loads=[loaded]), tables=LAZY)
    model = holders.served.hub.catalog.models[MINE]
    asked = Asked(holders, "POST", path, {})
    holders.served.wait_until(lambda: model.state == "loading")
    asked.ends()
    assert model.state == "loading" and not outcomes(caplog, "load")
    holders.served.do(loaded.set)
    holders.served.wait_until(lambda: bool(outcomes(caplog, "load")))
    assert model.state == "ready" and outcomes(caplog, "load") == ["done"]


@pytest.mark.parametrize("path", [f"/admin/models/{MINE}/unload", f"/v2/repository/models/{MINE}/unload"])
def test_an_unload_goes_on_and_is_told(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    go = asyncio.Event()

    async def slow(body: bytes) -> bytes:
        await go.wait()
        return b"1"

    holders = orders(serve, tmp_path, Model({"predict": slow}), tables=LAZY)
    model = holders.served.hub.catalog.models[MINE]
    with contextlib.closing(holders.begin(f"/models/{MINE}/predict", {}, holders.others)) as runs:
        asked = Asked(holders, "POST", path, {})
        holders.served.wait_until(lambda: model.state == "draining")
        asked.ends()
        assert model.state == "draining" and not outcomes(caplog, "unload")
        holders.served.do(go.set)
        assert runs.getresponse().status == 200
    holders.served.wait_until(lambda: bool(outcomes(caplog, "unload")))
    assert model.state == "unloaded" and outcomes(caplog, "unload") == ["done"]


def test_a_hot_reload_goes_on_and_is_told(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    go = asyncio.Event()

    async def swap(inputs: Any) -> Any:
        await go.wait()
        raise RouteNotSupported("of the test")

    model = Model({"predict": never, "swap_class": swap})
    holders = orders(serve, tmp_path, model)
    asked = Asked(holders, "POST", f"/models/{MINE}/hot-reload", {})
    assert model.begun.acquire(timeout=PATIENCE)
    asked.ends()
    assert not outcomes(caplog, "hot reload") and not holders.served.models[MINE].players[0].cancelled
    holders.served.do(go.set)
    holders.served.wait_until(lambda: bool(outcomes(caplog, "hot reload")))
    assert "of the test" in outcomes(caplog, "hot reload")[0]


@pytest.mark.parametrize(
    ("path", "name"), [(f"/admin/models/{MINE}/reload", "reload"), ("/admin/reload", "look_again")]
)
def test_a_reload_and_a_search_go_on(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    begun, done, go = threading.Event(), threading.Event(), asyncio.Event()

    async def slowly(*given: Any, **named: Any) -> Any:
        begun.set()
        await go.wait()
        done.set()
        return Changes()

    monkeypatch.setattr(admin, name, slowly)
    holders = orders(serve, tmp_path, fine())
    asked = Asked(holders, "POST", path, {})
    assert begun.wait(PATIENCE)
    asked.ends()
    holders.served.do(go.set)
    assert done.wait(PATIENCE)


def test_an_order_of_a_plugin_goes_on_and_its_answer_reaches_nobody(serve: Serve, tmp_path: Path) -> None:
    begun, done, go = threading.Event(), threading.Event(), asyncio.Event()

    @post("/admin/plugged")
    async def plugged() -> str:
        begun.set()
        await go.wait()
        done.set()
        return "late"

    extra = plugin("extra", configure_app=lambda config: config.route_handlers.append(plugged))
    holders = orders(serve, tmp_path, fine(), plugins=[extra])
    asked = Asked(holders, "POST", "/admin/plugged")
    assert begun.wait(PATIENCE)
    answer = asked.lose()
    assert answer.status == 401
    holders.served.do(go.set)
    assert done.wait(PATIENCE)
    asked.connection.request("GET", "/livez")  # nothing of the late answer is before this one
    assert asked.connection.getresponse().status == 200
    asked.connection.close()


def test_every_order_of_the_table_is_carried_out() -> None:
    """An order that is awaited in the task of its request would be cut off half-way."""
    parts = {"admin": admin.Admin, "inference": oip.OpenInference, "models": models.Models}
    rows = [row for row in ROUTES if row.scope == "admin" and row.verb == "POST"]
    assert len(rows) >= 9
    for row in rows:
        part, _, name = row.handler.partition(".")
        source = textwrap.dedent(inspect.getsource(getattr(parts[part], name)))
        awaited = [ast.unparse(each.value) for each in ast.walk(ast.parse(source)) if isinstance(each, ast.Await)]
        others = [each for each in awaited if not each.startswith(("carried_out(", "exchange.reply(", "self._tell("))]
        assert any(each.startswith("carried_out(") for each in awaited) and not others, row.handler
