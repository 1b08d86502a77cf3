"""Real workers: how they answer, stream and stop, and what they see of the world around them."""

# ruff: noqa: ASYNC240  (a look at a directory)

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from msgspec import Raw

from gateway.errors import GatewayError, HTTPError, ModelError
from gateway.runners.call import Call
from gateway.runners.spawn import place_of
from gateway.spec import Limits
from gateway.wire.frames import WINDOW_ITEMS, HTTPScope

from .started import KITCHEN, METHODS, Started, body_of, started, until

pytestmark = pytest.mark.anyio

FORBIDDEN = {"AWS_SECRET_ACCESS_KEY": "no", "GATEWAY_API_KEY": "no", "TRUSS_SECRET_token": "no", "PYTHONSTARTUP": "no"}
OTHERS = f"/elsewhere/venv/bin{os.pathsep}{os.environ['PATH']}"
ALLOWED = {"HF_HOME": "/hf", "LC_PAPER": "de_DE", "https_proxy": "http://proxy"}


@pytest.fixture(scope="module")
async def kitchen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Started]:
    """One worker for everything that does not harm it."""
    before = dict(os.environ)
    os.environ.update(FORBIDDEN | ALLOWED | {"VIRTUAL_ENV": "/elsewhere/venv", "PATH": OTHERS})
    root = tmp_path_factory.mktemp("kitchen")
    spec = {"environment": {"COLOUR": "red", "CUDA_VISIBLE_DEVICES": "7"}, "secrets": ("token",)}
    options: dict[str, Any] = {"slots": 4, "spec": {**spec, "limits": Limits(slots=4)}}
    options |= {"environment": {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": ""}, "secrets": {"token": "hunter22\n"}}
    del options["slots"]
    try:
        async with started(root, KITCHEN, *METHODS, **options) as found:
            yield found
    finally:
        os.environ.clear()
        os.environ.update(before)


# ── whole answers ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_predict_goes_there_and_back(kitchen: Started) -> None:
    assert await kitchen.ask("predict", {"a": [1, "ä", None]}) == {"a": [1, "ä", None]}
    assert all(call.ended for call in kitchen.ended)


async def test_a_binary_predict_goes_there_and_back(kitchen: Started) -> None:
    body = msgpack.packb({"a": b"bytes"})
    with kitchen.open("predict", body, content_type="application/octet-stream") as call:
        head = await call.first()
    assert head.content_type == "application/octet-stream"
    assert msgpack.unpackb(call.reply) == {"a": b"bytes"}


async def test_many_calls_at_once_get_their_own_answers(kitchen: Started) -> None:
    answers = await asyncio.gather(*(kitchen.ask("predict", number) for number in range(200)))
    assert answers == list(range(200))
    assert list(kitchen.replica.calls()) == []


async def test_ids_wrap_around_and_skip_those_in_use(kitchen: Started) -> None:
    replica = kitchen.replica
    waits = kitchen.open("wait", "while ids wrap")
    await kitchen.log.find("waiting while ids wrap")
    replica._in_flight.last_id = waits.id - 1
    assert await kitchen.ask("predict", "skips") == "skips"
    replica._in_flight.last_id = 0xFFFFFFFF - 1
    calls = [kitchen.open("predict", number) for number in range(3)]
    assert [call.id for call in calls] == [0xFFFFFFFF, 1, 2]
    assert [body_of(call, await call.first()) for call in calls] == [0, 1, 2]
    assert not waits.ended
    waits.client_left()
    await kitchen.over(waits)
    assert await kitchen.ask("told") == ["cancelled"]


async def test_bodies_of_5_mb_travel_both_ways_with_other_calls_in_between(kitchen: Started) -> None:
    large = b"x" * 5_000_000
    busy = True

    async def small() -> int:
        done = 0
        while busy:
            assert await kitchen.ask("predict", done) == done
            done += 1
        return done

    others = asyncio.create_task(small())
    sizes = await asyncio.gather(*(kitchen.ask("size", large) for _ in range(3)))
    assert sizes == [5_000_000] * 3
    assert await kitchen.ask("blob", 5_000_000) == large
    busy = False
    assert await others > 0


async def test_a_call_given_up_in_the_middle_of_its_body_leaves_the_channel_whole(kitchen: Started) -> None:
    for turns in (0, 1, 3):
        call = kitchen.open("size", b"x" * 20_000_000)
        for _ in range(turns):
            await asyncio.sleep(0)
        call.client_left()
        assert await kitchen.ask("predict", turns) == turns
        await kitchen.over(call)
    assert await kitchen.ask("size", b"x" * 1_000_000) == 1_000_000


async def test_an_answer_given_up_in_the_middle_of_its_body_leaves_the_channel_whole(kitchen: Started) -> None:
    channel = kitchen.replica._channel
    assert channel is not None
    for size in (300_000, 5_000_000, 20_000_000):
        call = kitchen.open("blob", size)
        await until(lambda call=call: call.ended or bool(channel._parts))  # type: ignore[misc]
        call.client_left()
        assert await kitchen.ask("predict", size) == size
        await kitchen.over(call)
    assert len(await kitchen.ask("blob", 1_000_000)) == 1_000_000


# ── where it runs ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_sees_of_the_environment_what_it_may_and_what_its_model_declares(kitchen: Started) -> None:
    environ = (await kitchen.ask("look"))["environ"]
    assert not FORBIDDEN.keys() & environ.keys()
    assert environ.items() >= ALLOWED.items()
    assert environ["COLOUR"] == "red"
    assert environ["OMP_NUM_THREADS"] == "3"
    assert environ["CUDA_VISIBLE_DEVICES"] == "", "a model's own value must not beat the devices it was given"
    assert [name for name in environ if name.startswith("GW_")] == ["GW_WORKER"]
    assert "hunter22" not in json.dumps(environ)


async def test_programs_of_the_models_own_environment_come_before_all_others(kitchen: Started) -> None:
    """As in a shell where that environment is active, whatever shell the gateway was started from."""
    environ = (await kitchen.ask("look"))["environ"]
    own = str(Path(sys.executable).parent)
    others = [place for place in OTHERS.split(os.pathsep) if place != own]  # it is there if the tests' own is active
    assert environ["PATH"].split(os.pathsep) == [own, *others]
    assert environ.get("VIRTUAL_ENV") == (sys.prefix if sys.prefix != sys.base_prefix else None)


def test_the_place_of_an_interpreter_is_that_of_its_environment_and_not_where_its_link_leads(tmp_path: Path) -> None:
    programs = tmp_path / "env" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    path = f"/usr/bin{os.pathsep}{programs}"
    assert place_of(str(programs / "python"), path) == {"PATH": f"{programs}{os.pathsep}/usr/bin"}
    (programs.parent / "pyvenv.cfg").touch()
    found = {"PATH": f"{programs}{os.pathsep}/usr/bin", "VIRTUAL_ENV": str(programs.parent)}
    assert place_of(str(programs / "python"), path) == found
    assert place_of("python", str(programs)) == {**found, "PATH": str(programs)}, "a name is looked up"


async def test_a_worker_lives_in_its_models_directory_and_in_a_group_of_its_own(kitchen: Started) -> None:
    found = await kitchen.ask("look")
    root = str(kitchen.launch.spec.root)
    assert found["cwd"] == root
    assert found["path"][0] == root
    assert found["data_dir"] == "data"
    assert Path(root, "data").is_dir()
    assert found["group"] == found["pid"] == kitchen.replica.pid
    assert found["nice"] == "500"
    tmp = Path(found["environ"]["TMPDIR"])
    assert tmp.is_dir()
    assert tmp.stat().st_mode & 0o077 == 0


async def test_a_worker_imports_no_web_framework_and_no_pydantic_of_ours(kitchen: Started) -> None:
    modules = {name.partition(".")[0] for name in (await kitchen.ask("look"))["modules"]}
    heavy = {
        "litestar",
        "pydantic",
        "starlette",
        "uvicorn",
        "click",
        "pluggy",
        "yaml",
        "numpy",
        "torch",
        "prometheus_client",
    }
    assert not modules & heavy


async def test_secrets_come_over_the_channel_and_follow_changes(kitchen: Started) -> None:
    assert await kitchen.ask("secret", "token") == "hunter22\n"
    assert await kitchen.ask("secret", "other") is None
    for value in ("earlier!", "rotated!"):  # in this order, though both are made ready to be hidden first
        kitchen.replica.update({"token": value}, None)
    while (seen := await kitchen.ask("secret", "token")) != "rotated!":
        assert seen in ("hunter22\n", "earlier!")
    kitchen.replica.update({"token": "hunter22\n"}, None)


async def test_lines_of_both_streams_are_the_models_log_without_its_secrets(kitchen: Started) -> None:
    await kitchen.ask("say", "the secret is hunter22, was rotated!\nnext \x1b[31mline\x1b[0m\a")
    await kitchen.log.find("from the other stream")
    assert await kitchen.log.find("the secret is") == "the secret is ***, was ***"
    assert await kitchen.log.find("next") == "next line\\x07"


async def test_megabytes_without_a_line_break_are_cut_and_block_nobody(kitchen: Started) -> None:
    await kitchen.ask("say", "z" * 3_000_000)
    line = await kitchen.log.find("zzz")
    assert len(line) < 3000
    assert line.endswith("(truncated)")
    assert sum("zzz" in line for line in kitchen.log.lines) == 1


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_exception_is_generic_for_the_client_and_whole_in_the_log(kitchen: Started) -> None:
    with pytest.raises(ModelError) as caught:
        await kitchen.ask("fail", "the password is wrong")
    assert caught.value.message == "Internal Server Error (in model/chainlet)."
    assert caught.value.should_retry is False
    await kitchen.log.find("ValueError: the password is wrong")
    assert any("[r] fail raised a ValueError" in line for line in kitchen.log.lines)


async def test_an_exception_with_a_status_passes_with_its_detail_and_headers(kitchen: Started) -> None:
    with pytest.raises(HTTPError) as caught:
        await kitchen.ask("http")
    error = caught.value
    assert (error.status, error.detail, error.headers) == (422, Raw(b'{"field":"bad"}'), {"x-why": "because"})


async def test_a_result_that_cannot_be_sent_is_the_models_failure(kitchen: Started) -> None:
    with pytest.raises(GatewayError) as caught:
        await kitchen.ask("fail_nothing")
    assert caught.value.status == 404
    body = b"{bad json"
    with pytest.raises(GatewayError) as caught:
        await kitchen.ask("predict", body)
    assert (caught.value.status, caught.value.truss_code) == (400, 700)


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["count", "acount"])
async def test_both_kinds_of_generators_stream_in_order_however_long(kitchen: Started, method: str) -> None:
    items = await kitchen.read(kitchen.open(method, 3000, stream=True))
    assert items == [f"item {number}" for number in range(3000)]
    assert await kitchen.ask("told") == [["closed", True]]


@pytest.mark.parametrize("method", ["count", "acount"])
async def test_a_reader_that_does_not_take_stops_the_model_within_one_window(kitchen: Started, method: str) -> None:
    call = kitchen.open(method, 100_000, stream=True)
    await until(lambda: len(call.items) == WINDOW_ITEMS)
    for _ in range(20):
        assert await kitchen.ask("produced") <= WINDOW_ITEMS + 1
    assert len(call.items) == WINDOW_ITEMS
    await call.first()
    await call.take()
    await until(lambda: len(call.items) == WINDOW_ITEMS)
    assert await kitchen.ask("produced") <= 2 * WINDOW_ITEMS + 1
    call.client_left()
    await kitchen.over(call)
    assert await kitchen.ask("told") == [["closed", True]]


async def test_a_stream_that_fails_late_delivers_what_came_before(kitchen: Started) -> None:
    call = kitchen.open("fail_late", stream=True)
    await call.first()
    assert await call.take() == ["one"]
    with pytest.raises(ModelError):
        await call.take()


# ── giving up ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_async_method_is_cancelled_where_it_awaits(kitchen: Started) -> None:
    call = kitchen.open("wait", "to be cancelled")
    await kitchen.log.find("waiting to be cancelled")
    call.client_left()
    await kitchen.over(call)
    assert await kitchen.ask("told") == ["cancelled"]


async def test_a_generator_is_closed_in_the_middle_and_its_finally_has_run_when_the_call_ends(kitchen: Started) -> None:
    call = kitchen.open("slowly", 10, stream=True)
    await call.first()
    call.client_left()
    assert call not in kitchen.ended
    await kitchen.over(call)
    assert call in kitchen.ended
    assert await kitchen.ask("told") == ["closed slowly"]


async def test_a_sync_method_runs_on_and_holds_its_slot_until_it_returns(kitchen: Started) -> None:
    call = kitchen.open("block", "for a while")
    await kitchen.log.find("blocked for a while")
    call.client_left()
    assert await kitchen.ask("told") == ["blocked"]
    assert not call.ended
    assert call not in kitchen.ended
    await kitchen.ask("let_go")
    await kitchen.over(call)
    assert await kitchen.ask("told") == ["went on"]


async def test_a_call_that_waits_in_the_worker_is_dropped_before_it_runs(tmp_path: Path) -> None:
    source = """
        import threading
        class Model:
            def __init__(self): self.ran, self.go = [], threading.Event()
            def preprocess(self, x):
                if x == "go": self.go.set()
                return x
            def predict(self, x):
                if x == "first": print("first runs"); self.go.wait()
                self.ran.append(x)
                return self.ran
        """
    async with started(tmp_path, source) as found:
        first, second = found.open("predict", "first"), found.open("predict", "second")
        await found.log.find("first runs")
        second.client_left()
        await found.over(second)
        assert await found.ask("predict", "go") == ["first", "go"]
        assert body_of(first, await first.first()) == ["first"]


# ── hooks, requests, types ───────────────────────────────────────────────────────────────────────────────────────────

PIPELINE = """
    import asyncio, threading
    from pydantic import BaseModel
    from starlette.requests import Request
    from fastapi import HTTPException
    from starlette.responses import StreamingResponse

    class In(BaseModel):
        items: list[int]

    class Model:
        def __init__(self):
            self.loaded_on = None
            self.healthy = True
            self.predicting, self.gate = threading.Event(), threading.Event()
        async def load(self):
            await asyncio.sleep(0)
            self.loaded_on = "loop" if asyncio.get_running_loop() else None
        async def preprocess(self, body: In, request: Request):
            if request.query_params.get("hold"): self.held = True
            if request.query_params.get("free"): self.gate.set()
            return body.items, request.query_params.get("hold"), request.headers.get("x-name")
        def predict(self, x):
            items, hold, name = x
            if hold:
                print("holding")
                self.gate.wait()
            return sum(items), name
        def postprocess(self, x):
            total, name = x
            if name == "forbidden": raise HTTPException(403, "not you", {"x-a": "b"})
            if name == "stream": return (str(n) for n in range(total))
            return {"total": total, "name": name, "loaded_on": self.loaded_on}
        async def is_healthy(self): return self.healthy
        def sicken(self, x): self.healthy = False
        async def response(self, x, request):
            async def body():
                yield (await request.body())[:5]
                yield b"two"
            return StreamingResponse(body(), 206, {"x-own": "yes"}, "text/plain")
    """


@pytest.fixture(scope="module")
async def pipeline(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Started]:
    root = tmp_path_factory.mktemp("pipeline")
    async with started(root, PIPELINE, "sicken", "response") as found:
        yield found


def scope(query: str = "", **headers: str) -> HTTPScope:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HTTPScope("POST", "/v1/models/m:predict", query.encode(), pairs, ("1.2.3.4", 5), None, "http")


def waiting(call: Call) -> Call:
    """As a model with hooks sends it: the slot comes later."""

    class Seat:
        waiting = 0

    call.got_slot, call.seat = False, Seat()
    return call


async def test_capabilities_tell_of_hooks_health_and_requests(pipeline: Started) -> None:
    found = pipeline.replica.capabilities
    assert found.has_hooks
    assert found.has_health_check
    assert {method.name: method.wants_request for method in found.methods} == {
        "predict": True,
        "response": True,
        "sicken": False,
    }
    assert found.input_schema is not None


async def test_hooks_run_around_predict_with_the_request_and_after_an_async_load(pipeline: Started) -> None:
    answer = await pipeline.ask("predict", {"items": [1, 2]}, scope=scope(x_name="me"))
    assert answer == {"total": 3, "name": "me", "loaded_on": "loop"}


async def test_typed_input_errors_have_trusss_words(pipeline: Started) -> None:
    with pytest.raises(GatewayError) as caught:
        await pipeline.ask("predict", {"items": ["x", 2]}, scope=scope())
    error = caught.value
    assert (error.status, error.truss_code) == (400, 700)
    assert error.message == (
        "Input Parsing Error:\n  `items[0]`: Input should be a valid integer, unable to parse string as an integer."
    )


async def test_only_predict_holds_the_slot_and_the_gateway_is_told_who_has_it(pipeline: Started) -> None:
    first = waiting(pipeline.open("predict", {"items": [1]}, scope=scope("hold=1")))
    await pipeline.log.find("holding")
    await until(lambda: first.got_slot)
    assert first.waited == 0
    second = waiting(pipeline.open("predict", {"items": [2]}, scope=scope()))
    await until(lambda: second.seat.waiting == 1)
    third = waiting(pipeline.open("predict", {"items": [3]}, scope=scope("free=1")))  # its preprocess frees the first
    for call, total in ((first, 1), (second, 2), (third, 3)):
        assert body_of(call, await call.first())["total"] == total
        assert call.has_slot and call.seat.waiting == 0
    assert first.waited == 0 < second.waited


async def test_a_raised_http_exception_passes_and_a_stream_may_come_out_of_postprocess(pipeline: Started) -> None:
    with pytest.raises(HTTPError) as caught:
        await pipeline.ask("predict", {"items": [1]}, scope=scope(x_name="forbidden"))
    assert (caught.value.status, caught.value.message, caught.value.headers) == (403, "not you", {"x-a": "b"})
    call = pipeline.open("predict", {"items": [3]}, scope=scope(x_name="stream"))
    assert await pipeline.read(call) == [b"0", b"1", b"2"]


async def test_a_response_object_passes_with_its_own_head(pipeline: Started) -> None:
    call = pipeline.open("response", {"a": "bcdefgh"}, scope=scope())
    items = await pipeline.read(call)
    assert call.head is not None
    assert (call.head.status, call.head.raw) == (206, True)
    assert ("x-own", "yes") in call.head.headers
    assert b"".join(items).endswith(b"two")


async def test_the_models_own_health_check_is_asked(pipeline: Started) -> None:
    assert await pipeline.is_healthy() is True
    await pipeline.ask("sicken", mode=1)
    assert await pipeline.is_healthy() is False
