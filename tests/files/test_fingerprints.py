from __future__ import annotations

import hashlib
import mmap
import os
import time
from pathlib import Path

import pytest
from full_disk import full_disk

from gateway.files import fingerprints
from gateway.files.fingerprints import fingerprint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / fingerprints.SUMS


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files had been written a while ago."""
    monkeypatch.setattr(fingerprints, "SETTLED", -1.0)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    return path


@pytest.mark.usefixtures("settled")
def test_it_is_the_sum_of_the_content_whatever_name_and_times_are(tmp_path: Path, cache: Path) -> None:
    one, twin, same = (tmp_path / name for name in ("one", "twin", "same"))
    for path, content in ((one, b"1234"), (twin, b"4321"), (same, b"1234")):
        assert fingerprint(write(path, content)) == hashlib.sha256(content).hexdigest()
        assert fingerprint(path) == hashlib.sha256(content).hexdigest()
    assert len(list(cache.iterdir())) == 3


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "one", b"1234")
    fingerprint(path)
    (kept,) = cache.iterdir()
    kept.write_text("0" * 64)
    assert fingerprint(path) == "0" * 64


@pytest.mark.usefixtures("settled")
def test_a_file_that_changed_is_read_again_though_size_and_time_are_as_before(tmp_path: Path) -> None:
    path = write(tmp_path / "one", b"1234")
    fingerprint(path)
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:  # the clock of files has ticks
        write(path, b"4321")
    assert fingerprint(path) == hashlib.sha256(b"4321").hexdigest()
    other = write(tmp_path / "other", b"5555")
    other.replace(path)
    assert fingerprint(path) == hashlib.sha256(b"5555").hexdigest()


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"1234")
    assert time.time() - path.stat().st_ctime < fingerprints.SETTLED
    fingerprint(path)
    assert not cache.exists()


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_written_to_costs_nothing_but_time(tmp_path: Path, cache: Path) -> None:
    cache.parent.write_text("no directory")
    assert fingerprint(write(tmp_path / "one", b"1234")) == hashlib.sha256(b"1234").hexdigest()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("left", [b"", b"0" * 63, b"\xff" * 64], ids=["empty", "short", "no text"])
def test_a_memory_that_a_power_cut_left_is_not_believed(tmp_path: Path, cache: Path, left: bytes) -> None:
    files = [write(tmp_path / name, name.encode()) for name in ("one", "two")]
    sums = [fingerprint(file) for file in files]
    for memory in cache.iterdir():
        memory.write_bytes(left)

    assert [fingerprint(file) for file in files] == sums


@pytest.mark.usefixtures("settled")
def test_a_full_disk_costs_the_next_reader_time_and_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "one", b"1234")
    with full_disk(at=10):
        assert fingerprint(path) == hashlib.sha256(b"1234").hexdigest()
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("settled")
def test_of_a_file_that_somebody_has_mapped_nothing_is_remembered(tmp_path: Path, cache: Path) -> None:
    """A page that was written to is written to again without any time of the file changing."""
    path = write(tmp_path / "one", b"1234")
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    for content in (b"5678", b"abcd"):
        mapped[:] = content
        assert fingerprint(path) == hashlib.sha256(content).hexdigest()
    mapped.close()
    assert fingerprint(path) == hashlib.sha256(b"abcd").hexdigest()
    assert len(list(cache.iterdir())) == 1
