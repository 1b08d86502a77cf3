"""Files that may come from anywhere: what is no ordinary file, or too large, is an error and no wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway import ordinary, peek_json


def test_of_an_ordinary_file_there_is_the_content(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x" * 10)
    (tmp_path / "link").symlink_to(file)
    assert ordinary.content(file, 10) == ordinary.content(tmp_path / "link") == b"x" * 10
    with pytest.raises(OSError, match="more than 9 bytes"):
        ordinary.content(file, 9)


def test_pipes_devices_and_directories_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "endless", "directory"):
        with pytest.raises(OSError, match="no ordinary file"):
            ordinary.content(tmp_path / name)


def test_json_that_is_none_is_an_error_that_plugins_expect(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text in ("[" * 100_000, "{", "\xff"):
        file.write_text(text, "latin-1")
        with pytest.raises(ValueError):
            peek_json(file)
    file.write_text('{"a": 1}')
    assert peek_json(file) == {"a": 1}


def test_json_of_very_many_values_is_refused_before_it_is_read(tmp_path: Path) -> None:
    for text in (b"[" + b"[]," * 10 + b"[]]", b'{"a":' * 11 + b"1" + b"}" * 11, b"[0" + b",0" * 11 + b"]"):
        with pytest.raises(ValueError, match="more than 10 values"):
            ordinary.parse_json(text, most=10)
        assert ordinary.parse_json(text, most=30)
    (tmp_path / "a.json").write_bytes(b"[" + b"[]," * ordinary.MOST_VALUES + b"[]]")
    with pytest.raises(ValueError, match="more than 1000000 values"):
        peek_json(tmp_path / "a.json")
