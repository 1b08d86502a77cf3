"""Who takes nothing of an answer is cut off, who takes it slowly gets all of it."""

from __future__ import annotations

import asyncio

import pytest
from fakes import VirtualLoop

from gateway.http.stall import SOME, Stall

SPAN = 30.0


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.waits, self.aborted = 10 * SOME, False

    def get_write_buffer_size(self) -> int:
        return self.waits

    def abort(self) -> None:
        self.aborted = True


async def after(spans: int, takes: int) -> Transport:
    """What has become of a connection whose client takes so much in each span."""
    transport = Transport()
    stall = Stall(transport, asyncio.get_running_loop(), SPAN)
    await asyncio.sleep(0.5 * SPAN)
    for _ in range(spans):
        transport.waits -= takes
        await asyncio.sleep(SPAN)
    stall.cancel()
    return transport


@pytest.mark.parametrize("takes", [0, 1, SOME - 1])
def test_who_takes_less_than_some_of_it_is_cut_off(takes: int) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(after(1, takes)).aborted


def test_who_takes_some_of_it_in_each_span_is_not() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert not runner.run(after(9, SOME)).aborted
