"""A large body finds the memory of the last one: the system would clear it page by page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .started import KITCHEN, METHODS, started

pytestmark = pytest.mark.anyio

CALLS = 20
FEW = 100  # pages a call; a megabyte has 256, and is there several times


def faults_of(pid: int | None) -> int:
    """How many pages the system has given to the process since its start."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


async def test_a_large_body_takes_no_new_memory(tmp_path: Path) -> None:
    body = json.dumps("a" * 1_000_000).encode()
    async with started(tmp_path, KITCHEN, *METHODS) as found:

        async def echo() -> bytes:
            with found.open("predict", body) as call:
                await call.first()
                return bytes(call.reply)

        for _ in range(CALLS):
            await echo()
        before = faults_of(found.replica.pid)
        for _ in range(CALLS):
            assert await echo() == body
        assert faults_of(found.replica.pid) - before < CALLS * FEW
