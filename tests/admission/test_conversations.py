"""Stored conversations that are being read share a quarter of what bodies may have."""

from __future__ import annotations

import asyncio

import pytest

from gateway.admission.shares import Shares


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_conversations_wait_in_line_for_a_quarter_of_what_bodies_may_have() -> None:
    shares = Shares(max_bytes=200)
    room = shares.conversations
    await room.hold(70)  # one goes, however large
    waiting = [asyncio.ensure_future(room.hold(size)) for size in (30, 10, 5)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)
    assert not any(task.done() for task in (waiting[0], waiting[2])) and shares.bytes == 70
    room.let_go(70)
    await asyncio.gather(waiting[0], waiting[2])
    assert room.size == shares.bytes == 35
    late = asyncio.ensure_future(room.hold(40))
    await asyncio.sleep(0)
    room.let_go(35)
    late.cancel()  # it was given its room a moment ago
    await asyncio.gather(late, return_exceptions=True)
    assert room.size == shares.bytes == 0
