"""What is read of a header, and what is not: a file may have far more values than it has bytes on its disk."""

from __future__ import annotations

import mmap
import struct
import tracemalloc
from pathlib import Path

import pytest
from gateway_language.gguf import header as it
from gguf_headers import gguf

from gateway import ConfigError

BOOL, TEXT, LIST, DOUBLE = 7, 8, 9, 12


def read(file: Path) -> it.Header:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return it.read_header(data, file.name)


def sparse(file: Path, key: str, value: bytes, size: int, keys: int = 1, tensors: int = 0) -> Path:
    """A file of one key whose value is zeros, as many as are asked for."""
    name = key.encode()
    with file.open("wb") as opened:
        opened.write(struct.pack("<4sIQQQ", b"GGUF", 3, tensors, keys, len(name)) + name + value)
        opened.truncate(opened.tell() + size)
    return file


def listed(kind: int, count: int) -> bytes:
    return struct.pack("<IIQ", LIST, kind, count)


@pytest.mark.parametrize(("kind", "size"), [(BOOL, 1), (DOUBLE, 8)])
def test_a_list_that_nobody_asks_for_is_not_kept(kind: int, size: int, tmp_path: Path) -> None:
    count = 20_000_000
    file = sparse(tmp_path / "m.gguf", "any.list", listed(kind, count), count * size)
    tracemalloc.start()
    try:
        assert read(file).metadata == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("key", "value", "size"),
    [
        ("tokenizer.ggml.scores", listed(BOOL, 5_000_000), 5_000_000),
        ("tokenizer.ggml.tokens", listed(TEXT, 5_000_000), 40_000_000),
        ("any.list", listed(TEXT, 5_000_000), 40_000_000),
        ("any.list", listed(LIST, 5_000_000), 60_000_000),
        ("any.text", struct.pack("<IQ", TEXT, 100_000_000), 100_000_000),
    ],
)
def test_more_values_or_texts_than_a_model_has_are_refused_before_they_are_read(
    key: str, value: bytes, size: int, tmp_path: Path
) -> None:
    file = sparse(tmp_path / "m.gguf", key, value, size)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=r"the header of m\.gguf has more than .*, which no model has"):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("keys", "tensors", "what"), [(10_001, 0, "more than 10,000 keys"), (1, 100_001, "more than 100,000 tensors")]
)
def test_more_keys_or_tensors_than_a_model_has_are_refused(keys: int, tensors: int, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=what):
        read(sparse(tmp_path / "m.gguf", "a", listed(BOOL, 0), 200_000, keys, tensors))


def test_a_tensor_of_very_many_dimensions_is_refused_before_its_shape_is_read(tmp_path: Path) -> None:
    shape = struct.pack("<QI", 0, 1_000_000)
    file = sparse(tmp_path / "m.gguf", "a", listed(BOOL, 0) + shape, 8_000_000, tensors=1)
    with pytest.raises(ConfigError, match="a tensor of 1000000 dimensions"):
        read(file)


@pytest.mark.parametrize("value", [listed(BOOL, 2**60), listed(TEXT, 2**60), struct.pack("<IQ", TEXT, 2**60)])
def test_what_is_longer_than_its_file_breaks_off(value: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="breaks off or is damaged"):
        read(sparse(tmp_path / "m.gguf", "tokenizer.ggml.tokens", value, 100))


def test_the_lists_of_a_tokenizer_and_short_ones_are_kept_and_what_follows_a_skipped_one_is_read(
    tmp_path: Path,
) -> None:
    many = ["a"] * (it.MOST_IN_LIST + 1)
    file = gguf(tmp_path / "m.gguf", tokenizer_ggml_tokens=many, x_few=["b"], x_many=many, general_architecture="llama")
    found = read(file)
    assert found.metadata == {"tokenizer.ggml.tokens": many, "x.few": ["b"], "general.architecture": "llama"}
    assert [info.name for info in found.tensors] == ["t0"]
