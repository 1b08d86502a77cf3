"""The file of the settings is followed: each change is told once, when it has been written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes import VirtualLoop

from gateway.hosting.settings_file import POLL, changes_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


async def test_a_change_is_told_once_when_nobody_writes_any_more_be_it_the_first_or_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(work: Any, *arguments: Any) -> Any:
        return work(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    file, told = tmp_path / "gateway.toml", 0

    async def follow() -> None:
        nonlocal told
        async for _ in changes_of(file):
            told += 1

    following = asyncio.create_task(follow())
    await asyncio.sleep(POLL * 3.5)
    assert told == 0
    for size in range(1, 4):  # it comes, in several steps
        file.write_text("#" * size)
        await asyncio.sleep(POLL)
        assert told == 0
    await asyncio.sleep(POLL * 3)
    assert told == 1
    file.unlink()
    await asyncio.sleep(POLL * 3)
    assert told == 2
    following.cancel()
