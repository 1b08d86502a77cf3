"""A stream runs ahead of its client by one window and not further; a cancel wakes whoever waits."""

from __future__ import annotations

import asyncio
import queue
import threading

import pytest

from gateway.wire.frames import WINDOW_BYTES, WINDOW_ITEMS
from gateway.worker.calls.credit_window import Window

pytestmark = pytest.mark.anyio


def fill(window: Window, size: int = 1) -> int:
    count = 0
    while window.has_room:
        window.count(size)
        count += 1
    return count


def test_a_window_holds_so_many_items() -> None:
    assert fill(Window()) == WINDOW_ITEMS


def test_a_window_holds_so_many_bytes_and_the_item_that_reaches_beyond() -> None:
    assert fill(Window(), WINDOW_BYTES // 2 + 1) == 2
    assert fill(Window(), 10 * WINDOW_BYTES) == 1


def test_what_is_granted_can_be_sent_again() -> None:
    window = Window()
    fill(window)
    window.grant(10, 10)
    assert fill(window) == 10


def test_a_grant_of_more_than_was_sent_widens_nothing() -> None:
    """The gateway counts frames, which are some bytes longer than their items; over hours that would add up."""
    window = Window()
    window.count(100)
    window.grant(50, 10_000_000)
    assert fill(window) == WINDOW_ITEMS
    assert fill(Window(), WINDOW_BYTES) == 1


def test_a_thread_without_credit_sleeps_until_it_is_granted() -> None:
    window, sent = Window(), queue.SimpleQueue[int]()
    fill(window)

    def produce() -> None:
        for number in range(3):
            if not window.wait():
                return
            window.count(1)
            sent.put(number)

    thread = threading.Thread(target=produce)
    thread.start()
    for granted in range(3):
        assert sent.empty()
        window.grant(1, 1)
        assert sent.get() == granted
    thread.join()


def test_a_cancel_wakes_a_thread_without_credit() -> None:
    for _ in range(200):  # whether it sleeps already or is about to
        window, answers = Window(), []
        fill(window)
        thread = threading.Thread(target=lambda window=window, answers=answers: answers.append(window.wait()))
        thread.start()
        window.close()
        thread.join()
        assert answers == [False]
        assert window.wait() is False


def test_grants_and_waits_on_two_threads_never_miss_each_other() -> None:
    window, total = Window(), 3_000
    errors: list[BaseException] = []

    def produce() -> None:
        for _ in range(total):
            window.wait()
            window.count(1)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        granted = 0
        while granted < total:
            ahead = window._sent - granted
            if ahead:
                window.grant(ahead, ahead)
                granted += ahead
            else:
                window._wake()  # as a grant of another kind would
    except BaseException as error:
        errors.append(error)
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert errors == []


async def test_a_coroutine_without_credit_sleeps_until_it_is_granted_or_cancelled() -> None:
    window = Window()
    fill(window)
    waiting = asyncio.create_task(window.wait_async())
    await asyncio.sleep(0)
    assert not waiting.done()
    window.grant(1, 1)
    await waiting
    fill(window)
    waiting = asyncio.create_task(window.wait_async())
    await asyncio.sleep(0)
    window.close()
    await waiting


async def test_a_coroutine_that_is_cancelled_leaves_the_window_usable() -> None:
    window = Window()
    fill(window)
    waiting = asyncio.create_task(window.wait_async())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    window.grant(1, 1)
    await window.wait_async()
