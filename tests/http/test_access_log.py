"""Who asked what, how it went and why it was refused: in the access log, and in the metrics."""

from __future__ import annotations

import asyncio
import datetime
import http.client
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from lines import Lines
from prometheus_client.parser import text_string_to_metric_families as parse_text
from served import PATIENCE, Model, Served
from test_guards import raw
from test_scopes import Doors

from gateway.access import keys
from gateway.access.callers import SCOPES
from gateway.dialects.responses import route as openai_responses
from gateway.errors import Timeout

Serve = Callable[..., Served]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "a secret of mine"}]}
COUNTS = {"prompt_tokens": 5, "completion_tokens": 3}
PREDICT, SHARED = "/v1/models/{model}:predict", "/v1/chat/completions"


async def chat(inputs: Any) -> Any:
    return pieces() if inputs.get("stream") else {"content": "an answer", "usage": COUNTS}


async def pieces() -> Any:
    yield "an answer"
    yield {"usage": COUNTS, "finish_reason": "stop"}


def model(**options: Any) -> Model:
    return Model({"chat_completions": chat, "predict": lambda body: b"{}"}, **options)


@pytest.fixture
def doors(serve: Serve, tmp_path: Path) -> Callable[..., Doors]:
    def open_them(models: dict[str, Model] | None = None, **holders: dict[str, Any]) -> Doors:
        return Doors(serve, tmp_path / "keys.toml", models=models or {"m": model()}, **holders)

    return open_them


def opened(doors: Doors, who: str) -> dict[str, str]:
    return {"x_api_key": doors.texts[who]}


def scrape(served: Served, **headers: str) -> dict[str, dict[tuple[str, ...], float]]:
    """name → values of the labels in the order of their names → value"""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse_text(served.get("/metrics", **headers).body.decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_refused_callers_count_with_their_reason(doors: Callable[..., Doors]) -> None:
    found = doors(
        {"m": model(limits={"max_body": 100}), "hidden": model()},
        ops={"scopes": ("metrics", "admin")},
        bob={"models": ("m",), "rpm": 3},
    )
    served, bob = found.served, opened(found, "bob")
    assert served.post("/models/m/predict").status == 401
    assert served.post(SHARED, CHAT, Authorization="Bearer wrong").status == 401
    assert served.get("/metrics", **bob).status == 403
    assert served.post("/models/m/predict", {"long": "x" * 200}, **bob).status == 413
    assert served.post("/models/hidden/predict", {}, **bob).status == 404
    assert served.post(SHARED, {**CHAT, "model": "made up"}, **bob).status == 404
    assert served.post("/models/m/predict", {}, **bob).status == 429
    assert served.get("/nowhere").status == 401
    assert raw(served, "host: evil.example") == 421
    samples = scrape(served, **opened(found, "ops"))
    assert samples["gateway_rejections_total"] == {
        ("key_missing", "", "invalid_api_key"): 2,
        ("key_unknown", "", "invalid_api_key"): 1,
        ("", "", "permission_denied"): 1,
        ("", "m", "request_too_large"): 1,
        ("model_hidden", "", "model_not_found"): 1,
        ("", "", "model_not_found"): 1,
        ("rpm", "m", "rate_limit_exceeded"): 1,
        ("", "", "unknown_host"): 1,
    }
    counted = samples["gateway_requests_total"]
    assert counted["", PREDICT, "401"] == counted["", SHARED, "401"] == counted["", SHARED, "404"] == 1
    assert counted["", PREDICT, "404"] == counted["m", PREDICT, "429"] == counted["m", PREDICT, "413"] == 1
    assert not any(labels[0] == "hidden" for labels in counted)
    assert samples["gateway_key_requests_total"]["bob", "404"] == 2


def test_a_scrape_that_is_refused_counts_for_its_route(doors: Callable[..., Doors], lines: Lines) -> None:
    found = doors(ops={"scopes": ("metrics",)}, few={"scopes": ("metrics",), "rpm": 1}, bob={})
    for headers in ({}, opened(found, "bob"), opened(found, "few"), opened(found, "few")):
        found.served.get("/metrics", **headers)
    counted = scrape(found.served, **opened(found, "ops"))["gateway_requests_total"]
    assert counted == {("", "/metrics", status): 1 for status in ("401", "403", "200", "429")}


def test_an_unknown_path_counts_as_refused_and_makes_no_series_of_its_own(serve: Serve) -> None:
    served = serve({"m": model()})
    for number in range(20):
        served.get(f"/nowhere/{number}")
        served.post(f"/models/made-up-{number}/predict")
    samples = scrape(served)
    assert samples["gateway_rejections_total"] == {("", "", "unknown_url"): 20, ("", "", "model_not_found"): 20}
    assert samples["gateway_requests_total"] == {("", "", "404"): 20, ("", PREDICT, "404"): 20}


def test_a_key_has_its_requests_and_tokens_counted_for_those_who_see_every_model(doors: Callable[..., Doors]) -> None:
    found = doors(alice={}, ops={"scopes": ("metrics",)}, some={"scopes": ("metrics",), "models": ("m",)})
    for stream in (False, True):
        assert found.served.post(SHARED, {**CHAT, "stream": stream}, **opened(found, "alice")).status == 200
    samples = scrape(found.served, **opened(found, "ops"))
    assert samples["gateway_key_requests_total"]["alice", "200"] == 2
    assert samples["gateway_key_tokens_total"] == {("alice", "prompt"): 10, ("alice", "generation"): 6}
    assert not any(name.startswith("gateway_key") for name in scrape(found.served, **opened(found, "some")))


def test_every_request_of_a_key_counts_among_all_requests_too(doors: Callable[..., Doors]) -> None:
    found = doors(ops={"scopes": ("metrics", "infer", "admin")})
    for path in ("/v1/models", "/v1/models/m", "/metrics", "/nowhere", "/admin/models", "/v2/models/m/ready"):
        found.served.get(path, **opened(found, "ops"))
    found.served.post("/models/m/predict", {}, **opened(found, "ops"))
    samples = scrape(found.served, **opened(found, "ops"))
    by_status: dict[str, float] = {}
    for (_, _, status), count in samples["gateway_requests_total"].items():
        by_status[status] = by_status.get(status, 0) + count
    assert by_status == {status: count for (_, status), count in samples["gateway_key_requests_total"].items()}
    assert samples["gateway_requests_total"]["", "/metrics", "200"] == 1


def test_a_websocket_that_is_refused_counts_too(doors: Callable[..., Doors]) -> None:
    found = doors(ops={"scopes": ("metrics",)})
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    key = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert found.served.get("/v1/websocket", **upgrade, **key).status == 401
    assert scrape(found.served, **opened(found, "ops"))["gateway_rejections_total"] == {
        ("key_missing", "", "invalid_api_key"): 1
    }


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_the_setting_there_is_no_access_log(serve: Serve, lines: Lines) -> None:
    serve({"m": model()}).post("/models/m/predict")
    assert not lines.records


def test_a_call_is_one_line_with_its_tokens_and_times(serve: Serve, lines: Lines) -> None:
    served = serve({"m": model()}, access_log=True, api_key="k" * 20)
    auth = {"Authorization": "Bearer " + "k" * 20}
    whole = served.post(SHARED, CHAT, **auth)
    streamed = served.post(SHARED, {**CHAT, "stream": True}, **auth)
    predicted = served.post("/models/m/predict?token=secret", **auth)
    served.get("/livez")
    events = first, second, third = lines.events(3)
    assert first["request_id"] == whole.headers["x-request-id"]
    assert second["request_id"] == streamed.headers["x-request-id"]
    for event in (first, second):
        assert (event["key"], event["model"], event["route"]) == ("GATEWAY_API_KEY", "m", SHARED)
        assert (event["prompt_tokens"], event["completion_tokens"]) == (5, 3)
        assert (event["method"], event["path"], event["status"], event["error"]) == ("POST", SHARED, 200, None)
        assert event["duration"] > 0 and event["queue"] >= 0 and event["client_gone"] is False
        assert event["client"] == "127.0.0.1" and event["logger"] == "gateway.requests"
    assert third["request_id"] == predicted.headers["x-request-id"] and third["route"] == PREDICT
    assert "secret" not in json.dumps(events) and "an answer" not in json.dumps(events)
    assert " request request_id=" in lines.texts[0] and " status=200 error=- " in lines.texts[0]


def test_refused_requests_are_lines_with_their_reason(serve: Serve, lines: Lines) -> None:
    served = serve({"m": model()}, access_log=True, api_key="k" * 20)
    served.post("/models/m/predict")
    served.get("/nowhere", Authorization="Bearer " + "k" * 20)
    refused, unknown = lines.events(2)
    assert (refused["status"], refused["error"], refused["key"], refused["model"]) == (
        401,
        "invalid_api_key",
        None,
        None,
    )
    assert (unknown["status"], unknown["error"], unknown["key"]) == (404, "unknown_url", "GATEWAY_API_KEY")


@pytest.mark.parametrize("key", ["s3cret/key+with=signs&more", "gw_12345678_" + "k_y" * 14 + "k"])
@pytest.mark.parametrize("layers", [2, 3, 4])
def test_a_key_that_is_encoded_in_a_path_is_in_no_line(serve: Serve, lines: Lines, key: str, layers: int) -> None:
    """The path is decoded once. The redaction of the log finds keys as they are, not encoded."""
    served = serve({"m": model()}, access_log=True, api_key="s3cret/key+with=signs&more")
    written = "".join(f"%{ord(character):02X}" for character in key)
    for _ in range(layers - 1):
        written = quote(written)
    assert served.get(f"/nowhere/{written}").status == 401
    served.get("/nowhere/100%25")
    hidden, shown = lines.events(2)
    path = hidden["path"]
    for _ in range(layers):
        path = unquote(path)
    assert key not in path and shown["path"] == "/nowhere/100%"


def test_a_client_that_left_is_told(serve: Serve, lines: Lines) -> None:
    async def forever(body: Any) -> Any:
        await asyncio.Event().wait()

    served = serve({"m": Model({"predict": forever})}, access_log=True)
    with served.busy("m", "/models/m/predict", {}):
        pass
    assert served.models["m"].stopped.acquire(timeout=PATIENCE)
    (gone,) = lines.events(1)
    assert (gone["status"], gone["client_gone"]) == (499, True)


def test_no_client_writes_a_field_or_a_line(serve: Serve, lines: Lines) -> None:
    served = serve({"m": model()}, access_log=True)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    connection.request("GET", "/x%20status=200%0a2026-01-01%20request%20key=root%1b[2J" + "y" * 4000)
    assert connection.getresponse().status == 404
    connection.close()
    (event,) = lines.events(1)
    (text,) = lines.texts
    assert "\n" not in text and "\x1b" not in text and len(text) < 2000
    head, path = text.split(" path=", 1)
    assert " status=404 " in head and path.startswith('"/x status=200\\n2026')
    assert event["status"] == 404 and event["key"] is None and len(event["path"]) == 512


def test_debug_shows_request_lines_and_no_contents(serve: Serve, lines: Lines) -> None:
    served = serve({"m": model()}, log_level="debug")
    served.post(SHARED, CHAT)
    lines.events(1)
    (record,) = lines.records
    assert record.levelname == "DEBUG" and record.getMessage() == f"POST {SHARED} 200"
    assert "secret of mine" not in lines.texts[0]


def test_a_model_that_is_not_ready_is_an_error_of_whoever_asked(serve: Serve, lines: Lines) -> None:
    served = serve({"m": model(loads=[asyncio.Event()])}, access_log=True)
    for path in ("/readyz", "/v1/models/m", "/v2/models/m/ready"):
        assert served.get(path).status == 503
    errors = [(event["path"], event["error"]) for event in lines.events(3)]
    assert errors == [
        ("/readyz", "model_unavailable"),
        ("/v1/models/m", "model_loading"),
        ("/v2/models/m/ready", "model_unavailable"),
    ]


def test_the_log_says_why_a_limit_or_a_model_was_refused_and_the_answer_does_not(
    serve: Serve, lines: Lines, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    (few, few_text), (one, one_text) = keys.create("few", rpm=3, models=("m",)), keys.create("one", max_inflight=1)
    keys.write(file, [few, one])
    served = serve(
        {"m": model(), "hidden": model(), "busy": Model({"predict": forever})}, keys_file=file, access_log=True
    )
    answers = [served.post(SHARED, {**CHAT, "model": name}, x_api_key=few_text) for name in ("hidden", "typo")]
    first, second = (answer.body.replace(b"hidden", b"typo") for answer in answers)
    assert first == second
    assert served.post(SHARED, {**CHAT, "model": few_text}, x_api_key=few_text).status == 404
    assert served.post("/models/m/predict", x_api_key=few_text).status == 429
    with closing(served.connect()) as connection:
        connection.request("POST", "/models/busy/predict", b"{}", {"x-api-key": one_text})
        assert served.models["busy"].begun.acquire(timeout=PATIENCE)
        assert served.post("/models/m/predict", x_api_key=one_text).status == 429
    found = [(event["error"], event["cause"], event["asked"]) for event in lines.events(6)]
    assert found[:5] == [
        ("model_not_found", "model_hidden", "hidden"),
        ("model_not_found", None, "typo"),
        ("model_not_found", None, "***"),
        ("rate_limit_exceeded", "rpm", None),
        ("rate_limit_exceeded", "max_inflight", None),
    ]


def test_of_a_refused_key_the_log_and_the_metrics_say_why_and_whose_it_was(
    serve: Serve, lines: Lines, tmp_path: Path
) -> None:
    made = {name: keys.create(name) for name in ("good", "late", "gone")}
    held = {name: key for name, (key, _) in made.items()}
    held["late"] = replace(held["late"], expires=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    keys.write(file := tmp_path / "keys.toml", held.values())
    served = serve({"m": model()}, keys_file=file, access_log=True)
    keys.write(file, [held["good"], held["late"]])
    served.do(served.keys.reload())
    guess = made["late"][1][:-1] + "-"  # its id, and another secret
    given = [{"x_api_key": text} for text in (made["late"][1], made["gone"][1], guess)]
    answers = [served.post("/models/m/predict", **one) for one in (*given, {})]
    assert [answer.status for answer in answers] == [401] * 4
    assert len({answer.body.replace(answer.headers["x-request-id"].encode(), b"") for answer in answers[:3]}) == 1
    assert [(event["key"], event["key_id"], event["cause"]) for event in lines.events(4)] == [
        ("late", held["late"].id, "key_expired"),
        ("gone", held["gone"].id, "key_revoked"),
        (None, None, "key_unknown"),
        (None, None, "key_missing"),
    ]


def test_two_keys_of_one_name_are_told_apart_by_their_ids(serve: Serve, lines: Lines, tmp_path: Path) -> None:
    (old, old_text), (new, new_text) = keys.create("alice"), keys.create("alice")
    keys.write(file := tmp_path / "keys.toml", [old, new])
    served = serve({"m": model()}, keys_file=file, access_log=True)
    for text in (old_text, new_text, "wrong"):
        served.post("/models/m/predict", x_api_key=text)
    found = [(event["key"], event["key_id"]) for event in lines.events(3)]
    assert found == [("alice", old.id), ("alice", new.id), (None, None)]


@pytest.mark.parametrize("leaves", [True, False])
def test_a_client_that_leaves_a_whole_answer_behind_is_told(serve: Serve, lines: Lines, leaves: bool) -> None:
    served = serve({"m": Model({"predict": lambda body: b"x" * (32 << 20)})}, access_log=True)
    with closing(served.connect()) as connection:
        connection.request("POST", "/models/m/predict", b"{}")
        size = 1000 if leaves else 32 << 20
        assert len(connection.getresponse().read(size)) == size
    (event,) = lines.events(1)
    assert (event["status"], event["error"], event["client_gone"]) == (200, None, leaves)


def test_a_client_that_takes_nothing_of_a_whole_answer_is_told(serve: Serve, lines: Lines) -> None:
    served = serve({"m": Model({"predict": lambda body: b"x" * (32 << 20)})}, access_log=True, send_timeout=0.2)
    with closing(served.connect()) as connection:
        connection.request("POST", "/models/m/predict", b"{}")
        (event,) = lines.events(1)
    assert (event["status"], event["error"], event["client_gone"]) == (200, "send_timeout", False)
    assert event["send"] >= 0.2 and event["run"] + event["send"] <= event["duration"] + 0.001, (
        "what it waited has not run"
    )


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/models", "/v1/models"),
        ("/models/m/v1/models", "/v1/models"),
        ("/v1/models/m", "/v1/models/{model}"),
        ("/models/m/status", "/v1/models/{model}"),
        ("/models/m/ping", "/v1/models/{model}/loaded"),
        ("/v1/models/m/schema", "/v1/models/{model}/schema"),
        ("/v2", "/v2"),
        ("/v2/models/m/versions/1/ready", "/v2/models/{model}/ready"),
        ("/v2/models/stats", "/v2/models/stats"),
        ("/admin/models", "/admin/models"),
        ("/models/m/logs", "/models/{model}/logs"),
        ("/version", "/version"),
    ],
)
def test_a_question_about_models_has_a_route_too(serve: Serve, lines: Lines, path: str, route: str) -> None:
    served = serve({"m": model()}, access_log=True, api_key="k" * 20, admin_http=True)
    served.get(path, Authorization="Bearer " + "k" * 20)
    (event,) = lines.events(1)
    assert event["route"] == route and event["model"] is None


def test_only_what_may_wait_for_a_slot_counts_in_the_histograms_of_calls(serve: Serve) -> None:
    served = serve({"m": model()})
    served.get("/v1/models")
    served.get("/nowhere")
    served.post(SHARED, b"{no json")
    assert served.post("/models/m/predict").status == 200
    samples = scrape(served)
    for name in ("gateway_queue_duration_seconds_count", "gateway_model_duration_seconds_count"):
        assert samples[name] == {("m", PREDICT): 1}


async def forever(body: Any) -> Any:
    await asyncio.Event().wait()


def test_every_error_of_the_gateway_before_a_slot_counts_as_rejected_and_none_behind(serve: Serve) -> None:
    served = serve({"m": Model({"predict": refuse, "chat_completions": chat})})
    assert served.post("/models/m/predict").status == 504  # it ran
    assert served.post(SHARED, b"{no json").status == 400
    assert served.post(SHARED, {**CHAT, "max_tokens": -3}).status == 400
    assert served.get(SHARED).status == 405
    assert scrape(served)["gateway_rejections_total"] == {
        ("", "", "invalid_json"): 1,
        ("", "m", "invalid_value"): 1,
        ("", "", "method_not_allowed"): 1,
    }


def refuse(body: bytes) -> bytes:
    raise Timeout("too long")


# ── what was asked for ───────────────────────────────────────────────────────────────────────────────────────────────

QUESTIONS = [
    ("GET", "/v1/models/{}"),
    ("GET", "/v1/models/{}/loaded"),
    ("GET", "/v1/models/{}/schema"),
    ("GET", "/models/{}/status"),
    ("GET", "/models/{}/ping"),
    ("GET", "/models/{}/v1/models"),
    ("GET", "/models/{}/v1/responses/resp_none"),
    ("GET", "/models/{}/logs"),
    ("GET", "/v2/models/{}"),
    ("GET", "/v2/models/{}/ready"),
    ("POST", "/models/{}/hot-reload"),
    ("POST", "/admin/models/{}/load"),
    ("POST", "/admin/models/{}/reload"),
    ("POST", "/admin/models/{}/unload"),
]


@pytest.mark.parametrize(("method", "path"), QUESTIONS)
def test_a_question_or_an_order_names_its_model_to_whoever_reads_the_log(
    serve: Serve, lines: Lines, tmp_path: Path, method: str, path: str
) -> None:
    logged = partial(serve, access_log=True, admin_http=True, plugins=[openai_responses])
    models = {"m": model(), "hidden": model()}
    models["m"].methods["swap_class"] = lambda body: {}
    doors = Doors(
        logged, tmp_path / "k", models=models, ops={"scopes": SCOPES, "models": ("m",)}, none={"scopes": ("metrics",)}
    )
    answers = [doors.served.ask(method, path.format(name), **opened(doors, "ops")) for name in ("m", "hidden", "typo")]
    answers += [doors.served.ask(method, path.format("m"), **door) for door in (opened(doors, "none"), {})]
    assert [answer.status for answer in answers[1:]] == [404, 404, 403, 401]
    found = [(event["model"], event["asked"], event["cause"]) for event in lines.events(5)]
    assert [asked for _, asked, _ in found] == ["m", "hidden", "typo", "m", "m"]
    assert {name for name, _, _ in found} == {None}
    assert [cause for _, _, cause in found[1:]] == ["model_hidden", None, None, "key_missing"]
