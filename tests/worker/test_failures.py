"""Whatever a model raises becomes an error of its call, with nothing of the model's insides in it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException as FastAPIError
from starlette.exceptions import HTTPException as StarletteError

from gateway.errors import BadRequest, HTTPError, Overloaded
from gateway.spec import ModelSpec
from gateway.wire import frames
from gateway.wire.checks import check_failure
from gateway.wire.frames import BEGINS, GOES_ON
from gateway.worker.bodies.failures import GENERIC, BadInput, Unserializable, encode_failure, is_sticky, log, to_failure


def spec(root: Path = Path("/nowhere")) -> ModelSpec:
    return ModelSpec(name="m", target="model:Model", root=root)


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class Treacherous(Exception):
    @property
    def status_code(self) -> int:
        raise RuntimeError("a trap")


def test_an_exception_is_the_generic_text_and_its_own_only_for_the_operator() -> None:
    failure = to_failure(ValueError("password is hunter2"))
    assert (failure.status, failure.code, failure.truss_code) == (500, "model_error", 600)
    assert failure.message == GENERIC == "Internal Server Error (in model/chainlet)."
    assert failure.reason == "ValueError: password is hunter2"


def test_debug_shows_the_text_to_the_client() -> None:
    assert "hunter2" in to_failure(ValueError("hunter2"), debug=True).message


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(), NotImplementedError()])
def test_exceptions_that_are_no_errors_are_the_models_too(error: BaseException) -> None:
    assert to_failure(error).code == "model_error"


@pytest.mark.parametrize("cls", [FastAPIError, StarletteError])
def test_a_raised_status_passes_with_its_detail_and_headers(cls: Any) -> None:
    failure = to_failure(cls(429, "slow down", {"Retry-After": "7"}))
    assert (failure.status, failure.message, failure.detail) == (429, "slow down", "slow down")
    assert failure.headers == [("Retry-After", "7")]
    assert failure.truss_code == 600


def test_a_detail_that_is_an_object_stays_one() -> None:
    assert to_failure(FastAPIError(422, {"a": [1]})).detail == {"a": [1]}


def test_our_own_error_keeps_code_and_param() -> None:
    failure = to_failure(HTTPError(400, "temperature must be at most 2", param="temperature"))
    assert (failure.status, failure.code, failure.param) == (400, "invalid_value", "temperature")


def test_an_error_that_says_when_to_come_back_still_does() -> None:
    assert to_failure(Overloaded("full", retry_after=3)).headers == [("Retry-After", "3")]


@pytest.mark.parametrize("status", [0, 99, 200, 302, 600, True, "404", None])
def test_a_status_that_is_no_error_is_not_believed(status: Any) -> None:
    error = ValueError("x")
    error.status_code, error.detail = status, "text"  # type: ignore[attr-defined]
    assert to_failure(error).status == 500


@pytest.mark.parametrize(
    "headers",
    [{"x-a": "1\r\nset-cookie: stolen"}, {"x a": "1"}, [("x-a\n", "1")], [(b"x-a", b"1\n")]],
)
def test_headers_that_would_forge_an_answer_are_left_out(headers: Any) -> None:
    error = ValueError("x")
    error.status_code, error.detail, error.headers = 400, "text", headers  # type: ignore[attr-defined]
    assert to_failure(error).headers == []


def test_bad_input_and_bad_output_are_told_apart() -> None:
    assert to_failure(BadInput("text", "param")) == frames.Failure(
        400, "invalid_value", "text", param="param", truss_code=700
    )
    failure = to_failure(Unserializable("Object of type X is not JSON serializable"))
    assert failure.message == "Unhandled exception: TypeError: Object of type X is not JSON serializable"
    assert (failure.status, failure.code, failure.truss_code) == (500, "invalid_model_output", 500)


@pytest.mark.parametrize("error", [OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")])
def test_a_lack_of_device_memory_is_503_and_the_worker_goes_on(error: Exception) -> None:
    assert to_failure(error).code == "insufficient_memory"
    assert not is_sticky(error)


def test_a_lost_device_is_noticed_even_as_the_cause_of_another_error() -> None:
    cause = RuntimeError("CUDA error: device-side assert triggered")
    assert is_sticky(cause)
    error = ValueError("generation failed")
    error.__cause__ = cause
    assert is_sticky(error)
    assert not is_sticky(ValueError("no CUDA here"))
    loop = ValueError("a")
    loop.__context__ = loop
    assert not is_sticky(loop)


@pytest.mark.parametrize("error", [Unprintable(), Treacherous("x")], ids=["str", "property"])
def test_an_exception_that_cannot_even_be_printed_is_an_error_like_any_other(error: Exception, capsys: Any) -> None:
    assert to_failure(error).code == "model_error"
    assert not is_sticky(error)
    log(error, "r1", spec(), "predict")
    assert "[r1]" in capsys.readouterr().err


def test_a_detail_that_cannot_travel_is_left_out_of_the_frame() -> None:
    failure = to_failure(FastAPIError(400, {"when": object()}))
    assert frames.decode_head(frames.Failure, encode_failure(failure)).detail is None


@pytest.mark.parametrize(
    "failure",
    [
        frames.Failure(500, "model_error", "ä" * 300_000, reason="€" * 300_000, detail="x" * 300_000),
        frames.Failure(422, "invalid_value", "x", detail={"a": ["b" * 1000] * 1000}),
        frames.Failure(422, "invalid_value", "x", headers=[("x-a", "1" * 300_000)], param="p" * 300_000),
        frames.Failure(500, "model_error", "half \ud83d"),
    ],
    ids=["texts", "detail", "headers", "surrogate"],
)
def test_however_long_an_error_is_its_frame_is_one_that_the_gateway_takes(failure: frames.Failure) -> None:
    payload = encode_failure(failure)
    assert len(payload) <= frames.MAX_FRAME
    found = frames.decode_head(frames.Failure, payload)
    check_failure(found)
    assert (found.status, found.code, found.message[:1]) == (failure.status, failure.code, failure.message[:1])


def lines_of(capsys: Any) -> list[str]:
    """What was said, without the marks of records, and empty lines, which are none of the log."""
    text: str = capsys.readouterr().err
    return [line for line in text.replace(BEGINS, "").replace(GOES_ON, "").splitlines() if line]


def test_the_log_begins_at_the_models_own_file(tmp_path: Any, capsys: Any) -> None:
    path = tmp_path / "model.py"
    path.write_text("def predict():\n    raise ValueError('boom')\n")
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    try:
        names["predict"]()
    except ValueError as error:
        log(error, "r1", spec(tmp_path), "/v1/chat/completions: chat_completions")
    lines = lines_of(capsys)
    assert lines[0] == "[r1] /v1/chat/completions: chat_completions raised a ValueError"
    assert "model.py" in lines[2]
    assert lines[-1] == "ValueError: boom"


def test_the_log_of_a_strict_model_has_trusss_heading(capsys: Any) -> None:
    log(ValueError("boom"), "r1", replace(spec(), parity="strict"), "predict")
    assert lines_of(capsys)[0] == f"[r1] {GENERIC}"


def test_a_request_that_a_model_refuses_is_one_line_of_its_log_and_no_traceback(capsys: Any) -> None:
    try:
        raise BadRequest("top_k must be a whole number", param="top_k")
    except BadRequest as error:
        log(error, "r1", spec(), "predict")
    assert lines_of(capsys) == ["[r1] refused with 400 invalid_value: top_k must be a whole number"]


def test_a_model_that_closed_its_output_still_gets_its_errors_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    log(ValueError("x"), "r1", spec(), "predict")


def test_a_variable_that_a_call_looked_for_in_vain_is_explained_below_its_traceback(capsys: Any) -> None:
    try:
        os.environ["NO_SUCH_KEY_HERE"]
    except KeyError as error:
        log(error, "r1", spec(), "predict")
    told = lines_of(capsys)
    assert told[-2] == "KeyError: 'NO_SUCH_KEY_HERE'"
    assert told[-1].startswith("[r1] NO_SUCH_KEY_HERE is not there; models do not inherit the environment")
    assert "[models.m.environment]" in told[-1]


def test_what_cannot_be_sent_is_one_line_of_the_log(capsys: Any) -> None:
    log(Unserializable("Object of type X is not JSON serializable (at $.a)"), "r1", spec(), "predict")
    said = "Object of type X is not JSON serializable (at $.a)"
    assert lines_of(capsys) == [f"[r1] ERROR gateway: predict returned a value that cannot be sent: {said}"]


def test_code_of_the_model_that_fails_while_its_result_is_written_has_its_traceback(
    tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / "model.py"
    path.write_text("def fields():\n    raise ValueError('boom')\n")
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    try:
        try:
            names["fields"]()
        except ValueError as error:
            raise Unserializable("it cannot be written") from error
    except Unserializable as error:
        log(error, "r1", spec(tmp_path), "predict")
    lines = lines_of(capsys)
    assert lines[0] == "[r1] ERROR gateway: predict returned a value that cannot be sent: it cannot be written"
    assert "model.py" in lines[2] and lines[-1] == "ValueError: boom"
    assert not any("Unserializable" in line for line in lines)
