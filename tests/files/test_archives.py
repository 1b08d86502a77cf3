"""Zip files that may come from anywhere: what is read of them has a bound, whatever they claim."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from gateway import peek_archive
from gateway.files import archives

PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def packed(path: Path, files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path / "a.zip", "w", packing) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path / "a.zip"


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_file_in_it_is_read_with_the_sizes_of_all(tmp_path: Path, packing: int) -> None:
    file = packed(tmp_path, {"a": b"x" * 10_000, "b": b"y"}, packing)
    assert peek_archive(file, "a", 10_000) == (b"x" * 10_000, {"a": 10_000, "b": 1})


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_file_that_unpacks_to_more_than_it_may_is_refused(tmp_path: Path, packing: int) -> None:
    file = packed(tmp_path, {"a": b"x" * 10_000}, packing)
    with pytest.raises(OSError, match="more than 9999 bytes"):
        peek_archive(file, "a", 9_999)


def test_what_says_that_it_unpacks_to_more_is_refused_before_any_of_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = packed(tmp_path, {"a": b"x" * 10_000})
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *given: pytest.fail("it is unpacked"))
    with pytest.raises(OSError, match="more than 9999 bytes"):
        peek_archive(file, "a", 9_999)


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_unpacks_to_more_than_it_says_gives_no_more(tmp_path: Path, packing: int) -> None:
    """Its size is said in the table at the end: the second of the two places here."""
    file = packed(tmp_path, {"a": b"x" * 10_000}, packing)
    whole, size = file.read_bytes(), (10_000).to_bytes(4, "little")
    at = whole.rindex(size)
    file.write_bytes(whole[:at] + (100).to_bytes(4, "little") + whole[at + 4 :])
    with pytest.raises(OSError, match="it is not a readable zip file"):
        peek_archive(file, "a", 1 << 20)


def test_what_is_no_such_archive_is_one_kind_of_error(tmp_path: Path) -> None:
    file = packed(tmp_path, {"a": b"x" * 10_000})
    with pytest.raises(OSError, match="no b in it"):
        peek_archive(file, "b", 10_000)
    with pytest.raises(OSError, match="table of contents"):
        peek_archive(packed(tmp_path, dict.fromkeys(map(str, range(1000)), b"")), "1", 10, table=1000)
    whole = bytearray(packed(tmp_path, {"a": bytes(range(256)) * 100}).read_bytes())
    for place in (0, 20, 60, len(whole) // 2, len(whole) - 30, len(whole) - 10):
        broken = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        file.write_bytes(broken)
        try:
            archives.names(file)
            peek_archive(file, "a", 1 << 20)
        except OSError:
            pass
