"""Of what is begun under one name the newest counts, and whoever waits for what was before it gets its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fakes import VirtualLoop, turns

from gateway.hosting.newest_order import GivenUp, Newest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


class Works:
    """Each hangs until it is let go, and takes a second to leave when it is given up."""

    def __init__(self) -> None:
        self.newest, self.done = Newest(), list[str]()
        self.free = asyncio.Event()

    def begin(self, word: str, name: str = "m", error: Exception | None = None) -> asyncio.Task[None]:
        return asyncio.create_task(self.newest.run(name, self._work(word, error)))

    def _work(self, word: str, error: Exception | None) -> Callable[[], Any]:
        async def work() -> None:
            try:
                await self.free.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(1)
                self.done.append(f"{word} left")
                raise
            self.done.append(word)
            if error is not None:
                raise error

        return work


async def test_each_newer_one_ends_all_before_it_and_begins_when_nothing_is_left_of_them() -> None:
    works = Works()
    waiting = []
    for word in ("a", "b", "c"):
        waiting.append(works.begin(word))
        await turns()
    other = works.begin("other", name="n")
    works.free.set()
    await asyncio.gather(*waiting, other)
    assert works.done == ["other", "a left", "c"]  # b had not begun


async def test_whoever_waits_hears_how_the_newest_failed() -> None:
    works = Works()
    first = works.begin("a")
    await turns()
    second = works.begin("b", error=ValueError("no good"))
    works.free.set()
    for task in (first, second):
        with pytest.raises(ValueError, match="no good"):
            await task


async def test_whoever_leaves_ends_what_it_began_and_who_waited_for_that_is_told() -> None:
    works = Works()
    first = works.begin("a")
    await turns()
    second = works.begin("b")
    await asyncio.sleep(2)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert works.done == ["a left", "b left"]
    with pytest.raises(GivenUp):
        await first


async def test_whoever_leaves_does_not_end_what_came_in_the_place_of_its_own() -> None:
    works = Works()
    first = works.begin("a")
    await turns()
    second = works.begin("b")
    await asyncio.sleep(2)
    first.cancel()
    await asyncio.sleep(2)
    works.free.set()
    await second
    assert works.done == ["a left", "b"] and first.cancelled()
    await works.begin("c")  # and nothing is left that could be in its way
    assert works.done[-1] == "c"
