from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from held_clearing import held

from gateway.files import clearing
from gateway.files.clearing import clear_away, clear_beside, clear_put_away, put_away

PATIENCE = 30.0  # seconds until what should come at once is given up


def fill(place: Path, count: int = 3) -> Path:
    place.mkdir()
    for number in range(count):
        (place / str(number)).touch()
    return place


def dig(place: Path, depth: int) -> None:
    fd = os.open(place, os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open("d", os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def test_what_is_deeper_than_python_recurses_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "wide").mkdir(parents=True)
    for number in range(100):
        (place / "wide" / str(number)).mkdir()
    dig(place, 5000)
    clear_away(place)
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_what_they_lead_to(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    place = tmp_path / "place"
    (place / "inner").mkdir(parents=True)
    (place / "link").symlink_to(kept)
    (place / "inner" / "link").symlink_to(kept / "file")
    (place / "inner" / "nowhere").symlink_to(tmp_path / "nowhere")
    clear_away(place)
    assert list(tmp_path.iterdir()) == [kept]
    (tmp_path / "place").symlink_to(kept)
    clear_away(tmp_path / "place")
    assert (kept / "file").read_text() == "x"


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    clear_away(tmp_path / "nothing")


def test_nobody_waits_for_what_is_cleared_beside(tmp_path: Path) -> None:
    ended = threading.Event()
    with held():
        clear_beside(fill(tmp_path / "much"), ended.set)
        assert not clearing.wait(0.01)
        assert (tmp_path / "much").is_dir()
        assert not ended.is_set()
    assert clearing.wait(PATIENCE)
    assert ended.is_set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "rests"), [(clearing.TURN - 1, 0), (3 * clearing.TURN, 3)])
def test_who_clears_beside_rests_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, rests: int
) -> None:
    seen: list[float] = []

    class Ending(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen.append(timeout or 0)
            return False

    monkeypatch.setattr(clearing, "_ending", Ending())
    clear_away(fill(tmp_path / "much", count), gently=True)
    assert seen == [clearing.REST] * rests


def test_a_name_is_free_at_once_and_what_an_ended_process_had_there_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fill(tmp_path / "place")
    with held():
        put_away(place)
        place.mkdir()
    assert clearing.wait(PATIENCE)
    monkeypatch.setattr(clearing, "clear_beside", lambda directory: None)  # as when the process ends right then
    put_away(place)
    (left,) = tmp_path.iterdir()
    monkeypatch.undo()
    clear_put_away(tmp_path)
    assert clearing.wait(PATIENCE)
    assert not left.exists()
    put_away(place)  # which is not there
    assert list(tmp_path.iterdir()) == []


def test_what_finds_no_thread_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ended = threading.Event()
    monkeypatch.setattr(threading.Thread, "start", start)
    clear_beside(fill(tmp_path / "much"), ended.set)
    assert ended.is_set()
    assert clearing.wait(0)
    assert (tmp_path / "much").is_dir()


ENDS = """
import sys, threading
from gateway.files import clearing
clearing.TURN, clearing.REST = 1, 3600.0
{more}
clearing.clear_beside(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("more", "is_left"),
    [
        ("clearing.LAST = 20.0", False),
        ("clearing.LAST = 0.1; clearing._empty = lambda top, step: threading.Event().wait()", True),
    ],
)
def test_the_end_of_a_process_hurries_what_is_cleared_and_waits_a_moment_for_it(
    tmp_path: Path, more: str, is_left: bool
) -> None:
    place = fill(tmp_path / "much", 50)
    subprocess.run([sys.executable, "-c", ENDS.format(more=more), str(place)], check=True, timeout=PATIENCE)
    assert place.exists() is is_left
