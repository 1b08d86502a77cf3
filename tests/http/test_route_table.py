"""The gateway's own routes: each row of the table is dispatched, guarded, described, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from served import Answer, Model, Served

from gateway.access import keys
from gateway.access.callers import SCOPES
from gateway.dialects.openai import chat
from gateway.dialects.responses import route as responses
from gateway.hookspecs import hookimpl
from gateway.http.exchange import Exchange
from gateway.http.route_table import ELSEWHERE, KEPT, LITESTARS, OPEN, ROUTES, WEBSOCKET, Route, is_own
from gateway.plugins import Plugins
from gateway.spec import Endpoint

Serve = Callable[..., Served]
FILLED = {"model": "m", "response": "resp_0", "name": "page.js", "rest": "nothing"}
ALL = "all"  # the key with every scope
UPGRADE = {"connection": "upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}


def path_of(row: Route, model: str = "m") -> str:
    return row.template.format(**{**FILLED, "model": model})


class Doors:
    """A gateway with a key of each scope, and one of all."""

    def __init__(self, served: Served, file: Path) -> None:
        self.served = served
        made = {scope: keys.create(scope, scopes=(scope,)) for scope in SCOPES}
        made[ALL] = keys.create(ALL, scopes=SCOPES)
        keys.write(file, [key for key, _ in made.values()])
        self.texts = {name: text for name, (_, text) in made.items()}

    def ask(self, row: Route, who: str) -> Answer:
        """Orders are for a model that nobody has, so that each is answered and none changes anything."""
        path = path_of(row, "nobodys" if row.scope == "admin" else "m")
        headers = {"x_api_key": self.texts[who]} if who else {}
        if row.verb == WEBSOCKET:
            return self.served.get(path, **UPGRADE, sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==", **headers)
        body = b"{}" if row.verb == "POST" else None
        return self.served.ask(row.verb or "GET", path, body, **headers)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys.write(file, [])
    model = Model({"predict": lambda body: b"1", "chat_completions": lambda inputs: "fine"})
    models = {"m": model, "other": model}  # two: /hot-reload is then for none of them
    with Served(models, plugins=[responses], keys_file=file, admin_http=True) as served:
        made = Doors(served, file)
        assert served.do(served.keys.reload()) == ""
        yield made


def test_each_row_opens_with_its_scope_and_with_no_other(doors: Doors) -> None:
    for row in ROUTES:
        statuses = {who: doors.ask(row, who).status for who in ("", *SCOPES)}
        if row.scope == "open":
            assert set(statuses.values()) <= {200, 503}, row
        else:
            assert statuses.pop("") == 401, row
            assert {who for who, status in statuses.items() if status != 403} == {row.scope}, row


def test_each_row_is_reached_over_http_but_what_the_admin_socket_alone_takes(doors: Doors) -> None:
    for row in ROUTES:
        if row.handler:
            answer = doors.ask(row, ALL)
            assert (b"unknown URL" in answer.body) == (row.door == "socket"), row
            assert answer.status != 405, row


def test_each_row_is_answered_by_the_handler_that_it_names(doors: Doors) -> None:
    routes = doors.served.app._admit.__self__._routes
    for row in ROUTES:
        if row.handler and row.verb != WEBSOCKET and row.part not in LITESTARS:
            exchange = Exchange({"method": row.verb, "path": path_of(row), "headers": []}, None, None)
            exchange.connection, exchange.is_admin = SimpleNamespace(is_local=True), True  # type: ignore[assignment]
            handler: Any = routes.find(exchange)
            method = row.handler.partition(".")[2]
            assert handler.__name__ == method if method else handler is routes.predict, row
            assert exchange.row is row and exchange.route == row.route
            assert exchange.named == ("m" if "{model}" in row.template else "model" if "{model}" in row.route else "")


def test_the_document_has_every_row_that_clients_may_use_and_no_other(doors: Doors) -> None:
    shown = doors.served.get("/openapi.json", x_api_key=doors.texts[ALL]).json["paths"]
    of_dialects = {endpoint.path for endpoint in doors.served.hub.catalog.endpoints}
    told = {
        (verb.upper(), path, operation["operationId"], operation["summary"])
        for path, operations in shown.items()
        for verb, operation in operations.items()
        if path.removeprefix("/models/{model}") not in of_dialects
    }
    assert told == {(row.verb, row.template, row.name, row.summary) for row in ROUTES if row.name}
    assert all(operation.get("security") == [] for path in OPEN & shown.keys() for operation in shown[path].values())
    assert not [row for row in ROUTES if row.name and row.door], "to most there is no such URL"
    unnamed = {row.template for row in ROUTES if not row.name and not row.door and row.handler}
    of_pages, of_sockets = {"/docs", "/docs/{name}", "/openapi.json"}, {"/v1/websocket", "/models/{model}/v1/websocket"}
    assert unnamed == of_pages | of_sockets, "which are no operations"


def test_no_plugin_takes_a_row_but_those_that_come_with_a_plugin() -> None:
    for row in ROUTES:
        module = ModuleType("taker")
        endpoint = Endpoint(path=path_of(row), method="predict", dialect="openai_chat")
        register = hookimpl(lambda register, endpoint=endpoint: register(endpoint))
        module.register_endpoints = register  # type: ignore[attr-defined]
        plugins = Plugins(is_own)
        for each in (chat, module):
            plugins.register(each, each.__name__, source="test")
        is_taken = endpoint in plugins.endpoints()
        assert is_taken == (row.part == KEPT and row.start != "/models/"), row
        assert is_taken or [problem for problem in plugins.problems if endpoint.path in problem.what]


def test_an_id_that_ends_as_an_order_does_needs_no_scope_of_operators(doors: Doors) -> None:
    for path in ("/v1/models/org/load", "/v1/models/org/logs", "/models/org/unload/status"):
        answer = doors.served.get(path, x_api_key=doors.texts["infer"])
        assert answer.status == 404 and b"no model named" in answer.body


def test_however_often_a_slash_is_written_a_path_of_operators_needs_their_scope(doors: Doors) -> None:
    for path in ("//admin/x", "/admin//x", "/admin/x/", "//metrics", "/metrics//"):
        assert doors.served.get(path, x_api_key=doors.texts["infer"]).status == 403


def test_templates_and_names_are_there_once() -> None:
    assert len({(row.verb, row.template) for row in ROUTES}) == len(ROUTES)
    named = [row.name for row in ROUTES if row.name]
    assert len(set(named)) == len(named)
    assert {row.scope for row in ROUTES if row.door} == {"admin"} and ELSEWHERE.scope == "infer"
