from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import VirtualLoop, chat, launch_of, predict, turns

from gateway.errors import (
    MODEL_RAISED,
    Crashed,
    GatewayError,
    HTTPError,
    InvalidJSON,
    InvalidOutput,
    RouteNotSupported,
    TooLarge,
)
from gateway.runners.call import Call
from gateway.runners.pending import ClientLeft
from gateway.runners.question import about_health, about_new_code
from gateway.runners.replica import LoadError
from gateway.runners.tasks import END_GRACE, TaskReplica
from gateway.spec import Capabilities, Limits, MethodInfo, ModelSpec
from gateway.wire.frames import BYTES, DATA, WINDOW_ITEMS
from gateway.wire.values import encode

SPEC = ModelSpec(name="m", target="", root=Path())
Answer = Callable[[Any], Any]


class Played(TaskReplica):
    """Its one method is a function of the test."""

    def __init__(self, play: Answer) -> None:
        super().__init__(launch_of(SPEC, 0))
        self.play, self.unloads = play, 0
        self.ended: list[Call] = []
        self.lines: list[str] = []
        object.__setattr__(self.launch, "on_log", self.lines.append)

    async def load(self) -> Capabilities:
        return Capabilities(
            methods=tuple(MethodInfo(name=name, kind="async") for name in ("predict", "chat_completions"))
        )

    def answer(self, method: str, inputs: Any) -> Any:
        return self.play(inputs)

    async def unload(self) -> None:
        self.unloads += 1

    async def is_healthy(self) -> Any:
        return await self.play(None)

    def begin(self, req: Any, body: bytes) -> Call:
        call = Call(req, body, Limits(), asyncio.get_running_loop())
        self.open(call, self.ended.append)
        return call


def run(test: Any) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(test)


async def started(play: Answer) -> Played:
    replica = Played(play)
    await replica.start()
    return replica


async def told(inputs: Any) -> Any:
    return {"told": inputs}


def test_a_value_is_the_whole_answer_in_the_words_of_its_route() -> None:
    async def test() -> None:
        replica = await started(told)
        call = replica.begin(predict(method="chat_completions", mode=DATA), encode({"a": 1}))
        head = await call.first()
        assert (head.final, call.reply) == (True, {"told": {"a": 1}})
        call = replica.begin(predict(), b'{"a": 1}')
        assert ((await call.first()).content_type, call.reply) == ("application/json", b'{"told":{"a":1}}')
        await turns()
        assert len(replica.ended) == 2 and list(replica.calls()) == []

    run(test())


@pytest.mark.parametrize(
    ("items", "kind", "sent"),
    [
        (("a", b"b"), "application/octet-stream", [b"a", b"b"]),
        ((1, {"a": 2}), "application/x-ndjson", [b"1\n", b'{"a":2}\n']),
        ((), "application/octet-stream", []),
    ],
)
def test_the_values_of_an_iterator_are_a_stream(items: Any, kind: str, sent: list[bytes]) -> None:
    async def play(inputs: Any) -> Any:
        for item in items:
            yield item

    async def test() -> None:
        replica = await started(play)
        call = replica.begin(predict(), b"{}")
        assert (await call.first()).content_type == kind
        found: list[bytes] = []
        while (more := await call.take()) is not None:
            found += more
        assert found == sent
        call = replica.begin(chat(), encode({}))
        await call.first()
        assert (await call.take() or []) == list(items)

    run(test())


def test_a_stream_runs_no_further_ahead_than_its_window() -> None:
    made: list[int] = []

    async def play(inputs: Any) -> Any:
        for number in range(WINDOW_ITEMS * 3):
            made.append(number)
            yield number

    async def test() -> None:
        replica = await started(play)
        call = replica.begin(chat(), encode({}))
        await turns(WINDOW_ITEMS * 5)
        assert len(made) == WINDOW_ITEMS + 1
        found: list[int] = []
        while (more := await call.take()) is not None:
            found += more
        assert found == made == list(range(WINDOW_ITEMS * 3))

    run(test())


def raises(error: BaseException) -> Answer:
    async def play(inputs: Any) -> Any:
        raise error

    return play


@pytest.mark.parametrize(
    ("play", "body", "expected", "message"),
    [
        (raises(HTTPError(404, "none here")), b"{}", HTTPError, "none here"),
        (raises(ValueError("boom")), b"{}", GatewayError, MODEL_RAISED),
        (lambda inputs: asyncio.sleep(0, object()), b"{}", InvalidOutput, "cannot be written as JSON"),
        (told, b"{", InvalidJSON, "not valid JSON"),
    ],
)
def test_what_a_call_raises_is_what_its_client_gets(play: Answer, body: bytes, expected: type, message: str) -> None:
    async def test() -> None:
        replica = await started(play)
        call = replica.begin(predict(), body)
        with pytest.raises(expected) as caught:
            await call.first()
        assert message in str(caught.value)
        await turns()
        assert replica.ended == [call]
        if message == MODEL_RAISED:
            (text,) = replica.lines
            assert text.startswith("[r] ERROR runner: predict failed: ValueError: boom\nTraceback ")
        else:
            assert replica.lines == []

    run(test())


def test_a_method_that_it_lacks_is_no_route() -> None:
    async def test() -> None:
        replica = await started(told)
        with pytest.raises(RouteNotSupported):
            await replica.begin(predict(method="hot_reload"), b"").first()

    run(test())


@pytest.mark.parametrize("begins", [True, False])
def test_a_cancelled_call_ends_when_its_code_has_stopped(begins: bool) -> None:
    stopped: list[str] = []

    async def play(inputs: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("stopped")

    async def test() -> None:
        replica = await started(play)
        call = replica.begin(predict(), b"{}")
        if begins:
            await turns()
        call.client_left()
        await turns()
        assert replica.ended == [call] and call.ended
        assert isinstance(call.error, ClientLeft)
        assert stopped == ["stopped"] * begins

    run(test())


def test_a_stop_waits_for_the_calls_and_a_kill_does_not() -> None:
    go = asyncio.Event()

    async def play(inputs: Any) -> Any:
        await go.wait()
        return 1

    async def test() -> None:
        replica = await started(play)
        call = replica.begin(predict(), b"{}")
        asyncio.get_running_loop().call_later(1, go.set)
        await replica.stop(5)
        assert (call.reply, call.error, replica.unloads) == (b"1", None, 1)
        assert replica.lost.result() == "stopped"
        with pytest.raises(ConnectionError):
            replica.begin(predict(), b"{}")

        go.clear()
        replica = await started(play)
        call = replica.begin(predict(), b"{}")
        await replica.stop(5)
        assert isinstance(call.error, Crashed) and replica.ended == [call]
        await replica.kill("again")
        assert replica.unloads == 1

    run(test())


def test_the_code_of_all_calls_has_stopped_before_the_unload_and_until_then_no_call_has_ended() -> None:
    go, order = asyncio.Event(), []

    async def play(inputs: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            await go.wait()
            order.append("stopped")

    async def test() -> None:
        replica = await started(play)
        replica.unload = lambda: asyncio.sleep(0, order.append("unloaded"))  # type: ignore[method-assign]
        call = replica.begin(predict(), b"{}")
        await turns()
        end = asyncio.create_task(replica.kill("over"))
        await turns()
        assert replica.lost.result() == "over" and isinstance(call.error, Crashed)  # its client need not wait
        assert (order, replica.ended, list(replica.calls())) == ([], [], [call])
        assert list(replica.pending()) == []  # nobody has to kill it for this one
        go.set()
        await end
        assert order == ["stopped", "unloaded"] and replica.ended == [call]
        assert isinstance(call.error, Crashed)

    run(test())


@pytest.mark.parametrize("cancelled", [True, False])
def test_all_who_end_a_replica_wait_for_the_same_end(cancelled: bool) -> None:
    go = asyncio.Event()

    async def test() -> None:
        replica = await started(told)
        replica.unload = go.wait  # type: ignore[assignment, method-assign]
        first = asyncio.create_task(replica.kill("over"))
        later = [asyncio.create_task(end) for end in (replica.kill("lost"), replica.stop(0))]
        await turns()
        if cancelled:
            first.cancel()
        await turns()
        assert not any(each.done() for each in later)
        go.set()
        await asyncio.gather(*later)
        assert replica.lost.result() == "over" and replica.lines == []

    run(test())


def test_neither_code_nor_an_unload_that_does_not_stop_holds_up_the_end() -> None:
    async def stubborn(*inputs: Any) -> None:
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                if go.is_set():
                    raise

    go = asyncio.Event()

    async def test() -> None:
        replica = await started(stubborn)
        replica.unload = stubborn  # type: ignore[method-assign]
        call = replica.begin(predict(), b"{}")
        await turns()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await replica.stop(1)
        assert loop.time() - began == pytest.approx(1 + 3 * END_GRACE, abs=0.1)
        assert replica.ended == [call] and call.ended
        assert replica.lines == [
            "[r] ERROR runner: predict does not stop",
            f"ERROR runner: the unload took longer than {END_GRACE:g} s and was given up",
        ]
        go.set()

    run(test())


def test_an_unload_has_all_that_is_left_of_the_grace() -> None:
    async def test() -> None:
        replica = await started(told)
        replica.unload = lambda: asyncio.sleep(END_GRACE * 3)  # type: ignore[method-assign]
        await replica.stop(END_GRACE * 4)
        assert replica.lines == []

    run(test())


@pytest.mark.parametrize(
    ("error", "reason"), [(LoadError("no key"), "no key"), (OSError("no route"), "OSError: no route")]
)
def test_a_load_that_fails_leaves_nothing_behind_and_says_why(error: Exception, reason: str) -> None:
    async def test() -> None:
        replica = Played(told)
        replica.load = raises(error).__get__(replica)  # type: ignore[attr-defined, method-assign]
        with pytest.raises(LoadError) as caught:
            await replica.start()
        assert str(caught.value) == reason
        assert replica.unloads == 1 and replica.lost.done()
        assert (await replica.scrape(), await replica.owns(1, 2), replica.pid) == (b"", False, None)

    run(test())


def test_an_unload_that_fails_is_in_the_log_of_the_model() -> None:
    async def test() -> None:
        replica = await started(told)
        replica.unload = lambda: raises(OSError("stuck"))(None)  # type: ignore[method-assign]
        await replica.kill("over")
        (text,) = replica.lines
        assert text.startswith("ERROR runner: the unload failed: OSError: stuck\nTraceback ")

    run(test())


def test_a_body_of_bytes_is_read_as_json_and_let_go() -> None:
    async def test() -> None:
        replica = await started(told)
        call = replica.begin(predict(), b"[1]")
        await call.first()
        assert (call.req.mode, call.body) == (BYTES, b"")

    run(test())


def test_a_body_that_would_take_too_long_to_read_is_refused() -> None:
    async def test() -> None:
        replica = await started(told)
        with pytest.raises(TooLarge, match="the body holds so many values that it would take too long to read; send"):
            await replica.begin(predict(), b"[" + b"[]," * 2_000_000 + b"[]]").first()

    run(test())


# ── what the gateway itself asks ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("says", "healthy"), [(True, True), ("", False), (None, None)])
def test_it_is_asked_how_it_is_and_takes_no_call_for_that(says: Any, healthy: Any) -> None:
    async def test() -> None:
        replica = await started(lambda inputs: asyncio.sleep(0, says))
        question = about_health(Limits())
        replica.ask(question)
        assert list(replica.pending()) == [question] and list(replica.calls()) == []
        assert await question.answer() is healthy
        assert list(replica.pending()) == [] and question.ended

    run(test())


def test_a_check_that_raises_is_in_the_log_and_an_error() -> None:
    async def test() -> None:
        replica = await started(raises(ValueError("boom")))
        question = about_health(Limits())
        replica.ask(question)
        with pytest.raises(GatewayError) as caught:
            await question.answer()
        assert caught.value.message == MODEL_RAISED
        assert replica.lines[0].startswith("[is_healthy] ERROR runner: is_healthy failed: ValueError: boom\n")

    run(test())


def test_a_class_cannot_be_swapped_where_there_is_none() -> None:
    async def test() -> None:
        replica = await started(told)
        question = about_new_code(Limits())
        replica.ask(question)
        with pytest.raises(RouteNotSupported, match="reload the model"):
            await question.answer()

    run(test())


def test_a_question_that_is_cancelled_ends_and_one_of_a_replica_that_ends_is_an_error() -> None:
    async def test() -> None:
        replica = await started(lambda inputs: asyncio.sleep(3600))
        left, lost = about_health(Limits()), about_health(Limits())
        replica.ask(left)
        replica.ask(lost)
        left.cancel()
        await turns()
        assert left.ended and left.error is None and not lost.ended
        await replica.kill("the test is over")
        with pytest.raises(Crashed):
            await lost.answer()
        with pytest.raises(ConnectionError):
            replica.ask(about_health(Limits()))

    run(test())
