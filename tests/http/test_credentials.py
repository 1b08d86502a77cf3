"""What a model sees of a request has no key, however it is written; the rest arrives as it was sent."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from gateway.access import keys
from gateway.http.credentials import without_key

KEYS = [b"s3cret/key+with=signs&more spaces", keys.create("ada")[1].encode(), b"k" * 8]


def every(key: bytes) -> bytes:
    return b"".join(b"%%%02X" % character for character in key)


def ways(key: bytes) -> dict[str, bytes]:
    """The ways in which a client, a browser or a proxy writes a key."""
    basic = base64.b64encode(b"me:" + key)
    return {
        "plain": key,
        "bearer": b"Bearer " + key,
        "percent": quote(key, safe="").encode(),
        "plus": quote(key, safe=" ").replace(" ", "+").encode(),
        "every character": every(key),
        "lower case": every(key).lower(),
        "twice": quote(every(key)).encode(),
        "basic": b"Basic " + basic,
        "basic without padding": b"Basic " + basic.rstrip(b"="),
        "basic in a URL": b"https://x/?auth=" + quote(basic, safe="").encode(),
        "urlsafe": base64.urlsafe_b64encode(b"user>?:" + key),
        "in a URL": b"http://127.0.0.1/?a=b&key=" + quote(key, safe="").encode(),
        "a cookie": b"a=b; key=" + every(key),
    }


@pytest.mark.parametrize("key", KEYS, ids=["own words", "made here", "of one letter"])
@pytest.mark.parametrize("way", ways(b"x"))
def test_a_key_is_taken_away_however_it_is_written(key: bytes, way: str) -> None:
    written = ways(key)[way]
    rest = [(b"x-mine", b"100%"), (b"referer", b"http://127.0.0.1/?a=%41+b"), (b"authorization", b"Basic bWU6bXk=")]
    assert without_key([(b"x-other", written), *rest], b"", key) == (rest, b"")
    if b"&" not in written and b"?" not in written:
        assert without_key(rest, b"a=%41+b&k=" + written + b"&c", key) == (rest, b"a=%41+b&c")
        assert without_key(rest, written, key) == (rest, b"")


def test_another_key_of_a_gateway_is_taken_away_too() -> None:
    for key in (b"another", b""):
        for written in ways(KEYS[1]).values():
            assert without_key([(b"x-forwarded-key", written), (b"x-mine", b"1")], b"", key)[0] == [(b"x-mine", b"1")]


def test_what_a_plugin_may_have_read_is_taken_away_if_it_let_the_request_in() -> None:
    given = [(b"cookie", b"session=1"), (b"authorization", b"Basic x"), (b"x-mine", b"1")]
    assert without_key(given, b"a=b&c", b"") == ([(b"x-mine", b"1")], b"a=b&c")
    assert without_key(given, b"a=b&c", b"key") == (given, b"a=b&c")
