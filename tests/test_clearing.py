from __future__ import annotations

import os
from pathlib import Path

from gateway.clearing import clear_away


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
