"""An async method that waits without `await` is named with its line, while it does and without a cost to others."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.worker.calls import blocked_loop
from gateway.worker.calls.blocked_loop import Watch, first, where

SOURCE = """
import shutil

class Model:
    async def predict(self, wait):
        return self.fetch(wait)

    def fetch(self, wait):
        return wait(30)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked_loop, "LATE", 0.02)
    monkeypatch.setattr(blocked_loop, "LOOK", 0.01)


def model(root: Path) -> Any:
    (root / "model.py").write_text(SOURCE)
    found = importlib.util.spec_from_file_location("blocking_model", root / "model.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.Model()


class Told:
    """What the watch says, and events for it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.blocked, self.free = threading.Event(), threading.Event()

    def say(self, text: str) -> None:
        self.lines.append(text)
        (self.free if text.startswith("the loop runs again") else self.blocked).set()


async def beating(watch: Watch, interval: float) -> None:
    while True:
        watch.beat()
        await asyncio.sleep(interval)


async def blocks(told: Told, root: Path, wait: Callable[[float], bool]) -> bool:
    watch = Watch(0.01, told.say)
    heart = asyncio.create_task(beating(watch, 0.01))
    await asyncio.sleep(0)
    watch.start([str(root)])
    found: bool = await model(root).predict(wait)
    await asyncio.to_thread(told.free.wait, 30)
    heart.cancel()
    return found


def test_the_line_at_which_the_model_waits_is_told_while_it_waits_and_when_it_is_over(tmp_path: Path) -> None:
    told = Told()
    assert asyncio.run(blocks(told, tmp_path, told.blocked.wait))  # which ends only when it was told
    line, end = told.lines
    assert line.startswith("predict: model.py:9, in fetch, `return wait(30)` (in ")
    assert "threading.py" in line and "the loop of this worker for " in line and "asyncio.to_thread" in line
    assert end.startswith("the loop runs again, ")


def frame(file: str, name: str = "f", line: int | None = 1, traced: Any = None) -> Any:
    code = SimpleNamespace(co_filename=file, co_name=name, co_firstlineno=7)
    return SimpleNamespace(f_code=code, f_lineno=line, f_trace=traced)


OURS = frame(str(Path(blocked_loop.__file__).with_name("executor.py")))


def test_a_loop_that_waits_for_its_next_event_or_runs_our_code_is_not_blocked_by_the_model() -> None:
    runner = frame(asyncio.runners.__file__)
    assert first([OURS, runner], ["/m"]) is None


def test_the_model_is_named_before_a_library_and_a_library_where_no_file_is_the_models() -> None:
    library, own = frame("/lib/x.py"), frame("/m/model.py")
    assert first([OURS, library, own], ["/m"]) is own
    assert first([OURS, library, frame("/m2/model.py")], ["/m"]) is library
    assert where([OURS, library], ["/m"]) == "/lib/x.py:1, in f"


def test_code_that_a_debugger_holds_is_let_alone() -> None:
    assert first([OURS, frame("/m/model.py", traced=print)], ["/m"]) is None


def test_of_many_short_steps_none_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    watch = Watch(0.01, told.say)
    steps = iter([[frame("/m/model.py")], [frame("/m/model.py")]])
    ours, look = threading.get_ident(), blocked_loop.stack_of  # the threads of other tests' watches go on

    def stack_of(thread: int) -> Any:
        return next(steps) if threading.get_ident() == ours else look(thread)

    monkeypatch.setattr(blocked_loop, "stack_of", stack_of)
    watch._look()
    assert told.lines == [] and next(steps, None) is None  # it looked twice


def test_a_frame_between_two_lines_is_told_by_the_first_line_of_its_function() -> None:
    assert where([OURS, frame("/lib/x.py", line=None)], ["/m"]) == "/lib/x.py:7, in f"
