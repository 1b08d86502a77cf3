"""Threads that run model code report back in order, whatever the code raises, and never more of them than agreed."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from gateway.worker.calls.threads import Outbox, Pool, finish

pytestmark = pytest.mark.anyio


def make(size: int = 2) -> tuple[Pool, Outbox]:
    outbox = Outbox(asyncio.get_running_loop())
    return Pool(size, "test", outbox), outbox


async def test_what_threads_put_is_called_on_the_loop_in_order() -> None:
    _, outbox = make()
    seen: list[Any] = []
    done = asyncio.Event()
    here = threading.get_ident()

    def put() -> None:
        for number in range(1000):
            outbox.put(lambda n: seen.append((n, threading.get_ident() == here)), number)
        outbox.put(done.set)

    threading.Thread(target=put).start()
    await done.wait()
    assert seen == [(number, True) for number in range(1000)]


async def test_one_callback_that_fails_does_not_take_the_others_with_it() -> None:
    _, outbox = make()
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["exception"]))
    seen: list[str] = []
    done = asyncio.Event()

    def fail() -> None:
        raise ValueError("one")

    outbox.put(seen.append, "before")
    outbox.put(fail)
    outbox.put(seen.append, "after")
    outbox.put(done.set)
    await done.wait()
    assert seen == ["before", "after"]
    assert [str(failure) for failure in failures] == ["one"]


async def test_a_pool_starts_no_more_threads_than_its_size_and_none_before_it_must() -> None:
    pool, _ = make(2)
    gate, names, running = threading.Event(), set(), threading.Semaphore(0)

    def job() -> None:
        names.add(threading.current_thread().name)
        running.release()
        gate.wait()

    jobs = [asyncio.create_task(pool.run(job)) for _ in range(5)]
    await asyncio.sleep(0)
    for _ in range(2):
        await asyncio.to_thread(running.acquire)
    assert names == {"test-1", "test-2"}
    gate.set()
    await asyncio.gather(*jobs)
    assert len(names) == 2


async def test_an_idle_thread_is_used_again() -> None:
    pool, _ = make(8)
    for _ in range(20):
        await pool.run(lambda: None)
        while not pool._idle:  # noqa: ASYNC110  (its rest is reported after its result)
            await asyncio.sleep(0)
    assert pool._threads == 1


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()], ids=repr)
async def test_whatever_code_raises_reaches_its_caller(error: BaseException) -> None:
    pool, _ = make()

    def job() -> None:
        raise error

    caught: BaseException | None = None
    try:
        await pool.run(job)
    except BaseException as raised:
        caught = raised
    assert caught is error


async def test_a_stop_iteration_which_no_future_can_carry_becomes_a_runtime_error() -> None:
    pool, _ = make()
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        await pool.run(next, iter(()))
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_context_variables_follow_into_the_thread() -> None:
    pool, _ = make()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")
    assert await pool.run(variable.get) == "here"


async def test_a_cancelled_caller_waits_for_the_code_which_cannot_be_stopped() -> None:
    pool, _ = make()
    gate, began, ended = threading.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def job() -> None:
        loop.call_soon_threadsafe(began.set)
        gate.wait()
        ended.append(True)

    task = asyncio.create_task(pool.run(job))
    await began.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended == [True]


async def test_the_error_of_code_whose_caller_was_cancelled_is_retrieved() -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(finish(future))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    future.set_exception(ValueError("late"))
    await asyncio.wait([task])
    assert task.cancelled()
    del future, task
    await asyncio.sleep(0)
    assert problems == []


async def test_a_thread_keeps_nothing_of_its_last_job() -> None:
    import gc
    import weakref

    class Data:
        pass

    pool, _ = make(1)
    data = Data()
    gone = weakref.ref(data)
    await pool.run(lambda value: None, data)
    del data
    await pool.run(lambda: None)  # so that the thread has come back from the first
    gc.collect()
    assert gone() is None
