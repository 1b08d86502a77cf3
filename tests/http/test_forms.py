"""multipart/form-data as the SDKs send it, and as nobody should."""

from __future__ import annotations

import asyncio
import codecs
import threading
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, UnsupportedMedia
from gateway.http import forms
from gateway.http.forms import MAX_HEADER, MAX_HEADERS, MAX_PARTS, PIECE, decode_form
from gateway.http.off_loop import Beside


def encoded(data: dict[str, str | list[str]], files: dict[str, tuple[str, bytes, str]]) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://gateway/", data=data, files=files)
    return request.read(), request.headers["content-type"]


def written(*parts: tuple[bytes, bytes], boundary: bytes = b"B") -> tuple[bytes, str]:
    """A form of heads and data, as nobody's library writes it."""
    whole = b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, data) for head, data in parts)
    return whole + b"--%b--\r\n" % boundary, f"multipart/form-data; boundary={boundary.decode()}"


NAMED = b'Content-Disposition: form-data; name="prompt"'


@pytest.mark.parametrize(
    "more", ["; boundary=A", ";BOUNDARY=B", "; boundary*=A", ";  boundary =A", '; x="; boundary=A"']
)
def test_a_form_has_one_boundary(more: str) -> None:
    body, kind = written((NAMED, b"a"))
    with pytest.raises(BadRequest, match="more than one boundary"):
        decode_form(body, kind + more)
    assert decode_form(*written((NAMED, b"a"), boundary=b"boundary")) == {"prompt": "a"}


TYPE = b"\r\nContent-Type: text/plain"


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (NAMED + b'; name="model"', "two of the same parameter"),
        (NAMED + b";NAME =model", "two of the same parameter"),
        (NAMED + b'; filename="a.wav"; filename="b.wav"', "two of the same parameter"),
        (NAMED + b"; filename=a.wav; filename*=UTF-8''b.wav", "filename*"),
        (NAMED + b"; filename*0=a.wav", "filename*"),
        (NAMED + b"; name*=UTF-8''model", "name*"),
        (NAMED + b"\r\n" + NAMED, "two of the same header"),
        (NAMED + TYPE + TYPE.upper(), "two of the same header"),
        (NAMED + TYPE + b"; charset=utf-16; charset=utf-8", "two of the same parameter"),
    ],
)
def test_a_part_has_one_name_one_file_and_one_charset(head: bytes, told: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_form(*written((head, b"a")))
    assert told in caught.value.message


@pytest.mark.parametrize("odd", ['a; filename="b', "a; name=b; filename=c.wav", "; filename*=x"])
def test_what_stands_in_quotes_is_no_second_name(odd: str) -> None:
    quoted = odd.replace('"', '\\"').encode()
    (field,) = decode_form(*written((NAMED + b'; filename="%b"' % quoted, b"a"))).values()
    assert field["filename"] == odd


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="%b"' % (b"\xff" * 4000),
        NAMED + b"\r\nX" + b"\xfe" * 4000,
        NAMED + b"\r\nFoo %b: 1" % (b"y" * 4000),
        NAMED + b"\r\nContent-Length: " + b"9" * 4000,
        b"Content-Disposition: %b" % (b"z" * 4000),
    ],
)
def test_an_error_about_a_form_repeats_none_of_it(head: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_form(*written((head, b"a")))
    assert len(caught.value.message) < 200


def test_fields_are_texts_and_files_keep_name_type_and_bytes() -> None:
    sound = bytes(range(256)) * 4096  # a megabyte, more than the parser keeps in memory by default
    body, kind = encoded({"model": "whisper", "language": "français"}, {"file": ("a.wav", sound, "audio/wav")})
    assert decode_form(body, kind) == {
        "model": "whisper",
        "language": "français",
        "file": {"filename": "a.wav", "content_type": "audio/wav", "data": sound},
    }


def test_names_with_brackets_are_lists_even_of_one_and_repeated_names_too() -> None:
    body, kind = encoded({"include[]": ["logprobs"], "tag": ["a", "b"]}, {"file": ("a", b"", "audio/wav")})
    fields = decode_form(body, kind)
    assert fields["include"] == ["logprobs"]
    assert fields["tag"] == ["a", "b"]


@pytest.mark.parametrize("names", [("a", "a[]"), ("a[]", "a"), ("a", "a"), ("a[]", "a[]")])
def test_no_value_of_a_list_is_lost_however_its_name_is_written(names: tuple[str, str]) -> None:
    parts = [
        (f'Content-Disposition: form-data; name="{name}"'.encode(), value)
        for name, value in zip(names, (b"1", b"2"), strict=True)
    ]
    assert decode_form(*written(*parts)) == {"a": ["1", "2"]}


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", ""])
def test_another_content_type_is_named(kind: str) -> None:
    with pytest.raises(UnsupportedMedia, match="multipart/form-data"):
        decode_form(b"{}", kind)


def test_a_form_that_is_cut_off_is_refused() -> None:
    body, kind = encoded({"model": "m"}, {"file": ("a.wav", b"x" * 1000, "audio/wav")})
    with pytest.raises(BadRequest, match="not a valid form"):
        decode_form(body[:-100], kind)


def test_a_flood_of_parts_is_refused() -> None:
    body, kind = encoded({f"f{index}": "x" for index in range(MAX_PARTS + 1)}, {"file": ("a", b"", "audio/wav")})
    with pytest.raises(BadRequest, match="not a valid form"):
        decode_form(body, kind)


def test_a_text_that_is_no_utf8_is_refused_by_its_name() -> None:
    body, kind = encoded({"model": "m"}, {"file": ("a", b"", "audio/wav")})
    with pytest.raises(BadRequest, match="'model' is not UTF-8") as refused:
        decode_form(body.replace(b"\r\n\r\nm\r\n", b"\r\n\r\n\xff\r\n"), kind)
    assert refused.value.param == "model"


@pytest.mark.parametrize("charset", [b"utf-8", b"UTF-8", b'"utf8"', b"us-ascii", b"ASCII"])
def test_a_text_may_say_that_it_is_utf8(charset: bytes) -> None:
    body, kind = written((NAMED + b"\r\nContent-Type: text/plain; charset=" + charset, "français".encode()))
    assert decode_form(body, kind) == {"prompt": "français"}


@pytest.mark.parametrize(
    "charset",
    [b"punycode", b"idna", b"undefined", b'"a\0b"', b"unicode_escape", b"utf-7", b"utf-16", b"latin-1", b"q" * 3000],
)
def test_a_text_of_another_charset_is_refused_and_nobody_looks_for_its_codec(charset: bytes) -> None:
    """Some take minutes for a megabyte, some fail as nothing else does, and Python keeps every name that it was asked
    for."""
    asked: list[str] = []
    search = asked.append  # as one that finds none

    body, kind = written((NAMED + b"\r\nContent-Type: text/plain; charset=" + charset, b"a-a"))
    codecs.register(search)  # type: ignore[arg-type]
    try:
        with pytest.raises(BadRequest, match="send the text as UTF-8, without a charset") as refused:
            decode_form(body, kind)
    finally:
        codecs.unregister(search)  # type: ignore[arg-type]
    assert refused.value.param == "prompt" and asked == []


def test_no_header_of_a_part_goes_on_in_the_next_line() -> None:
    """Each line more would be put together with all those before it."""
    body, kind = written((NAMED + b"\r\nX-A: a\r\n a", b"x"))
    with pytest.raises(BadRequest, match="header continuation"):
        decode_form(body, kind)


def test_a_part_has_few_headers_and_none_is_long() -> None:
    def with_headers(count: int, size: int) -> tuple[bytes, str]:
        return written((b"\r\n".join([NAMED, *(b"X-%d: " % at + b"a" * (size - 5) for at in range(1, count))]), b"x"))

    assert decode_form(*with_headers(MAX_HEADERS, MAX_HEADER)) == {"prompt": "x"}
    for count, size in ((MAX_HEADERS + 1, 10), (2, MAX_HEADER + 1)):
        with pytest.raises(BadRequest, match=r"header \w+ exceeded"):
            decode_form(*with_headers(count, size))


@pytest.mark.parametrize("boundary", [b"b" * 71, "b\u00fcndel".encode("latin-1")])
def test_a_boundary_is_one_of_the_standard(boundary: bytes) -> None:
    body, _ = written((NAMED, b"x"), boundary=b"b")
    with pytest.raises(BadRequest, match="70 ASCII characters"):
        decode_form(body, f'multipart/form-data; boundary="{boundary.decode("latin-1")}"')


@pytest.mark.parametrize("size", [PIECE - 100, PIECE - 1, PIECE, 3 * PIECE])
@pytest.mark.parametrize("behind", [b"", b"\r\n", b"\r\n\r\n"])
def test_wherever_a_large_form_is_cut_it_is_the_same_form(size: int, behind: bytes) -> None:
    def of(padding: int) -> tuple[bytes, str]:
        body, kind = written((NAMED + b'; filename="a"', b"\r\n--" * (padding // 4)), (NAMED[:-7] + b'model"', b"m"))
        return body.rstrip() + behind, kind

    empty = len(of(0)[0])
    for more in range(-8, 9, 4):
        padding = size - empty + more
        body, kind = of(padding)
        fields = decode_form(body, kind)
        assert fields["model"] == "m" and fields["prompt"]["data"] == b"\r\n--" * (padding // 4)


@pytest.mark.parametrize("more", [b"x", b"--B\r\n", b"\r\n" * 100])
def test_nothing_stands_behind_a_form(more: bytes) -> None:
    body, kind = written((NAMED, b"x"))
    with pytest.raises(BadRequest, match="does not end with its boundary"):
        decode_form(body + more, kind)


def test_a_large_form_is_read_beside_the_loop_in_pieces_and_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads, pieces, at_once, most = set(), set(), 0, 0

    class Parser(forms.PushMultipartParser):  # type: ignore[misc]
        def parse(self, chunk: bytes) -> Any:
            threads.add(threading.current_thread())
            pieces.add(len(chunk))
            return super().parse(chunk)

    def decode(body: bytes, kind: str) -> dict[str, Any]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        fields = decode_form(body, kind)
        at_once -= 1
        return fields

    monkeypatch.setattr(forms, "PushMultipartParser", Parser)
    monkeypatch.setattr(forms, "decode_form", decode)
    body, kind = written((NAMED + b'; filename="a"', b"x" * (20 * PIECE)))

    async def read() -> list[dict[str, Any]]:
        beside, work = Beside(), lambda: forms.decode_form(body, kind)
        return await asyncio.gather(*(beside.do(None, len(body), work) for _ in range(4)))

    for fields in asyncio.run(read()):
        assert fields["prompt"]["data"] == b"x" * (20 * PIECE)
    assert threading.main_thread() not in threads and max(pieces) == PIECE and most == 1


PART = st.tuples(
    st.sampled_from([NAMED, NAMED + b'; filename="a"', b"Content-Disposition: form-data", b"X: y"]),
    st.sampled_from([b"", b"\r\nContent-Type: text/plain; charset=", b"\r\n ", b"\r\nContent-Length: ", b"\r\n"]),
    st.binary(max_size=8) | st.sampled_from([b"punycode", b"undefined", b"utf-8", b"1", b"-1"]),
    st.binary(max_size=16) | st.sampled_from([b"\r\n--B", b"--B--", b"\r\n--B--\r\n"]),
)


@given(st.lists(PART, max_size=4), st.binary(max_size=8), st.binary(max_size=8))
def test_whatever_a_body_is_it_is_a_form_or_a_bad_request(
    parts: list[tuple[bytes, bytes, bytes, bytes]], before: bytes, behind: bytes
) -> None:
    body, kind = written(*((head + more + value, data) for head, more, value, data in parts))
    for whole in (body, before + body, body + behind):
        try:
            assert isinstance(decode_form(whole, kind), dict)
        except BadRequest as error:
            assert error.status == 400
