"""What a route says when something is wrong, in the shape of its path: one table of rows, each a sentence.

tests/http walks it for every route that there is, with played models; tests/e2e for one path of each shape, with the
real command and real workers. Both serve models of the names in MODELS, which do what the rows want of them.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gateway.plugins import Plugins

KEY = "a-key-for-the-tests"
ORIGIN = "https://app.example"
MAX_BODY = 2000
PATIENCE = 60.0  # seconds for what should come at once
PLUGINS = Plugins.load()
DIALECTS = PLUGINS.dialects()
ENDPOINTS = {endpoint.path: endpoint for endpoint in PLUGINS.endpoints() if endpoint.verb == "POST"}
METHODS = sorted({endpoint.method for endpoint in ENDPOINTS.values()})
COUNTING = ("count_tokens", "tokenize", "detokenize")  # these hold no slot
PREDICT = "/models/{model}/predict"
# raises; answers 422; answers a number; never answers; has one slot and no queue; loads for ever; has failed to load;
# has `predict` alone.
MODELS = ("raises", "refuses", "shapeless", "slow", "full", "loading", "broken", "narrow")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a gateway that serves MODELS, with KEY."""

    def __init__(self, url: str) -> None:
        self.url = url

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)

    def send(
        self, method: str, path: str, body: bytes | None = None, *, key: str | None = KEY, **headers: str
    ) -> Answer:
        connection = self.connect()
        given = {"authorization": f"Bearer {key}"} if key else {}
        try:
            connection.request(method, path, body, {**given, **{k.replace("_", "-"): v for k, v in headers.items()}})
            response = connection.getresponse()
            answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()
        assert answer.headers["x-request-id"] == answer.headers["request-id"] != ""
        return answer

    def ask(self, path: str, model: str, **fields: Any) -> Answer:
        """The example of the route's own documentation, sent to a model."""
        if path == PREDICT:
            return self.send("POST", PREDICT.format(model=model), b"{}")
        dialect = DIALECTS[ENDPOINTS[path].dialect]
        if dialect.body == "form":
            return self.send("POST", path, form(model=model, **fields), content_type=FORM)
        example = dialect.request_schema["example"]
        return self.send("POST", path, json.dumps({**example, "model": model, **fields}).encode())


FORM = "multipart/form-data; boundary=edge"


def form(**fields: str) -> bytes:
    parts = [
        f'--edge\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    file = '--edge\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--edge--\r\n'
    return ("".join(parts) + file).encode()


def error_of(answer: Answer, path: str) -> tuple[str, str | None, str]:
    """Type, code and message, after a look at the shape; Anthropic's has no code, Truss's neither that nor a type."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json
    if path == PREDICT or path.endswith("/predict"):
        assert list(body) == ["error"] and answer.headers["x-baseten-error-source"] == "04"
        return "", None, str(body["error"])
    if path.startswith("/v1/messages"):
        assert set(body) == {"type", "error", "request_id"} and body["type"] == "error"
        assert body["request_id"] == answer.headers["request-id"]
        assert set(body["error"]) >= {"type", "message"}
        return body["error"]["type"], None, body["error"]["message"]
    assert list(body) == ["error"] and set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["code"], str)
    return body["error"]["type"], body["error"]["code"], body["error"]["message"]


def expect(answer: Answer, path: str, status: int, kind: str, code: str, anthropic: str) -> str:
    """Check an error against its row of the table; returns its message."""
    found, found_code, message = error_of(answer, path)
    assert answer.status == status, answer.body
    if path.startswith("/v1/messages"):
        assert found == anthropic
    elif path != PREDICT and not path.endswith("/predict"):
        assert (found, found_code) == (kind, code)
    return message


Row = Callable[[Client, str], None]
ROWS: dict[Row, Callable[[str], bool]] = {}  # and which paths it is about


def of_routes(row: Row) -> Row:
    ROWS[row] = lambda path: True
    return row


def of_endpoints(row: Row) -> Row:
    ROWS[row] = lambda path: path != PREDICT
    return row


def of_what_holds_a_slot(row: Row) -> Row:
    ROWS[row] = lambda path: path == PREDICT or ENDPOINTS[path].method not in COUNTING
    return row


def walk(paths: Iterable[str]) -> list[tuple[Row, str]]:
    """Every row with each of the paths that it is about."""
    return [(row, path) for row, is_about in ROWS.items() for path in paths if is_about(path)]


def name_of(part: Row | str) -> str:
    return part if isinstance(part, str) else part.__name__


# ── requests that are wrong ──────────────────────────────────────────────────────────────────────────────────────────


@of_endpoints
def a_body_that_is_no_object_is_400(client: Client, path: str) -> None:
    for body in (b"", b"{", b"[]", b"null", b'{"a": NaN}', b"\xff", b"[" * 100 + b"]" * 100):
        answer = client.send("POST", path, body)
        _, code, _ = error_of(answer, path)
        if DIALECTS[ENDPOINTS[path].dialect].body == "form":  # JSON is no form at all
            assert answer.status in (400, 415), body
        else:
            assert answer.status == 400 and code in (None, "invalid_json"), body


@of_endpoints
def a_request_without_its_fields_is_400_and_names_one(client: Client, path: str) -> None:
    is_form = DIALECTS[ENDPOINTS[path].dialect].body == "form"
    body = b'--edge\r\ncontent-disposition: form-data; name="model"\r\n\r\nraises\r\n--edge--\r\n'
    answer = client.send(
        "POST", path, body if is_form else b'{"model": "raises"}', content_type=FORM if is_form else ""
    )
    expect(answer, path, 400, "invalid_request_error", "missing_required_parameter", "invalid_request_error")
    assert path.startswith("/v1/messages") or answer.json["error"]["param"]


@of_routes
def a_body_that_is_too_large_is_413(client: Client, path: str) -> None:
    answer = client.send("POST", path.format(model="raises"), b" " * (MAX_BODY + 1))
    expect(answer, path, 413, "invalid_request_error", "request_too_large", "request_too_large")


@of_routes
def a_compressed_body_is_415(client: Client, path: str) -> None:
    answer = client.send("POST", path.format(model="raises"), b"{}", content_encoding="gzip")
    expect(answer, path, 415, "invalid_request_error", "unsupported_media_type", "invalid_request_error")


@of_routes
def without_the_key_every_route_is_401(client: Client, path: str) -> None:
    wrong: list[dict[str, str]] = [{}, {"x_api_key": "wrong"}, {"authorization": "Bearer wrong"}]
    for headers in wrong:
        answer = client.send("POST", path.format(model="raises"), b"{}", key=None, **headers)
        message = expect(answer, path, 401, "invalid_request_error", "invalid_api_key", "authentication_error")
        assert "Incorrect API key provided" in message and answer.headers["www-authenticate"] == "Bearer", headers


@of_endpoints
def the_key_is_taken_from_either_header(client: Client, path: str) -> None:
    assert client.send("POST", path, b"{}", key=None, x_api_key=KEY).status in (400, 415)  # and not 401


@of_routes
def an_unknown_model_is_404_and_those_there_are_are_named(client: Client, path: str) -> None:
    answer = client.ask(path, "lama")
    message = expect(answer, path, 404, "invalid_request_error", "model_not_found", "not_found_error")
    assert "'lama'" in message and "narrow" in message


@of_endpoints
def a_model_that_lacks_the_method_is_404_and_says_what_it_serves(client: Client, path: str) -> None:
    answer = client.ask(path, "narrow")
    message = expect(answer, path, 404, "invalid_request_error", "route_not_supported", "not_found_error")
    assert "/v1/models/narrow:predict" in message
    assert path.startswith("/v1/messages") or answer.json["error"]["param"] == "model"


@of_routes
def another_method_is_405_with_allow(client: Client, path: str) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = client.send(method, path.format(model="raises"))
        expect(answer, path, 405, "invalid_request_error", "method_not_allowed", "not_found_error")
        assert answer.headers["allow"] == "POST", method


UNKNOWN = ("/v1/nothing", "/v1/chat", "/v1/messages/nothing", "/nothing", "/v1", "/v1/models/x/y/z")


def an_unknown_path_is_an_error_in_the_shape_of_its_neighbours(client: Client, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = client.send(method, path, b"{}" if method == "POST" else None)
        assert answer.status in (404, 405)
        error_of(answer, path)
        assert client.send(method, path, key=None).status == 401


# ── models that cannot, now or ever ──────────────────────────────────────────────────────────────────────────────────


@of_routes
def a_model_that_loads_is_503_with_a_time_to_come_back(client: Client, path: str) -> None:
    answer = client.ask(path, "loading")
    expect(answer, path, 503, "server_error", "model_loading", "overloaded_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 120 and answer.headers.get("x-should-retry") != "false"


@of_routes
def a_model_that_failed_is_503_and_not_worth_another_try(client: Client, path: str) -> None:
    answer = client.ask(path, "broken")
    expect(answer, path, 503, "server_error", "model_failed", "api_error")
    assert answer.headers["x-should-retry"] == "false" and "retry-after" not in answer.headers


@of_what_holds_a_slot
def a_full_model_is_429_with_a_time_to_come_back(client: Client, path: str) -> None:
    with held(client):
        answer = client.ask(path, "full")
    expect(answer, path, 429, "rate_limit_error", "model_overloaded", "rate_limit_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 120


@contextmanager
def held(client: Client) -> Iterator[None]:
    """Within the block a predict has the one slot of `full`."""
    connection = client.connect()
    try:
        wait_for(lambda: in_flight(client) == 0, "the slot is free")
        connection.request("POST", "/models/full/predict", b"{}", {"authorization": f"Bearer {KEY}"})
        wait_for(lambda: in_flight(client) == 1, "the slot is taken")
        yield
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.005)  # a gauge of /metrics tells nobody that it changes


def in_flight(client: Client) -> float:
    lines = client.send("GET", "/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith('gateway_requests_in_flight{model="full"}'))


@of_routes
def a_model_that_raises_is_500_without_its_words(client: Client, path: str) -> None:
    answer = client.ask(path, "raises")
    expect(answer, path, 500, "server_error", "model_error", "api_error")
    assert answer.headers["x-should-retry"] == "false" and b"secret" not in answer.body


@of_routes
def an_error_of_the_models_own_keeps_its_status_and_words(client: Client, path: str) -> None:
    answer = client.ask(path, "refuses")
    message = expect(answer, path, 422, "invalid_request_error", "odd", "invalid_request_error")
    assert message == "not like this" and "x-should-retry" not in answer.headers


@of_endpoints
def an_answer_that_nobody_understands_is_500(client: Client, path: str) -> None:
    answer = client.ask(path, "shapeless")
    expect(answer, path, 500, "server_error", "invalid_model_output", "api_error")
    assert answer.headers["x-should-retry"] == "false"


@of_routes
def an_answer_that_does_not_come_is_504(client: Client, path: str) -> None:
    answer = client.ask(path, "slow")
    expect(answer, path, 504, "server_error", "timeout", "timeout_error")


# ── browsers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@of_routes
def a_preflight_needs_no_key_and_allows_what_it_asked_for(client: Client, path: str) -> None:
    wants = {"access_control_request_method": "POST", "access_control_request_headers": "authorization, x-mine"}
    answer = client.send("OPTIONS", path.format(model="raises"), key=None, origin=ORIGIN, **wants)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-headers"] == "authorization, x-mine"
    assert {"GET", "POST", "DELETE", "OPTIONS"} == set(answer.headers["access-control-allow-methods"].split(", "))


@of_routes
def a_browser_may_read_errors(client: Client, path: str) -> None:
    answers = [
        client.send("POST", path.format(model="raises"), b"{}", key=None, origin=ORIGIN),
        client.send("GET", path.format(model="raises"), origin=ORIGIN),
        client.send("POST", "/v1/nothing", b"{}", origin=ORIGIN),
        client.send("POST", path.format(model="raises"), b"{", origin=ORIGIN, content_type="application/json"),
    ]
    for answer in answers:
        assert answer.status >= 400 and answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = answer.headers["access-control-expose-headers"]
        assert all(name in exposed for name in ("x-request-id", "retry-after", "x-ratelimit-", "server-timing"))


@of_endpoints
def a_browsers_form_is_not_taken_for_json(client: Client, path: str) -> None:
    answer = client.send("POST", path, b'{"a": 1}', origin=ORIGIN, content_type="text/plain")
    expect(answer, path, 415, "invalid_request_error", "unsupported_media_type", "invalid_request_error")


@of_routes
def another_origin_is_403(client: Client, path: str) -> None:
    answer = client.send("POST", path.format(model="raises"), b"{}", origin="https://evil.example")
    expect(answer, path, 403, "invalid_request_error", "forbidden_origin", "permission_error")
    assert "access-control-allow-origin" not in answer.headers
