"""multipart/form-data as the SDKs send it, and as nobody should."""

from __future__ import annotations

import httpx
import pytest

from gateway.errors import BadRequest, UnsupportedMedia
from gateway.http.forms import MAX_PARTS, decode_form


def encoded(data: dict[str, str | list[str]], files: dict[str, tuple[str, bytes, str]]) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://gateway/", data=data, files=files)
    return request.read(), request.headers["content-type"]


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


def test_a_text_that_is_no_utf8_is_refused() -> None:
    body, kind = encoded({"model": "m"}, {"file": ("a", b"", "audio/wav")})
    with pytest.raises(BadRequest):
        decode_form(body.replace(b"\r\n\r\nm\r\n", b"\r\n\r\n\xff\r\n"), kind)
