"""A real worker whose model waits, on its loop or for long on a thread: its log names the line while it waits."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from .started import started

pytestmark = pytest.mark.anyio

SOURCE = """
    class Model:
        async def predict(self, path):
            return self.read(path)

        def read(self, path):
            with open(path) as file:
                return file.read()
    """


async def test_the_log_of_a_model_names_the_line_that_blocks_its_loop(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # which opens when somebody writes: nothing here depends on the clock
    async with started(tmp_path, SOURCE) as found:
        answer = asyncio.create_task(found.ask("predict", str(pipe)))
        line = await found.log.find("has blocked the loop of this worker")
        assert line.startswith("predict: model/model.py:7, in read, `with open(path) as file:` has blocked")
        await asyncio.to_thread(pipe.write_text, "there")
        await found.log.find("the loop runs again")
        assert await answer == "there"


LASTING = """
    from gateway.worker.calls import long_calls as lasting

    lasting.LONG = 0.1

    class Model:
        def predict(self, path):
            with open(path) as file:
                return file.read()
    """


async def test_the_log_of_a_model_names_the_line_of_a_call_that_has_run_for_long(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with started(tmp_path, LASTING) as found:
        answer = asyncio.create_task(found.ask("predict", str(pipe)))
        line = await found.log.find("predict has run for ")
        assert "s, now at model/model.py:8, in predict, `with open(path) as file:`; if it should have ended" in line
        await asyncio.to_thread(pipe.write_text, "there")
        assert await answer == "there"


UNENDED = """
    class Model:
        def predict(self, x):
            print("thinking", end="")
    """


async def test_what_the_worker_says_begins_a_line_though_the_model_has_not_ended_its_own(tmp_path: Path) -> None:
    async with started(tmp_path, UNENDED) as found:
        await found.ask("predict", "x")
        line = await found.log.find("predict returned None")
        assert "thinking" in found.log.lines and "thinking" not in line
