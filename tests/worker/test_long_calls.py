"""A call that has run for long is told once, with the line at which it is now, and as no fault."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.worker.calls import long_calls
from gateway.worker.calls.long_calls import LONG, LONG_LOAD, Lasting
from gateway.worker.calls.run import Run

SOURCE = """
def predict(wait):
    return step(wait)

def step(wait):
    return wait()
"""


class Bench:
    """Threads of a pool that run the code of a model until they are let go, and a clock that is set by hand."""

    def __init__(self, root: Path) -> None:
        self.now, self.lines, self.threads = 0.0, list[str](), dict[int, Any]()
        self._root, self._ends = root, dict[int, Callable[[], None]]()
        self.lasting = Lasting(self.lines.append)
        self.lasting.of("m", [str(root)])
        self.lasting.begun.append(self.threads)

    def begin(self, *args: Any) -> int:
        """The thread that runs it."""
        began, end = threading.Event(), threading.Event()

        def wait() -> None:
            began.set()
            end.wait()

        thread = threading.Thread(target=code(self._root).predict, args=(wait,))
        thread.start()
        began.wait()
        assert thread.ident is not None

        def let_go() -> None:
            end.set()
            thread.join()

        self.threads[thread.ident] = (self.now, args)
        self._ends[thread.ident] = let_go
        return thread.ident

    def end(self, thread: int) -> None:
        self._ends.pop(thread)()
        self.threads.pop(thread, None)

    def look(self, seconds: float) -> list[str]:
        """What is said after so many seconds more."""
        self.now += seconds
        self.lines.clear()
        self.lasting.look()
        return list(self.lines)

    def close(self) -> None:
        for thread in list(self._ends):
            self.end(thread)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    found = Bench(tmp_path)
    monkeypatch.setattr(long_calls, "time", SimpleNamespace(monotonic=lambda: found.now))
    yield found
    found.close()


def code(root: Path) -> Any:
    (root / "model.py").write_text(SOURCE)
    found = importlib.util.spec_from_file_location("lasting_model", root / "model.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_a_call_that_has_run_for_long_is_told_once_with_its_line_and_what_to_do(bench: Bench) -> None:
    bench.begin()
    assert bench.look(LONG - 1) == []
    (line,) = bench.look(2)
    assert line.startswith(f"predict has run for {LONG + 1:.0f} s, now at model.py:6, in step, `return wait()` (in ")
    assert "if it should have ended by now, mend it: `gateway reload m`, or serve --reload by itself" in line
    assert bench.look(600) == []


def test_each_call_is_told_and_one_that_takes_as_long_as_those_before_is_not(bench: Bench) -> None:
    first, _second = bench.begin(), bench.begin()
    assert len(bench.look(LONG + 1)) == 2
    bench.look(9)
    bench.end(first)
    bench.look(1)
    bench.begin()  # while the second runs on
    assert bench.look(2 * LONG + 9) == []
    assert len(bench.look(2 * LONG)) == 1


def test_a_thread_that_has_begun_another_call_has_not_run_for_long(bench: Bench) -> None:
    thread = bench.begin()
    assert bench.look(LONG - 1) == []
    bench.threads[thread] = (bench.now, ())
    assert bench.look(LONG - 1) == []
    assert len(bench.look(2)) == 1


def test_a_stream_is_told_of_when_its_next_item_does_not_come(bench: Bench) -> None:
    head: Any = SimpleNamespace()
    run = Run(1, head, b"", head, head)
    bench.begin(run)
    for _ in range(5):
        run.window.count(1)
        assert bench.look(LONG - 1) == []
    assert len(bench.look(LONG + 1)) == 1


def test_a_stream_that_waits_for_its_client_is_nothing_to_tell_of(bench: Bench) -> None:
    waits = threading.Event()
    thread = threading.Thread(target=waits.wait)
    thread.start()
    assert thread.ident is not None
    bench.threads[thread.ident] = (bench.now, ())
    assert bench.look(LONG + 1) == []
    waits.set()
    thread.join()


def test_a_load_has_more_time_until_it_is_told_of(bench: Bench) -> None:
    thread = bench.begin()
    bench.lasting.loading[thread] = bench.threads.pop(thread)
    assert bench.look(LONG_LOAD - 1) == []
    (line,) = bench.look(2)
    assert line.endswith("begins anew")


def test_nothing_of_a_call_is_kept(bench: Bench) -> None:
    import gc
    import weakref

    class Data:
        pass

    data = Data()
    gone = weakref.ref(data)
    thread = bench.begin(data)
    bench.look(LONG + 1)
    del data, bench.threads[thread]
    gc.collect()
    assert gone() is None
