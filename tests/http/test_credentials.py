"""What a model sees of a request has no key, however it is written; the rest arrives as it was sent."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from served import Model, Served

from gateway.access import keys
from gateway.dialects.scoring import tokenize
from gateway.http.credentials import SHORTEST, Budget, _forms, _TooMuch, holds_key, without_keys

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
        **{
            f"base64 behind {before!r}": before.encode() + basic for before in ("a", "ab", "abc", "token-", "v1/", "a=")
        },
        "urlsafe behind a word": b"key_" + base64.urlsafe_b64encode(b"user>?:" + key).rstrip(b"="),
        "base64 twice": base64.b64encode(basic),
        "base64 three times": base64.b64encode(base64.b64encode(basic)),
        "percent in base64": base64.b64encode(every(key)),
        "percent in base64 in percent": every(base64.b64encode(every(key))),
        "base64 with a blank": basic[:7] + b" " + basic[7:],
        "base64 in lines": basic[:7] + b"%0D%0A" + basic[7:],
        "base64 in lines of a form": basic[:7] + b"+" + basic[7:],
    }


@pytest.mark.parametrize("key", KEYS, ids=["own words", "made here", "of one letter"])
@pytest.mark.parametrize("way", ways(b"x"))
def test_a_key_is_taken_away_however_it_is_written(key: bytes, way: str) -> None:
    written = ways(key)[way]
    rest = [(b"x-mine", b"100%"), (b"referer", b"http://127.0.0.1/?a=%41+b"), (b"authorization", b"Basic bWU6bXk=")]
    assert without_keys([(b"x-other", written), *rest], b"", key) == (rest, b"")
    if b"&" not in written and b"?" not in written:
        assert without_keys(rest, b"a=%41+b&k=" + written + b"&c", key) == (rest, b"a=%41+b&c")
        assert without_keys(rest, written, key) == (rest, b"")


BEHIND = [
    b"&x=1",
    b"%26x=1",
    b"%2526x=1",
    b";x",
    b"%3Bx",
    b"#x",
    b"/x",
    b"=x",
    b"?x",
    b",x",
    b"+x",
    b"%00",
    b"%",
    b"%zz",
    b"x",
]


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("key", KEYS, ids=["own words", "made here", "of one letter"])
def test_a_key_is_taken_away_whatever_stands_behind_it(key: bytes, behind: bytes) -> None:
    for before in (b"api_key=", b"u=http%3A%2F%2Fh%2F%3Fapi_key%3D", b"a=1&api_key=", b"a=1;api_key="):
        for written in (key, quote(key, safe="").encode(), every(key)):
            left = without_keys([], before + written + behind, key)[1]
            assert not holds_key(left, [key], Budget())
            assert left in (b"", b"x=1", b"a=1", b"a=1&x=1")


def test_a_key_that_contains_an_ampersand_is_found_across_parameters() -> None:
    """As it is, it is several parameters, and none of them contains it."""
    key, parts = b"s3cret&more words&=", b"a=1&k=s3cret&more+words&=&b"
    for query in (parts, parts.replace(b"+", b"%20"), parts.replace(b"s3c", b"%733c"), b"x&" + quote(parts).encode()):
        assert without_keys([], query, b"another", key)[1] in (b"", b"x"), query
        assert without_keys([], query, key)[1] in (b"", b"x"), query
    assert without_keys([], b"a=1&k=s3cret&more&=&b", key)[1] == b"a=1&k=s3cret&more&=&b"


def test_a_key_in_many_layers_is_a_matter_of_its_reader() -> None:
    """As SECURITY.md says: what is found has a limit, and so has the time for it."""
    for written in (
        KEYS[1].hex().encode(),
        KEYS[1].replace(b"_", rb"\u005f"),
        quote(quote(every(every(KEYS[1])))).encode(),
    ):
        assert not holds_key(written, [KEYS[1]], Budget())


@pytest.mark.parametrize("text", [b"V", b"VlZW", b"Vm0w", b"%25", b"+", b"a%2B", b"gw_a_", b"%%"])
def test_a_large_value_is_decoded_a_few_times_at_most(text: bytes) -> None:
    value = text * (65536 // len(text))
    for _ in range(4):
        value = max(value, base64.b64encode(value)[:65536], key=len)
    decoded: list[bytes] = []
    with contextlib.suppress(_TooMuch):
        decoded.extend(_forms(value, SHORTEST, Budget()))
    assert sum(map(len, decoded)) < 32 * len(value)


def test_a_value_whose_forms_multiply_is_taken_away_before_they_are_made() -> None:
    """Percent signs that encode nothing stay, and "+" has two readings, in each layer."""
    value = b"%252525%%%%%%%+%%%%%%%%%2B%%%252B%%%%%" * 1500
    budget = Budget()
    assert holds_key(value, [], budget)
    assert budget.left < 0
    assert without_keys([(b"x-a", value), (b"x-b", b"plain")], b"", None)[0] == [(b"x-b", b"plain")]


def test_the_gateways_own_key_is_taken_away_though_another_let_the_request_in() -> None:
    own = b"operators own words"
    rest = [(b"x-mine", b"1"), (b"authorization", b"Bearer mine")]
    for credential in (KEYS[1], b"another", None):
        for written in ways(own).values():
            assert without_keys([(b"x-other", written), *rest], b"", credential, own)[0] == rest


def test_where_no_key_is_needed_what_looks_like_one_is_taken_away() -> None:
    rest = [(b"authorization", b"Bearer mine"), (b"cookie", b"a=b"), (b"x-api-key", b"sk-other")]
    for name in (b"authorization", b"x-api-key", b"cookie", b"x-other"):
        for written in ways(KEYS[1]).values():
            assert without_keys([*rest, (name, written)], b"a=b&k=" + KEYS[1], None) == (rest, b"a=b")
    assert without_keys([*rest, (KEYS[1].lower(), b"1")], b"", None)[0] == rest


def test_another_key_of_a_gateway_is_taken_away_too() -> None:
    for key in (b"another", b""):
        for written in ways(KEYS[1]).values():
            assert without_keys([(b"x-forwarded-key", written), (b"x-mine", b"1")], b"", key)[0] == [(b"x-mine", b"1")]


def test_what_a_plugin_may_have_read_is_taken_away_if_it_let_the_request_in() -> None:
    given = [(b"cookie", b"session=1"), (b"authorization", b"Basic x"), (b"x-mine", b"1")]
    assert without_keys(given, b"a=b&c", b"") == ([(b"x-mine", b"1")], b"a=b&c")
    assert without_keys(given, b"a=b&c", b"key") == (given, b"a=b&c")


def told_back(inputs: dict[str, str]) -> dict[str, str]:
    return {"tokenizer_class": "T", **inputs}


@pytest.mark.parametrize("whose", ["own", "another", "configured"])
def test_the_query_of_an_endpoint_that_is_asked_with_get_has_no_key(
    serve: Callable[..., Served], tmp_path: Path, whose: str
) -> None:
    """Its fields go to the method of the model; one setting hands over all."""
    (own, own_text), (another, another_text), configured = keys.create("ada"), keys.create("bob"), "s3cret/key of mine"
    file = tmp_path / "keys.toml"
    keys.write(file, [own, another])
    served = serve(
        {
            "m": Model({"tokenizer_info": told_back}),
            "trusted": Model({"tokenizer_info": told_back}, forward_credentials=True),
        },
        plugins=[tokenize],
        keys_file=file,
        api_key=configured,
    )
    key = {"own": own_text, "another": another_text, "configured": configured}[whose].encode()
    written = {way: ways(key)[way] for way in ("percent", "every character", "twice", "basic in a URL", "base64 twice")}
    query = "&".join(f"k{number}={quote(text)}" for number, text in enumerate(written.values()))
    for path in ("/tokenizer_info?model=m&", "/models/m/tokenizer_info?"):
        reply = served.get(f"{path}mine=1%2B&{query}&k={quote(key)}", x_api_key=own_text)
        assert reply.json == {"tokenizer_class": "T", "mine": "1+"} | ({"model": "m"} if "model=" in path else {})
    reply = served.get(f"/tokenizer_info?model=trusted&k={quote(key)}", x_api_key=own_text)
    assert reply.json["k"] == key.decode()
