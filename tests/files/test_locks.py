"""Locks of ours: nobody waits for one without end, and who does is told for whom."""

from __future__ import annotations

import ast
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.files import locks

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def held(path: Path) -> Iterator[None]:
    descriptor = locks.opened(path)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def test_a_wait_ends_with_an_error_that_names_the_lock_and_its_holder(tmp_path: Path) -> None:
    place = tmp_path / "lo\x1bck"
    told: list[str] = []
    with (
        held(place),
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(ConfigError) as caught,
    ):
        patch.setattr(locks, "TOLD", 0.05)
        with locks.locked(place, 0.2, told.append, why="m cannot be fetched"):
            raise AssertionError("it is locked")
    assert str(caught.value).startswith(f"m cannot be fetched: {tmp_path}/lo\\x1bck has been locked by ")
    assert "for more than 0.2 s" in str(caught.value) and f"process {os.getpid()} (" in str(caught.value)
    assert len(told) == 1 and told[0].startswith(f"waiting for {tmp_path}/lo\\x1bck, which is locked by process ")


def test_a_lock_that_becomes_free_is_taken_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "TOLD", 0.0)
    entered, waits, order = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        with locks.locked(tmp_path / "lock"):
            entered.set()
            assert waits.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with locks.locked(tmp_path / "lock", 10, lambda text: waits.set()):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    with locks.locked(tmp_path / "lock", 0):
        pass


def test_a_lock_file_can_be_read_by_nobody(tmp_path: Path) -> None:
    """What can be read can be locked, by a strict model too."""
    (tmp_path / "from before").touch(0o644)
    for name in ("new", "from before"):
        with locks.locked(tmp_path / name):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o200


def test_what_is_no_file_of_ours_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError), locks.locked(tmp_path / name, 0):
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_nobody_else_waits_for_a_lock() -> None:
    """`scratch.py` takes one or goes on without."""
    found = {}
    for file in (*ROOT.glob("gateway/**/*.py"), *ROOT.glob("plugins/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("flock", "lockf"):
                found.setdefault(file.relative_to(ROOT).as_posix(), []).append(node)
    assert set(found) == {"gateway/files/locks.py", "gateway/files/scratch.py"}
    for name in found:
        assert "LOCK_EX | fcntl.LOCK_NB" in (ROOT / name).read_text()
