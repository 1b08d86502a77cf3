"""OpenAI's SDK when something is wrong: the class of each error, what it tries again, and what it leaves."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from .asking import PATIENCE, TINY, script, user, wait_for

STREAMED = pytest.mark.parametrize("stream", [False, True])


def ask(client: openai.OpenAI, model: str, messages: list[Any], **fields: Any) -> Any:
    return client.chat.completions.create(model=model, messages=messages, **fields)


@STREAMED
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
        (504, openai.InternalServerError),
    ],
)
def test_a_status_that_the_model_chooses_is_a_class(
    client: openai.OpenAI, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    with pytest.raises(kind, match="not like this") as caught:
        ask(client, "script", script(["raise", status, "not like this"]), stream=stream)
    assert caught.value.status_code == status and caught.value.request_id


@STREAMED
def test_each_mistake_has_its_class_and_code(client: openai.OpenAI, stream: bool) -> None:
    wrong: list[tuple[str, list[Any], dict[str, Any], type[openai.APIStatusError], str]] = [
        ("nobody", user("x"), {}, openai.NotFoundError, "model_not_found"),
        ("minilm", user("x"), {}, openai.NotFoundError, "route_not_supported"),
        ("script", [], {}, openai.BadRequestError, "invalid_value"),
        ("script", user("x"), {"temperature": "hot"}, openai.BadRequestError, "invalid_type"),
        (TINY, user("long " * 3000), {}, openai.BadRequestError, "context_length_exceeded"),
        ("script", script(["boom"]), {}, openai.InternalServerError, "model_error"),
        ("script", script({"odd": 1}), {}, openai.InternalServerError, "invalid_model_output"),
        ("broken", user("x"), {}, openai.InternalServerError, "model_failed"),
        ("hasty", script(["wait", "/nowhere"]), {}, openai.InternalServerError, "timeout"),
    ]
    for model, messages, fields, kind, code in wrong:
        with pytest.raises(kind) as caught:
            ask(client, model, messages, stream=stream, **fields)
        assert caught.value.code == code, str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_key_that_is_wrong_or_missing_is_said_to_be(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-other", max_retries=0) as client:
        for call in (lambda: ask(client, TINY, user("x")), lambda: client.models.list()):
            with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided") as caught:
                call()
            assert caught.value.code == "invalid_api_key"


def test_an_error_within_a_stream_raises_while_reading(client: openai.OpenAI) -> None:
    seen = ""
    with pytest.raises(openai.APIError) as caught:
        for chunk in ask(client, "script", script("so far ", ["boom"]), stream=True):
            seen += chunk.choices[0].delta.content or ""
            assert chunk.choices[0].finish_reason is None
    assert (seen, caught.value.code) == ("so far ", "model_error")


@STREAMED
def test_what_may_pass_is_tried_again_until_it_does(client: openai.OpenAI, tmp_path: Path, stream: bool) -> None:
    calls = tmp_path / "calls"
    patient = client.with_options(max_retries=2)
    answer = ask(patient, "script", script(["fail", str(calls), 2], "at last"), stream=stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in answer) if stream else None
    assert (text or answer.choices[0].message.content) == "at last"
    assert len(calls.read_text().splitlines()) == 3


def test_what_failed_for_good_is_tried_once(client: openai.OpenAI, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with pytest.raises(openai.InternalServerError):
        ask(client.with_options(max_retries=2), "script", script(["fail", str(calls), 0], ["boom"]))
    assert len(calls.read_text().splitlines()) == 1


def test_a_model_with_its_hands_full_says_so_and_when_to_come_back(client: openai.OpenAI, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, client, "narrow", script(["touch", str(begun)], ["wait", str(go)], "first"))
        wait_for(begun)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client, "narrow", user("second"))
        assert caught.value.code == "model_overloaded" and int(caught.value.response.headers["retry-after"]) >= 1
        go.touch()
        assert first.result(PATIENCE).choices[0].message.content == "first"


def test_closing_a_stream_ends_the_models_code(client: openai.OpenAI, tmp_path: Path) -> None:
    left = tmp_path / "left"
    stream = ask(client, "script", script(["finally", str(left)], "x", ["wait", "/nowhere"]), stream=True)
    next(iter(stream))
    stream.close()
    wait_for(left)


def test_a_cancelled_task_ends_the_models_code(url: str, key: str, tmp_path: Path) -> None:
    begun, left = tmp_path / "begun", tmp_path / "left"

    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            messages = script(["finally", str(left)], ["touch", str(begun)], ["wait", "/nowhere"])
            task = asyncio.create_task(client.chat.completions.create(model="script", messages=messages))
            await asyncio.to_thread(wait_for, begun)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(wait_for, left)

    asyncio.run(run())


def test_a_client_that_waits_no_longer_ends_the_models_code(client: openai.OpenAI, tmp_path: Path) -> None:
    left = tmp_path / "left"
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=1.0), "script", script(["finally", str(left)], ["wait", "/nowhere"]))
    wait_for(left)
