"""Compressed bodies are unpacked whole, to no more than the limit."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, TooLarge
from gateway.http.collected_body import MAX_READS, MIN_MEAN
from gateway.http.compressed import PIECE, unpacked

NOISE = random.Random(0).randbytes(4 * PIECE)  # which stays larger than a piece
TEXTS = st.binary(max_size=100) | st.integers(0, 3 * PIECE).map(bytes) | st.just(NOISE)


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_the_members_of_gzip_are_one_body(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    body = b"".join(map(gzip.compress, parts))
    assert unpacked(body, "gzip", len(whole)) == whole
    with pytest.raises(BadRequest, match="has no end"):
        unpacked(body[:-1], "gzip", len(whole))
    if whole:
        with pytest.raises(TooLarge):
            unpacked(body, "gzip", len(whole) - 1)


@given(TEXTS)
def test_deflate_has_zlibs_head_or_none(text: bytes) -> None:
    whole = zlib.compress(text)
    for body in (whole, whole[2:-4]):
        assert unpacked(body, "deflate", len(text)) == text
    with pytest.raises(BadRequest, match="has more data after the end"):
        unpacked(whole + b"x", "deflate", len(text))


def test_a_body_in_very_many_tiny_members_is_refused_and_one_in_as_many_larger_ones_is_not() -> None:
    """Each takes many times the bytes of the smallest."""
    with pytest.raises(BadRequest, match="too many tiny members"):
        unpacked(gzip.compress(b"") * (MAX_READS + 1), "gzip", 100)
    assert unpacked(gzip.compress(b"") * MAX_READS, "gzip", 100) == b""
    large = NOISE[:MIN_MEAN]
    assert unpacked(gzip.compress(large) * (MAX_READS + 1), "gzip", 1 << 30) == large * (MAX_READS + 1)
