"""Code that asks whether its client has gone is told, and stops by itself; all other code is stopped at once."""

from __future__ import annotations

import asyncio
import functools
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from gateway.spec import ModelSpec
from gateway.wire.frames import END
from gateway.worker.bodies.request import Cancellation, PlainRequest, build
from gateway.worker.loading import disconnect_checks
from gateway.worker.loading.descriptor import describe

from .test_execution import SCOPE, Worker

pytestmark = pytest.mark.anyio
ROOT = ModelSpec(name="m", target="", root=Path("/nowhere"))
PREDICT = {"scope": SCOPE}


class Told:
    """A call of a model in this process; `events` is what its code has written."""

    def __init__(self, cls: Any, cancel_grace: float = 600.0, **call: Any) -> None:
        for function in vars(cls).values():
            if callable(function):
                function.__annotations__ = {name: Request for name in function.__annotations__ if name == "request"}
        self.begun, self.events = asyncio.Event(), []
        loop = asyncio.get_running_loop()
        cls.begin = lambda model: loop.call_soon_threadsafe(self.begun.set)
        cls.events = self.events
        self.worker = Worker(cls)
        executor = self.worker.executor
        executor._grace = cancel_grace
        executor._descriptor = disconnect_checks.mark(executor._descriptor, ROOT)
        self.id = self.worker.call(None, **{**PREDICT, **call})

    async def leave(self) -> None:
        await self.begun.wait()
        self.worker.executor.cancel(self.id)

    async def end(self) -> list[Any]:
        """What it wrote, when its code has stopped; its slot is free, and its timer gone."""
        assert (await self.worker.wire.over(self.id))[-1][0] == END
        assert self.worker.free_slots == 1
        return self.events


async def polls(self: Any, request: Request) -> Any:
    self.begin()
    try:
        while not await request.is_disconnected():  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # it aborts its engine, it writes a row
        self.events.append("left by itself")
    except asyncio.CancelledError:
        self.events.append("cancelled")
        raise


async def waits_first(self: Any, request: Request) -> Any:
    """It has not asked when its client leaves."""
    self.begin()
    try:
        await asyncio.sleep(0.05)
        self.events.append("left by itself" if await request.is_disconnected() else "?")
    except asyncio.CancelledError:
        self.events.append("cancelled")
        raise


async def receives(self: Any, request: Request) -> Any:
    """As servers written for Starlette do: the second message is the client's end."""
    self.begin()
    try:
        await request.receive()
        message = await request.receive()
        await asyncio.sleep(0.01)
        self.events.append("left by itself" if message["type"] == "http.disconnect" else "?")
    except asyncio.CancelledError:
        self.events.append("cancelled")
        raise


async def has_a_watcher(self: Any, request: Request) -> Any:
    aborted = asyncio.Event()

    async def watch() -> None:
        with request.state.watch_disconnect() as left:
            self.begin()
            await asyncio.to_thread(left.wait)
        aborted.set()

    watcher = asyncio.create_task(watch())
    try:
        await aborted.wait()
        self.events.append("left by itself")
    except asyncio.CancelledError:
        self.events.append("cancelled")
        raise
    finally:
        await watcher


async def async_items(self: Any, request: Request) -> Any:
    try:
        while True:
            yield "item"
            self.begin()
            await asyncio.sleep(0.001)
            if await request.is_disconnected():
                self.events.append("left by itself")
                return
    except BaseException as error:
        self.events.append(type(error).__name__)
        raise


def items(self: Any, request: Request) -> Any:
    try:
        with request.state.watch_disconnect() as left:
            while True:
                self.begin()
                yield "item"
                if left.is_set():
                    self.events.append("left by itself")
                    return
    except BaseException as error:
        self.events.append(type(error).__name__)
        raise


def plain(self: Any, request: Request) -> Any:
    with request.state.watch_disconnect() as left:
        self.begin()
        left.wait()
        self.events.append("left by itself")


def has_a_loop_of_its_own(self: Any, request: Request) -> Any:
    async def run() -> None:
        await request.receive()
        self.begin()
        assert (await request.receive())["type"] == "http.disconnect"
        assert await request.is_disconnected()
        self.events.append("left by itself")

    asyncio.run(run())


LOOKS = (polls, waits_first, receives, has_a_watcher, async_items, items, plain, has_a_loop_of_its_own)


@pytest.mark.parametrize("function", LOOKS)
@pytest.mark.parametrize("how", [{}, {"stream": True, "method": "chat_completions"}, {"gather": True}], ids=str)
async def test_code_that_asks_is_told_and_stops_by_itself(function: Callable[..., Any], how: dict[str, Any]) -> None:
    class Model:
        predict = chat_completions = function

    told = Told(Model, **how)
    await told.leave()
    assert await told.end() == ["left by itself"]


@pytest.mark.parametrize("step", ["preprocess", "predict", "postprocess"])
@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_each_step_of_a_predict_is_told_and_those_after_it_are_not_begun(step: str, where: str) -> None:
    class Model:
        def preprocess(self, x: Any) -> Any:
            self.events.append("preprocess")

        async def predict(self, x: Any) -> Any:
            self.events.append("predict")

        def postprocess(self, x: Any) -> Any:
            self.events.append("postprocess")

    async def on_the_loop(self: Any, x: Any, request: Request) -> Any:
        return await polls(self, request)

    def on_a_thread(self: Any, x: Any, request: Request) -> Any:
        return plain(self, request)

    steps = ["preprocess", "predict", "postprocess"]
    setattr(Model, step, on_the_loop if where == "loop" else on_a_thread)
    told = Told(Model)
    await told.leave()
    assert await told.end() == [*steps[: steps.index(step)], "left by itself"]


async def test_what_an_earlier_step_has_asked_does_not_count_for_the_next() -> None:
    class Model:
        async def preprocess(self, x: Any, request: Request) -> Any:
            return await request.is_disconnected()

        async def predict(self, gone: bool) -> Any:
            self.begin()  # type: ignore[attr-defined]
            try:
                await asyncio.sleep(3600)
            finally:
                self.events.append("cancelled")  # type: ignore[attr-defined]

    told = Told(Model)
    await told.leave()
    assert await told.end() == ["cancelled"]


async def deaf(self: Any, request: Request) -> Any:
    """It has the Request for its headers."""
    assert request.headers["x-a"] == "header"
    self.begin()
    try:
        await asyncio.sleep(3600)
    finally:
        self.events.append("cancelled")


async def deaf_items(self: Any, request: Request) -> Any:
    try:
        yield request.headers["x-a"]
        self.begin()
        await asyncio.sleep(3600)
    finally:
        self.events.append("cancelled")


@pytest.mark.parametrize("function", [deaf, deaf_items])
async def test_code_that_never_asks_is_cancelled_at_once(function: Callable[..., Any]) -> None:
    class Model:
        predict = function

    told = Told(Model)
    await told.leave()
    assert await told.end() == ["cancelled"]


async def stays(self: Any, request: Request) -> Any:
    self.begin()
    try:
        await request.is_disconnected()
        await asyncio.sleep(3600)
    finally:
        self.events.append("cancelled")


async def async_items_that_stay(self: Any, request: Request) -> Any:
    self.begin()
    try:
        while True:
            await request.is_disconnected()
            yield "item"
    finally:
        self.events.append("cancelled")


def items_that_stay(self: Any, request: Request) -> Any:
    self.begin()
    try:
        with request.state.watch_disconnect():
            while True:
                yield "item"
    finally:
        self.events.append("cancelled")


@pytest.mark.parametrize("function", [stays, async_items_that_stay, items_that_stay])
async def test_code_that_was_told_and_does_not_stop_is_cancelled_when_its_grace_is_over(
    function: Callable[..., Any],
) -> None:
    class Model:
        predict = function

    told = Told(Model, cancel_grace=0.05)
    await told.leave()
    assert await told.end() == ["cancelled"]


@pytest.mark.parametrize("function", [stays, async_items_that_stay, items_that_stay])
async def test_code_that_was_told_has_no_longer_than_its_process(function: Callable[..., Any]) -> None:
    class Model:
        predict = function

    told = Told(Model)
    await told.leave()
    assert told.events == []
    told.worker.executor.hurry(0.05)
    assert await told.end() == ["cancelled"]


async def test_a_call_that_waits_for_its_slot_is_gone_at_once_though_its_code_would_ask() -> None:
    class Model:
        predict = polls

    told = Told(Model)
    await told.begun.wait()
    waiting = told.worker.call(scope=SCOPE)
    await asyncio.sleep(0)
    told.worker.executor.cancel(waiting)
    assert (await told.worker.wire.over(waiting))[-1][0] == END
    assert not told.worker.wire.is_over(told.id)
    await told.leave()
    assert await told.end() == ["left by itself"]


# ── which code asks ──────────────────────────────────────────────────────────────────────────────────────────────────

FILES = {
    "model/own_helper.py": """
        class Engine:
            async def generate(self, prompt, request):
                while not await request.is_disconnected(): yield prompt
            async def plain(self, prompt): return prompt
        class Watcher:
            def __init__(self, request): self.request = request
            async def __aenter__(self): self.left = getattr(self.request.state, "watch_disconnect")()
            async def __aexit__(self, *error): ...
        async def aside(request): return request.headers
        """,
}


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[disconnect_checks.Named]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path / "model")
    import own_helper  # noqa: F401

    yield disconnect_checks._named_code(disconnect_checks._own_modules([tmp_path]))
    del sys.modules["own_helper"]


async def test_code_asks_when_something_of_the_models_that_it_calls_does(named: disconnect_checks.Named) -> None:
    import own_helper

    engine: Any = own_helper.Engine()

    async def by_a_method(request: Request) -> Any:
        async for item in engine.generate("x", request):
            yield item

    async def by_a_context(request: Request) -> Any:
        async with own_helper.Watcher(request):
            return await engine.plain("x")

    async def not_at_all(request: Request) -> Any:
        return await own_helper.aside(request), await engine.plain("is_disconnected is only a word here")

    @functools.wraps(by_a_context)
    async def wrapped(*args: Any) -> Any:
        return await by_a_context(*args)

    class Callable:
        async def __call__(self, request: Request) -> Any:
            return [await request.is_disconnected() for _ in range(1)]

    for function in (by_a_method, by_a_context, wrapped, functools.partial(by_a_method), Callable()):
        assert disconnect_checks.looks(function, named), function
    assert not disconnect_checks.looks(not_at_all, named)


async def test_a_method_without_the_request_is_not_looked_at() -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            return x.is_disconnected()

    marked = disconnect_checks.mark(describe(Model(), frozenset()), ROOT)
    assert not marked.methods["predict"].looks


async def test_a_request_without_starlette_tells_the_same() -> None:
    for make in (lambda left: PlainRequest(build(SCOPE, b"", left, "r").scope, b"", left), build_one):
        left = Cancellation()
        request = make(left)
        assert not left.was_asked
        assert not await request.is_disconnected()
        assert left.was_asked
        with request.state.watch_disconnect() as event:
            assert isinstance(event, threading.Event)
            assert not event.is_set()
            left.set()
            assert event.is_set()
        assert await request.is_disconnected()


def build_one(left: Cancellation) -> Any:
    return build(SCOPE, b"", left, "r")
