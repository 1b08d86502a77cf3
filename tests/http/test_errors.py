"""Every situation has one status, type and code, in the shape that clients of the path expect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from served import PATIENCE, Answer, Model, Reply, Served

from gateway import errors as tree
from gateway.dialects.base import MODEL_RAISED
from gateway.dialects.output_paths import Odd
from gateway.errors import (
    BadRequest,
    Draining,
    GatewayError,
    HTTPError,
    InvalidOutput,
    ModelError,
    OutOfMemory,
    Overloaded,
    Unavailable,
)
from gateway.http import errors
from gateway.http.routes import unusable_outputs
from gateway.runners.replica import LoadError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}
EMBED = {"model": "m", "input": "a"}
Serve = Callable[..., Served]


def raises(error: GatewayError) -> Callable[[Any], Any]:
    def script(inputs: Any) -> Any:
        raise error

    return script


async def forever(inputs: Any) -> Any:
    await asyncio.Event().wait()


def everything(script: Callable[[Any], Any], **options: Any) -> Model:
    return Model({"predict": script, "chat_completions": script, "embeddings": script}, **options)


class Situations:
    """Each brings a gateway into it, and hands over one function that asks a path there."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve

    def asked(self, served: Served) -> Callable[..., Answer]:
        return lambda path, body: served.post(path, body)

    def queue_full(self) -> Callable[..., Answer]:
        served = self.serve({"m": everything(forever, limits={"slots": 1, "max_queue": 0})})
        served.keep_busy("m")
        return self.asked(served)

    def queue_timeout(self) -> Callable[..., Answer]:
        served = self.serve({"m": everything(forever, limits={"slots": 1, "queue_timeout": 0.01})})
        served.keep_busy("m")
        return self.asked(served)

    def loading(self) -> Callable[..., Answer]:
        return self.asked(self.serve({"m": everything(forever, loads=[PATIENCE])}))

    def restarting(self) -> Callable[..., Answer]:
        model = everything(forever, loads=[None, PATIENCE])
        served = self.serve({"m": model})
        served.do(lambda: model.players[0].die("it broke"))
        served.wait_until(lambda: served.hub.catalog.models["m"].state == "restarting")
        return self.asked(served)

    def failed_load(self) -> Callable[..., Answer]:
        served = self.serve({"m": everything(forever, loads=[LoadError("no weights", fatal=True)])})
        served.wait_until(lambda: served.hub.catalog.models["m"].state == "failed")
        return self.asked(served)

    def out_of_memory(self) -> Callable[..., Answer]:
        return self.asked(self.serve({"m": everything(raises(OutOfMemory("out of memory")))}))

    def draining(self) -> Callable[..., Answer]:
        served = self.serve({"m": everything(forever)})
        served.keep_busy("m")
        served.do(lambda: served.loop.create_task(served.hub.catalog.models["m"].stop(PATIENCE)))
        return self.asked(served)

    def crashed(self) -> Callable[..., Answer]:
        def ask(path: str, body: Any) -> Answer:
            model = everything(forever)
            served = self.serve({"m": model})
            with served.busy("m", path, body) as waiting:
                served.do(lambda: model.players[0].die("it broke"))
                return waiting.answer()

        return ask

    def model_raised(self) -> Callable[..., Answer]:
        return self.asked(self.serve({"m": everything(raises(ModelError(MODEL_RAISED)))}))

    def timed_out(self) -> Callable[..., Answer]:
        limits = {"request_timeout": 0.01, "first_item_timeout": 0.01}
        return self.asked(self.serve({"m": everything(forever, limits=limits)}))

    def raised_by_name(self) -> Callable[..., Answer]:
        error = HTTPError(422, "say it better", code="style", param="tone", headers={"X-Hint": "softer"})
        return self.asked(self.serve({"m": everything(raises(error))}))

    def too_large(self) -> Callable[..., Answer]:
        return self.asked(self.serve({"m": everything(forever, limits={"max_body": 1})}))


@pytest.mark.parametrize(
    ("situation", "status", "kind", "code", "retry", "should_retry", "truss"),
    [
        ("queue_full", 429, "rate_limit_error", "model_overloaded", True, None, "600"),
        ("queue_timeout", 503, "server_error", "queue_timeout", True, None, "600"),
        ("loading", 503, "server_error", "model_loading", True, None, "600"),
        ("restarting", 503, "server_error", "model_unavailable", True, None, "600"),
        ("failed_load", 503, "server_error", "model_failed", False, "false", "600"),
        ("out_of_memory", 503, "server_error", "insufficient_memory", True, None, "600"),
        ("draining", 503, "server_error", "shutting_down", True, None, "600"),
        ("crashed", 502, "server_error", "model_crashed", False, "false", "600"),
        ("model_raised", 500, "server_error", "model_error", False, "false", "600"),
        ("timed_out", 504, "server_error", "timeout", False, None, "600"),
        ("raised_by_name", 422, "invalid_request_error", "style", False, None, "600"),
        ("too_large", 413, "invalid_request_error", "request_too_large", False, None, "700"),
    ],
)
def test_a_situation_has_one_answer_in_every_shape(
    serve: Serve,
    situation: str,
    status: int,
    kind: str,
    code: str,
    retry: bool,
    should_retry: str | None,
    truss: str,
) -> None:
    ask = getattr(Situations(serve), situation)()
    for path, body in (
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", STREAM),
        ("/models/m/v1/chat/completions", CHAT),
        ("/v1/embeddings", {"model": "m", "input": "a"}),
        ("/models/m/predict", {}),
        ("/v1/models/m:predict", {}),
    ):
        answer = ask(path, body)
        headers = answer.headers
        assert answer.status == status, (path, answer.body)
        assert headers["content-type"] == "application/json"
        assert ("retry-after" in headers) is retry
        assert headers.get("x-should-retry") == should_retry
        if retry:
            assert 1 <= int(headers["retry-after"]) <= 110
        if path.startswith("/v1/models/") or path.endswith("/predict"):
            assert list(answer.json) == ["error"] and isinstance(answer.error, str)
            assert (headers["x-baseten-error-source"], headers["x-baseten-error-code"]) == ("04", truss)
        else:
            assert set(answer.error) == {"message", "type", "param", "code"}
            assert (answer.error["type"], answer.error["code"]) == (kind, code)
            assert "x-baseten-error-code" not in headers
        if situation == "draining":
            assert headers["connection"] == "close"
        if situation == "model_raised":
            message = answer.error if isinstance(answer.error, str) else answer.error["message"]
            told = (
                f"model 'm' raised an error; `gateway logs m` shows it under the request id {headers['x-request-id']}"
            )
            assert message == told
        if situation == "raised_by_name":
            assert headers["x-hint"] == "softer"


def test_a_model_that_is_not_ready_says_so_in_trusss_words_and_why_where_they_may_be_more(serve: Serve) -> None:
    served = serve({name: everything(forever, loads=[PATIENCE], parity=name) for name in ("strict", "improved")})
    for name, why in (("strict", "."), ("improved", ": model 'improved' is loading.")):
        answers = [
            served.post(f"/models/{name}/predict"),
            served.get(f"/v1/models/{name}/loaded"),
            served.get(f"/v1/models/{name}/schema"),
        ]
        expected = (503, f"Model with name {name} is not ready{why}")
        assert [(answer.status, answer.error) for answer in answers] == [expected] * 3


def test_calls_that_had_not_begun_when_the_worker_was_lost_may_be_tried_again(serve: Serve) -> None:
    model = everything(forever, limits={"slots": 1})
    served = serve({"m": model})
    with served.busy("m"):
        connection = served.connect()
        connection.request("POST", "/v1/chat/completions", json.dumps(CHAT))
        served.wait_until(lambda: served.hub.catalog.models["m"].limiter.queued == 1)
        served.do(lambda: model.players[0].die("it broke"))
        response = connection.getresponse()
        assert (response.status, response.getheader("x-should-retry")) == (502, "true")
        connection.close()


def test_output_that_makes_no_sense_is_the_models_fault(serve: Serve) -> None:
    served = serve({"m": everything(lambda inputs: {"generated_text": "a"})})
    for path, body in (
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", STREAM),
        ("/v1/embeddings", {"model": "m", "input": "a"}),
    ):
        answer = served.post(path, body)
        assert (answer.status, answer.error["code"]) == (500, "invalid_model_output")
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("given", "path", "body", "said"),
    [
        ({"text": "a"}, "/v1/chat/completions", CHAT, "no key is known: text; known are content, "),
        (3, "/v1/chat/completions", STREAM, "returned an int, which is no answer; return a str, or a dict such as "),
        ({"vector": [1.0]}, "/v1/embeddings", EMBED, "no key is known: vector; known are data, embeddings, "),
        ("a", "/v1/embeddings", EMBED, "a str, not vectors (at $); return a list with a list of numbers for each "),
        ([[1.0]] * 2, "/v1/embeddings", EMBED, "2 vectors for 1 input; return a list with a list of numbers for each "),
    ],
)
def test_the_author_reads_what_was_wrong_with_an_output_and_what_is_right_in_the_answer_and_in_the_models_log(
    serve: Serve, given: Any, path: str, body: Any, said: str
) -> None:
    served = serve({"m": everything(lambda inputs: given)})
    answer = served.post(path, body)
    assert said in answer.error["message"] and answer.error["message"].endswith(unusable_outputs.HELP)
    line = f"ERROR gateway: {path}: {path[4:].replace('/', '_')}: {answer.error['message']}"
    assert [text for text in served.hub.tails.of("m") if text.endswith(line)] == served.hub.tails.of("m")[-1:]


def test_an_output_that_makes_no_sense_in_the_middle_of_a_stream_is_in_the_models_log_once(serve: Serve) -> None:
    async def stream(inputs: Any) -> Any:
        yield "a"
        yield {"text": "b"}

    served = serve({"m": everything(stream)})
    assert unusable_outputs.HELP.encode() in served.post("/v1/chat/completions", STREAM).body
    assert sum("no key is known" in line for line in served.hub.tails.of("m")) == 1


def test_what_the_worker_has_told_is_not_told_again(serve: Serve) -> None:
    def fail(inputs: Any) -> Any:
        raise InvalidOutput("no plain form")

    served = serve({"m": everything(fail)})
    assert served.post("/v1/chat/completions", CHAT).error["message"] == "no plain form"
    assert not any("no plain form" in line for line in served.hub.tails.of("m"))


def test_a_response_object_cannot_be_one_of_several_choices(serve: Serve) -> None:
    served = serve({"m": everything(lambda inputs: Reply(b"x", raw=True))})
    assert served.post("/v1/chat/completions", CHAT).body == b"x"
    assert served.post("/v1/chat/completions", {**CHAT, "n": 2}).error["code"] == "invalid_model_output"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"5", b"null", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(serve: Serve, body: bytes) -> None:
    served = serve({"m": everything(forever)})
    answer = served.post("/v1/chat/completions", body)
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")


def test_an_integer_beyond_64_bits_is_400(serve: Serve) -> None:
    served = serve({"m": everything(lambda inputs: "fine")})
    assert served.post("/v1/chat/completions", {**CHAT, "big": 2**64 - 1, "small": -(2**63)}).status == 200
    for value in (2**64, -(2**63) - 1, 10**400):
        for name in ("anything", "temperature", "seed"):
            answer = served.post("/v1/chat/completions", {**CHAT, name: value})
            assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-anything", "identity, gzip"])
def test_a_compressed_body_is_415_on_every_route(serve: Serve, encoding: str) -> None:
    served = serve({"m": everything(forever)})
    for path in ("/v1/chat/completions", "/models/m/predict"):
        assert served.post(path, CHAT, Content_Encoding=encoding).status == 415


def test_identity_is_no_compression(serve: Serve) -> None:
    served = serve({"m": everything(lambda inputs: "fine")})
    assert served.post("/v1/chat/completions", CHAT, Content_Encoding="identity").status == 200


def test_bodies_are_measured_by_the_model_that_is_meant(serve: Serve) -> None:
    small, large = everything(lambda i: "s", limits={"max_body": 200}), everything(lambda i: "l")
    served = serve({"small": small, "large": large})
    long = {**CHAT, "pad": "x" * 300}
    assert served.post("/v1/chat/completions", {**long, "model": "large"}).status == 200
    assert served.post("/v1/chat/completions", {**long, "model": "small"}).status == 413
    assert served.post("/models/small/v1/chat/completions", long).status == 413
    assert served.post("/models/large/v1/chat/completions", long).status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/models/m/predict"])
def test_a_body_limit_is_exact_at_the_byte_declared_and_chunked(serve: Serve, path: str) -> None:
    served = serve({"m": everything(lambda inputs: Reply(b'"fine"', raw=True), limits={"max_body": 500})})
    for extra, status in ((-1, 200), (0, 200), (1, 413)):
        body = json.dumps({**CHAT, "pad": ""}).encode()
        body = body.replace(b'"pad": ""', b'"pad": "' + b"x" * (500 - len(body) + extra) + b'"')
        assert len(body) == 500 + extra
        assert served.post(path, body).status == status
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:250], body[250:]))
        assert served.send(head.encode() + pieces + b"0\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)


def test_a_body_that_stops_coming_is_408(serve: Serve) -> None:
    served = serve({"m": everything(forever)}, body_idle_timeout=0.05)
    for path in ("/v1/chat/completions", "/models/m/predict"):
        answer = served.send(f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{{".encode())
        assert answer.startswith(b"HTTP/1.1 408 ") and b"connection: close" in answer


def test_anthropics_shape_carries_the_id_of_the_request(serve: Serve) -> None:
    served = serve({"m": everything(forever)}, api_key="k")
    for path, key in (("/v1/messages/nowhere", "k"), ("/v1/messages", "wrong")):
        answer = served.get(path, X_Request_ID="mine", X_API_Key=key)
        assert answer.status in (401, 404, 405)
        assert answer.json["type"] == "error" and answer.json["request_id"] == "mine"


# ── the pure part ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", "openai"),
        ("/v1/embeddings", "openai"),
        ("/v1/nowhere", "openai"),
        ("/", "openai"),
        ("/nowhere", "openai"),
        ("/v1/models", "openai"),
        ("/v1/models/x", "openai"),
        ("/models/x", "openai"),
        ("/models/x/v1/chat/completions", "openai"),
        ("/models/a/b/v1/embeddings", "openai"),
        ("/v1/responses", "responses"),
        ("/models/a/b/v1/responses/resp_1", "responses"),
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/models/a/b/v1/messages", "anthropic"),
        ("/v1/models/x:predict", "truss"),
        ("/v1/models/a/b:predict_binary", "truss"),
        ("/v1/models/x/loaded", "truss"),
        ("/v1/models/x/schema", "truss"),
        ("/models/a/b/predict", "truss"),
        ("/models/x/status", "truss"),
        ("/invocations", "truss"),
        ("/ping", "truss"),
    ],
)
def test_the_path_decides_the_shape(path: str, shape: str) -> None:
    assert errors.shape_of(path, {}) == shape


def test_responses_call_what_does_not_fit_by_their_own_names() -> None:
    said = "the maximum is 100 tokens. However, {}. Please reduce the length of the {}."
    names = {"messages": "input", "messages[2].content": "input", "max_tokens": "max_output_tokens", "tools": "tools"}
    for field, named in names.items():
        text = said.format("your messages resulted in 110", "messages")
        error = BadRequest(text, param=field, code="context_length_exceeded")
        found = json.loads(errors.body_of(error, "responses", "id"))["error"]
        assert (found["param"], found["code"]) == (named, "context_length_exceeded")
        assert found["message"] == said.format("your input resulted in 110", "input")


def test_anthropics_header_decides_on_the_path_that_both_sdks_share() -> None:
    headers = {b"anthropic-version": b"2023-06-01"}
    assert errors.shape_of("/v1/models", headers) == "anthropic"
    assert errors.shape_of("/v1/models/org/x", headers) == "anthropic"
    assert errors.shape_of("/v1/chat/completions", headers) == "openai"
    assert errors.shape_of("/v1/models/x:predict", headers) == "truss"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequest("x"), "invalid_request_error"),
        (tree.TooLarge("x"), "request_too_large"),
        (tree.SlowBody("x"), "invalid_request_error"),
        (tree.Unauthorized("x"), "authentication_error"),
        (tree.Forbidden("x"), "permission_error"),
        (tree.UnknownModel("x"), "not_found_error"),
        (tree.RouteNotSupported("x"), "not_found_error"),
        (tree.MethodNotAllowed("x"), "not_found_error"),
        (Overloaded("x"), "rate_limit_error"),
        (Unavailable("x"), "overloaded_error"),
        (tree.Loading("x"), "overloaded_error"),
        (tree.LoadFailed("x"), "api_error"),
        (tree.Timeout("x"), "timeout_error"),
        (tree.Crashed("x"), "api_error"),
        (ModelError("x"), "api_error"),
        (HTTPError(429, "x"), "rate_limit_error"),
        (HTTPError(418, "x"), "invalid_request_error"),
    ],
)
def test_anthropics_types(error: GatewayError, kind: str) -> None:
    assert json.loads(errors.body_of(error, "anthropic", "r")) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
        "request_id": "r",
    }


def classes(cls: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in classes(child))]


def made(cls: type[GatewayError]) -> GatewayError:
    if issubclass(cls, HTTPError):
        return cls(500, "x")
    return cls("x", None) if issubclass(cls, Odd) else cls("x")


def test_no_type_of_a_server_error_says_that_the_request_was_wrong() -> None:
    for cls in classes():
        error = made(cls)
        assert (error.status >= 500 or error.status == 429) is (error.type != "invalid_request_error")
        body = json.loads(errors.body_of(error, "openai", "r"))["error"]
        assert set(body) == {"message", "type", "param", "code"} and isinstance(body["code"], str)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Evil": "a\r\nset-cookie: x"},
        {"bad name": "x"},
        {"x:y": "x"},
        {"": "x"},
        {"X-Emoji": "\U0001f600"},
        {"Content-Length": "5"},
        {"Transfer-Encoding": "chunked"},
        {"Content-Type": "text/html"},
        {"Connection": "close"},
    ],
)
def test_headers_of_a_models_exception_cannot_break_the_answer(serve: Serve, headers: dict[str, str]) -> None:
    error = HTTPError(400, "no", headers={**headers, "X-Good": "yes", "Retry-After": "7"})
    served = serve({"m": everything(raises(error))})
    for path in ("/v1/chat/completions", "/models/m/predict"):
        answer = served.post(path, CHAT)
        assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
        assert answer.headers["x-good"] == "yes" and answer.headers["retry-after"] == "7"
        assert "set-cookie" not in answer.headers and "x-emoji" not in answer.headers
        assert answer.json


@pytest.mark.parametrize("cls", [cls for cls in classes() if cls is not HTTPError], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("shape", ["openai", "anthropic", "truss", "oip"])
def test_every_429_and_503_says_when_to_come_back_but_for_what_failed_for_good(
    cls: type[GatewayError], shape: errors.Shape
) -> None:
    headers = dict(errors.headers_of(made(cls), shape))
    if cls.status in (429, 503) and cls is not tree.LoadFailed:
        assert int(headers[b"retry-after"]) >= 1
    else:
        assert b"retry-after" not in headers
    assert cls is not tree.LoadFailed or headers[b"x-should-retry"] == b"false"


@pytest.mark.parametrize("shape", ["openai", "anthropic", "truss", "oip"])
def test_a_key_that_is_refused_is_not_tried_again(shape: errors.Shape) -> None:
    """Claude Code tries a 401 again for minutes without that header."""
    refused = [made(cls) for cls in classes() if cls.status in (401, 403) and cls is not HTTPError]
    assert {type(error) for error in refused} >= {tree.Unauthorized, tree.Forbidden, tree.PermissionDenied}
    for error in (*refused, HTTPError(401, "a model's own"), HTTPError(403, "a model's own")):
        assert errors.headers_of(error, shape).count((b"x-should-retry", b"false")) == 1
    later = errors.headers_of(HTTPError(403, "once more", headers={"X-Should-Retry": "true"}), shape)
    assert [value for name, value in later if name == b"x-should-retry"] == [b"true"]


def test_retry_after_of_a_model_is_its_own() -> None:
    headers = errors.headers_of(HTTPError(503, "later", headers={"Retry-After": "7"}), "openai")
    assert (b"retry-after", b"7") in headers
    assert (b"connection", b"close") in errors.headers_of(Draining("x"), "openai")


def test_a_detail_that_is_an_object_stays_one_on_trusss_routes() -> None:
    error = HTTPError(400, "x", detail={"field": "tone"})
    assert json.loads(errors.body_of(error, "truss", "r")) == {"error": {"field": "tone"}}


def test_what_breaks_in_a_route_of_the_framework_is_logged_under_the_requests_id(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*arguments: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("gateway.http.metrics.models.scrape", broken)
    answer = serve({"m": everything(forever)}).get("/metrics", **{"X-Request-Id": "mine"})
    assert answer.status == 500 and b"under this request's id" in answer.body
    (line,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert line.getMessage() == "request mine failed: GET /metrics" and line.request_id == "mine"  # type: ignore[attr-defined]


def test_what_breaks_in_the_gateway_itself_is_a_plain_word(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve({"m": everything(forever)})

    def broken(*arguments: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(served.hub.catalog, "find", broken)
    monkeypatch.setattr(served.hub.catalog, "find_for", broken)
    for path in ("/v1/chat/completions", "/models/m/predict", "/v1/models/m"):
        answer = served.ask("GET" if path == "/v1/models/m" else "POST", path, CHAT)
        assert answer.status == 500
        assert b"secret" not in answer.body and b"its log has the details" in answer.body
