"""Lines of models are kept, and go to whoever follows them, in their order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.telemetry.log_tails import AHEAD, TAIL, Tails

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio"


def test_the_last_lines_of_each_model_are_kept_and_those_of_all_are_in_their_order() -> None:
    tails = Tails()
    tails.add("a", "one")
    tails.add("b", "Traceback\n  line\nError")
    tails.add("a", "two")
    for number in range(TAIL + 5):
        tails.add("c", str(number))
    assert tails.of("a") == ["one", "two"] and tails.of("nobody") == []
    assert tails.of("c")[0] == "5" and len(tails.of("c")) == TAIL
    assert [line.text for line in tails.last(3, {"a", "b"}.__contains__)] == ["  line", "Error", "two"]
    assert tails.last(0, lambda model: True) == []


async def test_a_follower_gets_what_comes_of_the_models_that_it_wants() -> None:
    tails = Tails()
    tails.add("a", "before")
    with tails.follow("a".__eq__) as follower:
        tails.add("b", "of another")
        tails.add("a", "one\ntwo")
        assert [line.text for line in await follower.lines()] == ["one", "two"]
        tails.add("a", "last")
        tails.close()
        assert [line.text for line in await follower.lines()] == ["last"]
        assert await follower.lines() == []
    tails.add("a", "nobody follows")


async def test_a_follower_that_may_not_follow_any_more_gets_no_line_that_waits_or_comes() -> None:
    tails, seen = Tails(), {"a", "b"}
    with tails.follow(lambda model: model in seen) as follower:
        tails.add("a", "waits")
        tails.add("b", "is still seen")
        seen.remove("a")
        assert [line.text for line in await follower.lines()] == ["is still seen"]
        tails.add("b", "waits")
        seen.clear()
        reads = asyncio.ensure_future(follower.lines())
        await asyncio.sleep(0)
        seen.add("b")
        tails.add("b", "is seen again")
        assert [line.text for line in await reads] == ["is seen again"]
        tails.add("b", "waits")
        follower.abandon(PermissionError())
        tails.add("b", "comes")
        assert await follower.lines() == []


async def test_a_follower_that_does_not_read_loses_the_oldest_and_is_told_how_many() -> None:
    tails = Tails()
    with tails.follow(lambda model: True) as follower:
        for number in range(AHEAD + 3):
            tails.add("a", str(number))
        lines = [line.text for line in await follower.lines()]
        assert lines[:2] == ["... 3 lines dropped: they arrived faster than they were read", "3"]
        assert len(lines) == AHEAD + 1
        tails.add("a", "and on")
        assert [line.text for line in await follower.lines()] == ["and on"]
