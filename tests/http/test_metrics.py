"""What a scrape says: parsed by Prometheus's own parser, both families, and never a name that a client made up."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from served import Model, Player, Served

from gateway.errors import HTTPError, ModelError
from gateway.http.metrics import models as model_metrics
from gateway.http.metrics import requests
from gateway.http.metrics import series as model_series

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
Serve = Callable[..., Served]
Labels = frozenset[tuple[str, str]]


async def chat(inputs: Any) -> Any:
    if inputs.get("user") == "fail":
        raise ModelError("no")
    return pieces() if inputs.get("stream") else {"content": "a b c", "usage": COUNTS}


COUNTS = {"prompt_tokens": 5, "completion_tokens": 3}


async def pieces() -> Any:
    for piece in "abc":
        yield piece
    yield {"usage": COUNTS, "finish_reason": "length"}


async def forever(inputs: Any) -> Any:
    await asyncio.Event().wait()


def model(**options: Any) -> Model:
    return Model({"chat_completions": chat, "predict": lambda body: body}, **options)


def scrape(served: Served) -> dict[tuple[str, Labels], float]:
    text = served.get("/metrics").body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def value(samples: dict[tuple[str, Labels], float], name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_a_scrape_is_prometheus_text_or_openmetrics_by_what_is_asked(serve: Serve) -> None:
    served = serve({"m": model()})
    served.post("/models/m/predict")
    plain = served.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    names = {family.name for family in parse_text(plain.body.decode())}
    asked = served.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    assert asked.body.endswith(b"# EOF\n")
    assert {family.name for family in parse_openmetrics(asked.body.decode())} <= {
        n.removesuffix("_total") for n in names
    }


@pytest.mark.parametrize("accept", ["", "; version=1.0.0", "; version=1.0.0; escaping=allow-utf-8"])
def test_vllms_names_keep_their_colon_in_openmetrics(serve: Serve, accept: str) -> None:
    text = serve({"m": model()}).get("/metrics", Accept=f"application/openmetrics-text{accept}").body.decode()
    assert 'vllm:num_requests_running{engine="0",model_name="m"} 0.0\n' in text
    assert "vllm_" not in text


def test_requests_are_counted_by_model_route_and_status(serve: Serve) -> None:
    served = serve({"m": model()})
    for _ in range(3):
        served.post("/models/m/predict")
    served.post("/v1/chat/completions", CHAT)
    served.post("/models/m/v1/chat/completions", {**CHAT, "user": "fail"})
    served.post("/v1/chat/completions", {**CHAT, "stream": True})
    samples = scrape(served)
    predict, shared = "/v1/models/{model}:predict", "/v1/chat/completions"
    assert value(samples, "gateway_requests_total", model="m", route=predict, status="200") == 3
    assert value(samples, "gateway_requests_total", model="m", route=shared, status="200") == 2
    assert value(samples, "gateway_requests_total", model="m", route=shared, status="500") == 1
    assert value(samples, "gateway_request_duration_seconds_count", model="m", route=predict) == 3
    assert value(samples, "gateway_queue_duration_seconds_count", model="m", route=shared) == 3


def test_an_error_of_predict_is_counted_with_its_status(serve: Serve) -> None:
    def refuse(body: bytes) -> bytes:
        raise ModelError("no")

    served = serve({"m": Model({"predict": refuse})})
    served.post("/models/m/predict")
    route = "/v1/models/{model}:predict"
    assert value(scrape(served), "gateway_requests_total", model="m", route=route, status="500") == 1


def test_a_client_that_leaves_is_counted_as_499(serve: Serve) -> None:
    async def slow(inputs: Any) -> Any:
        return endless() if inputs.get("stream") else await forever(inputs)

    async def endless() -> Any:
        yield "a"
        await asyncio.Event().wait()

    served = serve({"m": Model({"predict": forever, "chat_completions": slow})})
    predict, shared = "/v1/models/{model}:predict", "/v1/chat/completions"
    for path, body in (
        ("/models/m/predict", {}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "n": 2}),
    ):
        with served.busy("m", path, body):
            pass
    connection = served.connect()
    connection.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": True}))
    response = connection.getresponse()
    assert b"assistant" in response.fp.readline() + response.fp.readline()
    response.close()
    connection.close()

    def counted() -> dict[tuple[str, int], int]:
        series = served.app._metrics._series
        return {(route, status): n for (_, route), one in series.items() for status, n in one.statuses.items()}

    served.wait_until(lambda: sum(counted().values()) == 4)
    assert counted() == {(predict, 499): 1, (shared, 499): 3}


def test_calls_that_were_not_admitted_are_counted_by_reason_on_every_route(serve: Serve) -> None:
    busy = Model({"predict": forever, "chat_completions": forever}, limits={"slots": 1, "max_queue": 0})
    served = serve({"m": busy, "loading": model(loads=[30])})
    served.keep_busy("m")
    served.post("/models/m/predict")
    served.post("/v1/chat/completions", CHAT)
    served.post("/v1/chat/completions", {**CHAT, "stream": True})
    served.post("/models/loading/predict")
    samples = scrape(served)
    assert value(samples, "gateway_rejections_total", model="m", reason="model_overloaded", cause="max_queue") == 3
    assert value(samples, "gateway_rejections_total", model="loading", reason="model_loading", cause="") == 1


def test_time_in_the_queue_is_measured(serve: Serve) -> None:
    gate = asyncio.Event()

    async def wait(body: bytes) -> bytes:
        await gate.wait()
        return b"{}"

    served = serve({"m": Model({"predict": wait}, limits={"slots": 1})})
    with served.busy("m") as first:
        second = served.connect()
        second.request("POST", "/models/m/predict", b"{}")
        served.wait_until(lambda: served.hub.catalog.models["m"].limiter.queued == 1)
        samples = scrape(served)
        assert value(samples, "gateway_requests_in_flight", model="m") == 1
        assert value(samples, "gateway_requests_queued", model="m") == 1
        served.do(gate.set)
        assert (first.answer().status, second.getresponse().status) == (200, 200)
        second.close()
    route = "/v1/models/{model}:predict"
    samples = scrape(served)
    assert value(samples, "gateway_queue_duration_seconds_count", model="m", route=route) == 2
    assert (value(samples, "gateway_queue_duration_seconds_sum", model="m", route=route) or 0) > 0
    assert value(samples, "gateway_requests_queued", model="m") == 0


def test_names_that_clients_make_up_never_make_a_series(serve: Serve) -> None:
    served = serve({"m": model()})
    for name in ("none", "../x", "m:predict", 'x"}'):
        served.post(f"/models/{name}/predict")
        served.post(f"/v1/models/{name}:predict")
        served.get(f"/v1/models/{name}")
        served.post("/v1/chat/completions", {**CHAT, "model": name})
        served.post(f"/models/{name}/v1/chat/completions", CHAT)
    models = {labels["model"] for _, labels in ((n, dict(ls)) for n, ls in scrape(served)) if "model" in labels}
    assert models == {"", "m"}  # without a name: what was refused
    counted = [dict(labels) for name, labels in scrape(served) if name == "gateway_requests_total"]
    assert {labels["model"] for labels in counted} == {""}
    assert {labels["route"] for labels in counted} <= {
        "",
        "/metrics",
        "/v1/models/{model}",
        "/v1/models/{model}:predict",
        "/v1/chat/completions",
    }


def test_states_are_one_of_a_fixed_set(serve: Serve) -> None:
    served = serve({"m": model(), "slow": model(loads=[30])})
    samples = scrape(served)
    states = {
        (labels["model"], labels["state"]): n
        for (name, pairs), n in samples.items()
        if name == "gateway_model_state" and (labels := dict(pairs))
    }
    assert {key for key, n in states.items() if n == 1} == {("m", "ready"), ("slow", "loading")}
    assert len(states) == 12
    assert value(samples, "gateway_load_duration_seconds_count", model="m") == 1


def test_vllms_names_are_there_for_models_that_produce_tokens(serve: Serve) -> None:
    served = serve({"m": model(), "plain": Model({"predict": lambda body: body})})
    served.post("/models/plain/predict")
    samples = scrape(served)
    assert {dict(labels).get("model_name") for name, labels in samples if name.startswith("vllm:")} == {"m"}
    assert value(samples, "vllm:generation_tokens_total", model_name="m", engine="0") == 0
    for reason in ("stop", "length", "abort", "error"):
        assert value(samples, "vllm:request_success_total", model_name="m", engine="0", finished_reason=reason) == 0
    served.post("/v1/chat/completions", CHAT)
    served.post("/v1/chat/completions", {**CHAT, "stream": True})
    samples = scrape(served)
    labels = {"model_name": "m", "engine": "0"}
    assert value(samples, "vllm:prompt_tokens_total", **labels) == 10
    assert value(samples, "vllm:generation_tokens_total", **labels) == 6
    assert value(samples, "vllm:request_success_total", finished_reason="stop", **labels) == 1
    assert value(samples, "vllm:request_success_total", finished_reason="length", **labels) == 1
    assert value(samples, "vllm:time_to_first_token_seconds_count", **labels) == 2
    assert value(samples, "vllm:request_time_per_output_token_seconds_count", **labels) == 1
    for name in ("e2e_request_latency", "request_queue_time", "request_inference_time"):
        assert value(samples, f"vllm:{name}_seconds_count", **labels) == 2
    for name in ("vllm:request_prompt_tokens_count", "vllm:request_generation_tokens_count"):
        assert value(samples, name, **labels) == 2
    assert value(samples, "vllm:num_requests_running", **labels) == 0
    assert value(samples, "vllm:num_requests_waiting", **labels) == 0


@pytest.mark.parametrize("name", ["gateway_request_duration_seconds", "vllm:e2e_request_latency_seconds"])
def test_buckets_are_cumulative_and_end_with_the_count(serve: Serve, name: str) -> None:
    served = serve({"m": model()})
    for _ in range(3):
        served.post("/v1/chat/completions", CHAT)
    family = next(f for f in parse_text(served.get("/metrics").body.decode()) if f.name == name)
    buckets = [sample.value for sample in family.samples if sample.name == f"{name}_bucket"]
    assert buckets == sorted(buckets) and buckets[-1] == 3
    assert [s.value for s in family.samples if s.name == f"{name}_count"] == [3]


# ── what does not end well ───────────────────────────────────────────────────────────────────────────────────────────


async def breaks(inputs: Any) -> Any:
    yield b"one" if isinstance(inputs, bytes) else "one"
    raise ModelError("no")


def test_streams_that_break_off_behind_their_200_are_counted(serve: Serve) -> None:
    served = serve({"m": Model({"predict": breaks, "chat_completions": breaks})})
    connection = served.connect()
    connection.request("POST", "/models/m/predict", b"{}")
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    connection.close()
    assert served.post("/v1/chat/completions", {**CHAT, "stream": True}).status == 200
    served.wait_until(lambda: len(served.app._metrics._series) == 2)
    samples = scrape(served)
    for route in ("/v1/models/{model}:predict", "/v1/chat/completions"):
        assert value(samples, "gateway_streams_broken_total", model="m", route=route, reason="model_error") == 1


@pytest.mark.parametrize("path", ["/models/m/predict", "/v1/chat/completions"])
def test_calls_that_are_given_up_are_counted_by_their_reason(serve: Serve, path: str) -> None:
    served = serve({"m": Model({"predict": forever, "chat_completions": forever})})
    assert served.post(path, CHAT, X_Request_Timeout="0.05").status == 504
    with served.busy("m", path, CHAT):
        pass
    served.wait_until(lambda: len(served.app._metrics._cancelled) == 2)
    samples = scrape(served)
    for reason in ("timeout", "client_left"):
        assert value(samples, "gateway_cancellations_total", model="m", reason=reason) == 1


def test_the_time_in_the_model_is_told_from_the_time_in_the_queue(serve: Serve) -> None:
    async def later(body: Any) -> Any:
        await asyncio.sleep(1)
        return body

    served = serve({"m": Model({"predict": later}, limits={"slots": 1})})
    first, second = (served.connect() for _ in range(2))
    for connection in (first, second):
        connection.request("POST", "/models/m/predict", b"{}")
    for connection in (first, second):
        assert connection.getresponse().status == 200
        connection.close()
    samples = scrape(served)
    labels = {"model": "m", "route": "/v1/models/{model}:predict"}
    assert value(samples, "gateway_model_duration_seconds_count", **labels) == 2
    ran, queued = (value(samples, f"gateway_{what}_duration_seconds_sum", **labels) for what in ("model", "queue"))
    assert ran is not None and ran >= 1.99
    assert queued is not None and queued > 0.1


def test_requests_without_an_answer_are_counted_as_finished_with_an_error_or_an_abort(serve: Serve) -> None:
    served = serve({"m": Model({"chat_completions": chat}), "n": Model({"chat_completions": forever})})
    for stream in (False, True):
        assert served.post("/v1/chat/completions", {**CHAT, "user": "fail", "stream": stream}).status == 500
    with served.busy("n", "/v1/chat/completions", {**CHAT, "model": "n"}):
        pass
    served.wait_until(lambda: "n" in served.app._metrics._tokens)
    samples = scrape(served)
    for name, reason, count in (("m", "error", 2), ("n", "abort", 1)):
        labels = {"model_name": name, "engine": "0", "finished_reason": reason}
        assert value(samples, "vllm:request_success_total", **labels) == count


def test_a_model_that_is_forgotten_leaves_no_series_and_breaks_no_scrape(serve: Serve) -> None:
    served = serve({"m": model(), "gone": Model({"chat_completions": chat, "predict": forever})})
    body = {**CHAT, "model": "gone", "stream": True}
    for user in ("a", "fail"):
        served.post("/v1/chat/completions", {**body, "user": user})
    with served.busy("gone", "/models/gone/predict", {}):
        pass
    assert served.post("/v1/embeddings", {"model": "gone", "input": "x"}).status == 404
    assert "gone" in served.get("/metrics").body.decode()
    served.do(served.hub.forget(served.hub.catalog.models["gone"]))
    answer = served.get("/metrics")
    assert answer.status == 200 and "gone" not in answer.body.decode()


def test_a_stream_that_outlives_its_model_is_counted_for_none(serve: Serve) -> None:
    served = serve({"m": model(), "gone": model()})
    served.do(served.hub.forget(served.hub.catalog.models["gone"]))
    served.do(lambda: served.app._metrics.tokens("gone").e2e.add(1.0))
    assert served.get("/metrics").status == 200
    assert value(scrape(served), "vllm:e2e_request_latency_seconds_count", model_name="gone", engine="0") is None


def test_the_lag_of_the_gateways_own_loop_is_measured(serve: Serve) -> None:
    served = serve({"m": model()})
    served.wait_until(lambda: sum(served.app.lag.counts) >= 1)
    before = served.app.lag.total
    served.do(lambda: time.sleep(0.5))
    served.wait_until(lambda: served.app.lag.total > before + 0.3)
    assert scrape(served)[("gateway_event_loop_lag_seconds_sum", frozenset())] > 0.3


def test_what_models_register_is_read_and_written_beside_the_loop(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def registered(replica: Any) -> bytes:
        return b"own 1\n"

    threads: list[str] = []

    def merge(texts: Any) -> Any:
        threads.append(threading.current_thread().name)
        return model_series.merge(texts)

    def collect(collected: Any) -> Any:
        threads.append(threading.current_thread().name)
        return collected._families

    monkeypatch.setattr(Player, "scrape", registered)
    monkeypatch.setattr(model_metrics, "merge", merge)
    monkeypatch.setattr(requests._Collected, "collect", collect)
    served = serve({"m": model()})
    assert value(scrape(served), "own", model="m") == 1
    assert len(threads) >= 2 and all(name.startswith("asyncio_") for name in threads)


def test_that_metrics_are_left_out_is_a_line_for_each_replica_however_often_it_is_scraped(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def registered(replica: Any) -> bytes:
        return "".join(f'f{number}{{"a b"="1"}} 1\n' for number in range(100)).encode()

    monkeypatch.setattr(Player, "scrape", registered)
    served = serve({"m": model()})

    def told() -> int:
        for _ in range(3):
            scrape(served)
        return sum("100 metrics of this replica left out" in record.getMessage() for record in caplog.records)

    assert told() == 1
    served.do((m := served.hub.catalog.models["m"]).reload(m.spec))
    assert told() == 2


def test_codes_that_a_model_makes_up_make_no_series(serve: Serve) -> None:
    async def breaks(inputs: Any) -> Any:
        yield "a"
        raise HTTPError(500, "x", code=f"made-up-{next(numbers)}")

    numbers = itertools.count()
    served = serve({"m": Model({"chat_completions": breaks})})
    for _ in range(3):
        assert served.post("/v1/chat/completions", {**CHAT, "stream": True}).status == 200
    found = {
        labels: count for (name, labels), count in scrape(served).items() if name == "gateway_streams_broken_total"
    }
    assert [(dict(labels)["reason"], count) for labels, count in found.items()] == [("other", 3)]
