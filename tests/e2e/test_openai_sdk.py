"""The official SDKs against the real command with real workers; what the models do is written in each request."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from gateway.testing import Gateway

from .conftest import write_models
from .scripted import ASYNC, ECHO, GENERATOR, PLAIN

PATIENCE = 60.0  # seconds for what should come at once
MODELS = {
    "generator": GENERATOR,
    "async": ASYNC,
    "plain": PLAIN,
    "narrow": ASYNC,
    "line": ASYNC,
    "slotted": GENERATOR,
    "stopped": GENERATOR,
    "org/echo": ECHO,
}
SETTINGS = """
[gateway]
default_model = "org/echo"
[models.generator]
slots = 16
[models.async]
slots = 16
[models.plain]
slots = 8
max_queue = 100
[models."org/echo"]
slots = 4
[models.narrow]
slots = 1
max_queue = 0
[models.line]
slots = 1
[models.stopped]
enforce_stop = true
[models.slotted]
slots = 1
queue_timeout = 10
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("gateway")
    write_models(root / "models", {name: {"model.py": text} for name, text in MODELS.items()})
    (root / "gateway.toml").write_text(SETTINGS)
    with Gateway(root / "models", cwd=root) as running:
        yield running


def script(*steps: Any) -> list[Any]:
    return [{"role": "user", "content": json.dumps(steps)}]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.01)


def metric(gateway: Gateway, name: str, model: str) -> float:
    for line in ask(gateway, "GET", "/metrics")[2].decode().splitlines():
        if line.startswith(f'{name}{{model="{model}"}}'):
            return float(line.split(" ")[1])
    raise AssertionError(f"there is no {name} of {model}")


def is_free(gateway: Gateway, model: str) -> Callable[[], bool]:
    return lambda: metric(gateway, "gateway_requests_in_flight", model) == 0


def ask(
    gateway: Gateway, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["generator", "async"])
def test_a_stream_is_what_the_model_yields(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(
        model=model, messages=script("one ", {"content": "two "}, "thr", "ee"), stream=True
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


@pytest.mark.parametrize("model", ["generator", "async", "plain"])
def test_a_whole_answer_is_the_same_from_every_kind_of_method(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=script({"content": "héllo", "finish_reason": "length"})
    )
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("héllo", "length")
    assert answer.model == model and answer._request_id


def test_the_stream_helper_puts_tool_calls_together(client: openai.OpenAI) -> None:
    steps = [
        {"reasoning_content": "hm"},
        {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ' "Oslo"}'}}]},
        {"tool_calls": [{"name": "time", "arguments": {"zone": "UTC"}}]},
        {"usage": {"prompt_tokens": 7, "completion_tokens": 9}},
    ]
    with client.chat.completions.stream(
        model="generator", messages=script(*steps), stream_options={"include_usage": True}
    ) as stream:
        stream.until_done()
        answer = stream.get_final_completion()
    [choice] = answer.choices
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or []]
    assert calls == [("weather", {"city": "Oslo"}), ("time", {"zone": "UTC"})]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.model_extra is not None and choice.message.model_extra["reasoning_content"] == "hm"
    assert answer.usage is not None and answer.usage.total_tokens == 16


@pytest.mark.parametrize("stream", [True, False])
def test_choices_that_wait_for_one_slot_follow_each_other(client: openai.OpenAI, stream: bool) -> None:
    words = [f"{number} " for number in range(200)]  # more than may be under way before somebody reads it
    answer: Any = client.chat.completions.create(model="slotted", messages=script(*words), n=3, stream=stream)
    texts = ["", "", ""]
    if stream:
        for chunk in answer:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    else:
        texts = [choice.message.content for choice in answer.choices]
    assert texts == ["".join(words)] * 3


def test_envelopes_of_the_model_keep_their_id(client: openai.OpenAI) -> None:
    envelope = {"id": "chatcmpl-mine", "created": 7, "choices": [{"index": 0, "message": {"content": "hi"}}]}
    answer = client.chat.completions.create(model="plain", messages=script(envelope))
    assert (answer.id, answer.created, answer.choices[0].message.content) == ("chatcmpl-mine", 7, "hi")


def test_events_that_the_model_frames_itself_reach_the_sdk(client: openai.OpenAI) -> None:
    event = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "own"}
    texts = [f"data: {json.dumps({**event, 'choices': [{'index': 0, 'delta': {'content': t}}]})}\n\n" for t in "ab"]
    stream = client.chat.completions.create(model="generator", messages=script(*texts, "data: [DONE]"), stream=True)
    chunks = list(stream)
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["a", "b"] and chunks[0].model == "own"


def test_n_answers_are_n_runs_with_seeds_of_their_own(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "org/echo", "messages": [{"role": "user", "content": "x"}], "n": 3, "seed": 10}
    expected = [f"x n=1 seed={seed} top_k=5" for seed in (10, 11, 12)]
    whole = client.chat.completions.create(**fields, extra_body={"top_k": 5})
    assert [choice.message.content for choice in whole.choices] == expected
    with client.chat.completions.stream(**fields, extra_body={"top_k": 5}) as stream:
        assert [choice.message.content for choice in stream.get_final_completion().choices] == expected


def test_the_async_client_gets_64_answers_at_once(gateway: Gateway) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:

            async def one(number: int) -> str:
                answer = await client.chat.completions.create(model="plain", messages=script(f"answer {number}"))
                return answer.choices[0].message.content or ""

            async def streamed(number: int) -> str:
                stream = await client.chat.completions.create(
                    model="async", messages=script(*f"stream {number}"), stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            found = await asyncio.gather(*(one(n) for n in range(64)), *(streamed(n) for n in range(64)))
            assert found == [f"answer {n}" for n in range(64)] + [f"stream {n}" for n in range(64)]

    asyncio.run(run())


# ── embeddings ───────────────────────────────────────────────────────────────────────────────────────────────────────

ROWS = [[0.1, -2.0], [3.5, 1e-6]]


@pytest.mark.parametrize(
    "value",
    [
        ROWS,
        ["numpy", ROWS],
        {"embeddings": ROWS, "usage": {"prompt_tokens": 3}},
        {"data": [{"index": 0, "embedding": ROWS[0]}, {"index": 1, "embedding": ROWS[1]}]},
    ],
)
def test_embeddings_are_the_same_in_base64_and_as_floats(client: openai.OpenAI, value: Any) -> None:
    texts = [json.dumps([value]), "second"]
    packed = client.embeddings.create(model="plain", input=texts)
    floats = client.embeddings.create(model="plain", input=texts, encoding_format="float")
    assert [item.embedding for item in floats.data] == ROWS
    for one, other in zip(packed.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, rel=1e-6)
    assert packed.usage.prompt_tokens > 0 and packed.model == "plain"


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["generator", "async", "plain"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (503, openai.InternalServerError),
    ],
)
def test_a_status_that_the_model_chooses_is_the_sdks_own_class(
    client: openai.OpenAI, model: str, stream: bool, status: int, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind, match="not like this") as caught:
        client.chat.completions.create(
            model=model, messages=script(["raise", "HTTPError", status, "not like this"]), stream=stream
        )
    error = caught.value
    assert (error.status_code, error.code, error.param) == (status, "scripted", "p")
    assert error.request_id and error.response.headers["request-id"] == error.request_id


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["generator", "async", "plain"])
def test_an_exception_of_the_model_keeps_its_text_to_itself(
    gateway: Gateway, client: openai.OpenAI, model: str, stream: bool
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=model, messages=script(["raise", "Boom"]), stream=stream)
    assert caught.value.code == "model_error" and "secret" not in str(caught.value)
    assert caught.value.request_id is not None
    gateway.wait_for(rf"\[{caught.value.request_id}\](.|\n)*?Boom: secret details")


@pytest.mark.parametrize("model", ["generator", "async"])
def test_an_error_after_the_first_item_raises_while_reading(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(
        model=model, messages=script("so far ", ["raise", "ValueError"]), stream=True
    )
    seen = ""
    with pytest.raises(openai.APIError, match="raised an error; `gateway logs ") as caught:
        for chunk in stream:
            seen += chunk.choices[0].delta.content or ""
            assert chunk.choices[0].finish_reason is None
    assert seen == "so far " and caught.value.code == "model_error"


def test_mistakes_of_the_client_name_the_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="plain", messages=[{"role": "robot", "content": "x"}])  # type: ignore[list-item]
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages[0].role")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=script("x"))
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError) as lacking:
        client.embeddings.create(model="generator", input="x")
    assert lacking.value.code == "route_not_supported"
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        client.embeddings.create(model="plain", input=[1, 2, 3])


@pytest.mark.parametrize("value", [{"generated_text": "x"}, 5, ["numpy", [1.0]], [], {"finish_reason": "whim"}])
def test_output_that_nobody_documented_is_an_error_of_its_own(client: openai.OpenAI, value: Any) -> None:
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="plain", messages=script(value), stream=stream)
        assert caught.value.code == "invalid_model_output"


# ── retries and time-outs ────────────────────────────────────────────────────────────────────────────────────────────


def count(path: Path) -> int:
    return path.read_text().count("once") if path.exists() else 0


def test_what_failed_for_good_is_not_tried_again(gateway: Gateway, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=2) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="plain", messages=script(["count", str(calls)], ["raise", "Boom"]))
        assert caught.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="plain", messages=script(["count", str(calls)], {"odd": 1}))
    assert count(calls) == 2


def test_what_may_pass_is_tried_again_after_the_time_that_was_named(gateway: Gateway, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    steps = script(["count", str(calls)], ["raise", "HTTPError", 503, "later", {"Retry-After-Ms": "1"}])
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=2)
    with client, pytest.raises(openai.InternalServerError, match="later"):
        client.chat.completions.create(model="plain", messages=steps)
    assert count(calls) == 3


def test_a_full_model_is_tried_again_when_it_says(gateway: Gateway, client: openai.OpenAI, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(
            client.chat.completions.create,
            model="narrow",
            messages=script(["touch", str(begun)], ["wait", str(go)], "first"),
        )
        wait_for(begun.exists, "the first call runs")
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="narrow", messages=script("x"))
        assert caught.value.code == "model_overloaded"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        threading.Timer(0.2, go.touch).start()  # before the second try, which is a second later at least
        answer = client.with_options(max_retries=8).chat.completions.create(model="narrow", messages=script("second"))
        assert answer.choices[0].message.content == "second"
        assert first.result(PATIENCE).choices[0].message.content == "first"


def test_a_client_that_waits_no_longer_frees_the_slot(gateway: Gateway, client: openai.OpenAI, tmp_path: Path) -> None:
    left, never = tmp_path / "left", tmp_path / "never"
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=3.0).chat.completions.create(
            model="narrow", messages=script(["finally", str(left)], ["wait", str(never)], "x")
        )
    wait_for(left.exists, "the model's finally ran")
    wait_for(is_free(gateway, "narrow"), "the slot is free")
    assert client.chat.completions.create(model="narrow", messages=script("next")).choices[0].message.content == "next"


# ── clients that leave ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["generator", "async", "narrow"])
def test_closing_a_stream_runs_the_models_finally(
    gateway: Gateway, client: openai.OpenAI, tmp_path: Path, model: str
) -> None:
    left = tmp_path / "left"
    endless = [["finally", str(left)], *["x"] * 100_000]
    stream = client.chat.completions.create(model=model, messages=script(*endless), stream=True)
    next(iter(stream))
    stream.close()
    wait_for(left.exists, "the model's finally ran")
    wait_for(is_free(gateway, model), "the slot is free")


def test_cancelling_a_task_cancels_the_models_coroutine(gateway: Gateway, tmp_path: Path) -> None:
    begun, left, never = tmp_path / "begun", tmp_path / "left", tmp_path / "never"

    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:
            steps = script(["finally", str(left)], ["touch", str(begun)], ["wait", str(never)], "x")
            task = asyncio.create_task(client.chat.completions.create(model="async", messages=steps))
            await asyncio.to_thread(wait_for, begun.exists, "the call runs")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    wait_for(left.exists, "the model's finally ran")
    wait_for(is_free(gateway, "async"), "the slot is free")


def test_a_call_that_was_given_up_in_the_queue_never_runs(gateway: Gateway, tmp_path: Path) -> None:
    begun, go, ran = tmp_path / "begun", tmp_path / "go", tmp_path / "ran"

    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client:

            def call(*steps: Any) -> asyncio.Task[Any]:
                return asyncio.create_task(client.chat.completions.create(model="line", messages=script(*steps)))

            first = call(["touch", str(begun)], ["wait", str(go)], "first")
            await asyncio.to_thread(wait_for, begun.exists, "the first call runs")
            second = call(["touch", str(ran)], "second")
            await asyncio.to_thread(wait_for, lambda: queued() == 1, "the second call waits")
            second.cancel()
            await asyncio.to_thread(wait_for, lambda: queued() == 0, "it waits no more")
            go.touch()
            assert (await first).choices[0].message.content == "first"
            assert (await call("third")).choices[0].message.content == "third"

    def queued() -> float:
        return metric(gateway, "gateway_requests_queued", "line")

    asyncio.run(run())
    assert not ran.exists()


# ── which model ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_models_are_listed_and_retrieved_by_both_sdks(gateway: Gateway, client: openai.OpenAI) -> None:
    names = sorted(MODELS)
    assert sorted(model.id for model in client.models.list()) == names
    assert client.models.retrieve("org/echo").id == "org/echo"
    with anthropic.Anthropic(base_url=gateway.url, api_key="x", max_retries=0) as other:
        assert sorted(model.id for model in other.models.list()) == names
        assert other.models.retrieve("async").display_name == "async"
        with pytest.raises(anthropic.NotFoundError):
            other.models.retrieve("nobody")


def test_a_model_has_a_base_url_for_clients_that_cannot_name_it(gateway: Gateway) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/models/org/echo/v1", api_key="x", max_retries=0) as client:
        answer = client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "hi n=None seed=None top_k=None" and answer.model == "gpt-4"
        assert [model.id for model in client.models.list()] == ["org/echo"]


def test_a_missing_model_is_the_default_one(gateway: Gateway) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    for fields in (body, {**body, "model": None}):
        status, _, answer = ask(gateway, "POST", "/v1/chat/completions", fields)
        assert status == 200 and json.loads(answer)["model"] == "org/echo"


# ── predict, as Truss's clients call it ──────────────────────────────────────────────────────────────────────────────


def test_predict_gives_json_streams_and_answers_made_by_hand(gateway: Gateway) -> None:
    status, headers, body = ask(gateway, "POST", "/v1/models/plain:predict", {"steps": [{"a": [1, None]}]})
    assert (status, json.loads(body), headers["content-type"]) == (200, {"a": [1, None]}, "application/json")
    status, headers, body = ask(gateway, "POST", "/models/generator/predict", {"steps": ["ab", "cd"]})
    assert (status, body, headers["transfer-encoding"]) == (200, b"abcd", "chunked")
    gathered = {"Accept": "application/json"}
    status, headers, body = ask(gateway, "POST", "/models/generator/predict", {"steps": ["ab", "cd"]}, gathered)
    assert (status, json.loads(body)) == (200, "abcd")
    status, headers, body = ask(gateway, "POST", "/v1/models/org/echo:predict", {})
    assert (status, body, headers["x-mine"]) == (207, b"made by hand", "yes")


def test_items_that_are_ready_at_different_times_are_chunks_of_their_own(gateway: Gateway, tmp_path: Path) -> None:
    go = tmp_path / "go"
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)
    connection.request("POST", "/models/generator/predict", json.dumps({"steps": ["one", ["wait", str(go)], "two"]}))
    response = connection.getresponse()
    assert response.read1(100) == b"one"
    go.touch()
    assert response.read() == b"two"
    connection.close()


def test_errors_of_predict_have_trusss_shape_and_headers(gateway: Gateway) -> None:
    status, headers, body = ask(gateway, "POST", "/models/plain/predict", {"steps": [["raise", "Boom"]]})
    how = f"`gateway logs plain` shows it under the request id {headers['x-request-id']}"
    assert (status, json.loads(body)) == (500, {"error": f"model 'plain' raised an error; {how}"})
    assert (headers["x-baseten-error-source"], headers["x-baseten-error-code"]) == ("04", "600")
    assert headers["x-request-id"] == headers["request-id"] != ""
    status, headers, body = ask(
        gateway, "POST", "/models/plain/predict", {"steps": [["raise", "HTTPError", 404, "no"]]}
    )
    assert (status, json.loads(body), headers["x-baseten-error-code"]) == (404, {"error": "no"}, "600")


def test_a_predict_stream_that_fails_never_looks_complete(gateway: Gateway, tmp_path: Path) -> None:
    go = tmp_path / "go"
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)
    steps = ["one", ["wait", str(go)], ["raise", "Boom"]]
    connection.request("POST", "/models/generator/predict", json.dumps({"steps": steps}))
    response = connection.getresponse()
    assert response.read1(100) == b"one"
    go.touch()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    connection.close()
    assert ask(gateway, "POST", "/models/plain/predict", {"steps": ["fine"]})[0] == 200


# ── stop strings ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_knows_no_stop_strings_is_stopped_where_the_settings_say_so(
    gateway: Gateway, client: openai.OpenAI, tmp_path: Path, stream: bool
) -> None:
    left, ended = tmp_path / "left", tmp_path / "ended"
    steps = [["finally", str(left)], "one E", "ND two", *["more"] * 1000, ["touch", str(ended)]]
    answer: Any = client.chat.completions.create(model="stopped", messages=script(*steps), stop="END", stream=stream)
    if stream:
        chunks = list(answer)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one "
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one ", "stop")
    wait_for(left.exists, "the end of the model's code")
    wait_for(is_free(gateway, "stopped"), "a free slot")
    assert not ended.exists()
