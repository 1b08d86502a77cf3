"""Parse multipart/form-data bodies, as OpenAI's audio routes use them: strict, bounded, UTF-8 only.

What a client says about a part is compared with a list of known words. Codecs are never looked up by a client's name
for them: some codecs of Python take minutes for a megabyte, and Python caches every name. Parsing happens in pieces, so
that other requests get their turn while a thread reads a large form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from ..errors import BadRequest, UnsupportedMedia

FORM = "multipart/form-data"
MAX_PARTS = 256
MAX_FIELD = 1 << 20  # bytes of a part that is not a file
MAX_HEADERS, MAX_HEADER = 8, 4096  # headers of a part, and bytes of a header; RFC 7578 defines three headers
MAX_BOUNDARY = 70  # characters, by RFC 2046
_BOUNDARIES = re.compile(r";\s*boundary[^=;]*=", re.IGNORECASE).findall
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*"')
_OPTIONS = re.compile(r";\s*(name|filename|charset)(\*[^=;\s]*)?\s*=", re.IGNORECASE).findall
_READ = ("Content-Disposition", "Content-Type")  # the headers of a part that are read
PIECE = 64 << 10  # bytes parsed at a time
MAX_SPACE = 64  # bytes after the end of a form, where many clients write a line break
UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")  # ASCII is a subset of UTF-8


def decode_form(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the fields of a form.

    Text fields are strings. Fields whose names end in "[]" (without the brackets), or that come twice, are lists of
    strings. Files are {"filename", "content_type", "data"}.

    Raises:
        UnsupportedMedia: not a multipart form.
        BadRequest: a broken form.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary")
    if kind.lower() != FORM or not boundary:
        raise UnsupportedMedia(f"this route takes {FORM} with a boundary, not '{content_type[:128]}'")
    if len(_BOUNDARIES(content_type)) > 1:  # two readers may see different parts
        raise BadRequest("the content-type of a form has more than one boundary", code="invalid_value")
    if len(boundary) > MAX_BOUNDARY or not boundary.isascii():
        raise BadRequest(
            f"the boundary of a form must be at most {MAX_BOUNDARY} ASCII characters", code="invalid_value"
        )
    fields: dict[str, Any] = {}
    try:
        for segment, data in _parts(body, boundary):
            _put(fields, segment.name, _value(segment, data))
    except (MultipartError, UnicodeDecodeError) as error:
        told = error.args[0] if isinstance(error, MultipartError) else "it is not UTF-8"  # the rest repeats the form
        raise BadRequest(f"the body is not a valid form: {told}", code="invalid_value") from error
    return fields


def _parts(body: bytes, boundary: str) -> Iterator[tuple[MultipartSegment, list[bytes]]]:
    """Yield each part with the pieces of its data."""
    end = len(body) - len(tail := body[-MAX_SPACE:]) + len(tail.rstrip(b" \t\r\n"))
    if not body.endswith(
        f"--{boundary}--".encode(), 0, end
    ):  # otherwise the parser may or may not accept what follows, depending on its pieces
        raise MultipartError("it does not end with its boundary")
    parser = PushMultipartParser(
        boundary,
        max_header_size=MAX_HEADER,
        max_header_count=MAX_HEADERS,
        max_segment_count=MAX_PARTS,
        strict=True,  # no folded headers: each continuation line copies the header
    )
    data: list[bytes] = []
    segment = None
    with parser:
        for at in range(0, end, PIECE):
            for event in parser.parse(body[at : min(at + PIECE, end)]):
                if isinstance(event, MultipartSegment):
                    _check_once(event)
                    segment, data = event, []
                elif event is None:
                    yield segment, data
                else:
                    data.append(event)


def _check_once(segment: MultipartSegment) -> None:
    """Refuse a part of which two readers may take another name, file or charset.

    Raises:
        MultipartError: it has one of them twice, or `filename*`, which a form must not have (RFC 7578, 4.2).
    """
    read = [pair for pair in segment.headerlist if pair[0] in _READ]
    if len({name for name, _ in read}) < len(read):
        raise MultipartError("a part has two of the same header")
    for name, value in read:
        options = [(option.lower(), more) for option, more in _OPTIONS(_QUOTED.sub("", value))]
        if extended := next((option for option, more in options if more), None):
            raise MultipartError(f"the {name} of a part has {extended}*; write {extended} in UTF-8 instead")
        if len(set(options)) < len(options):
            raise MultipartError(f"the {name} of a part has two of the same parameter")


def _value(segment: MultipartSegment, data: list[bytes]) -> Any:
    if segment.filename is not None:
        kind = segment.content_type or "application/octet-stream"
        return {"filename": segment.filename, "content_type": kind, "data": b"".join(data)}
    name = segment.name[:64]
    if sum(map(len, data)) > MAX_FIELD:
        raise BadRequest(f"'{name}' is larger than {MAX_FIELD} bytes", param=name)
    if (charset := segment.charset) and charset.lower() not in UTF_8:
        text = f"'{name}' is in the charset '{charset[:32]}'; send the text as UTF-8"
        raise BadRequest(f"{text}, without a charset", param=name, code="invalid_value")
    try:
        return b"".join(data).decode()
    except UnicodeDecodeError as error:
        text = f"'{name}' is not UTF-8: byte {error.start}; send text as UTF-8, and other data as a file"
        raise BadRequest(text, param=name, code="invalid_value") from error


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    if name.endswith("[]"):
        before = fields.get(name[:-2], [])
        fields[name[:-2]] = [*before, value] if isinstance(before, list) else [before, value]
    elif name not in fields:
        fields[name] = value
    elif isinstance(fields[name], list):
        fields[name].append(value)
    else:
        fields[name] = [fields[name], value]
