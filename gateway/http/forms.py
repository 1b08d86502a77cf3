"""multipart/form-data bodies, as OpenAI's audio routes take them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from multipart import MultipartError, MultipartParser, parse_options_header  # type: ignore[import-untyped]

from ..errors import BadRequest, UnsupportedMedia

FORM = "multipart/form-data"
MAX_PARTS = 256
MAX_FIELD = 1 << 20  # bytes of a part that is no file


def decode_form(body: bytes, content_type: str) -> dict[str, Any]:
    """The fields of a form: texts, lists of texts for names that end in "[]" (without the brackets) or come twice, and
    files as {"filename", "content_type", "data"}.

    Raises:
        UnsupportedMedia: it is no multipart form.
        BadRequest: it is a broken one.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary")
    if kind.lower() != FORM or not boundary:
        raise UnsupportedMedia(f"this route takes {FORM} with a boundary, not '{content_type[:128]}'")
    fields: dict[str, Any] = {}
    try:
        parser = MultipartParser(
            BytesIO(body),
            boundary,
            content_length=len(body),
            disk_limit=len(body) + 1,  # the body is in memory already, and bounded
            memory_limit=len(body) + 1,
            buffer_size=min(max(len(body), 1024), 1 << 20),
            part_limit=MAX_PARTS,
            spool_limit=len(body) + 1,
        )
        for part in parser:
            _put(fields, part.name, _value(part))
    except (MultipartError, UnicodeDecodeError, LookupError) as error:
        raise BadRequest(f"the body is not a valid form: {error}", code="invalid_value") from error
    return fields


def _value(part: Any) -> Any:
    if part.filename is not None:
        return {"filename": part.filename, "content_type": part.content_type, "data": part.raw}
    if part.size > MAX_FIELD:
        raise BadRequest(f"'{part.name[:64]}' is larger than {MAX_FIELD} bytes", param=part.name[:64])
    return part.value


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    if name.endswith("[]"):
        fields.setdefault(name[:-2], [])
        if isinstance(fields[name[:-2]], list):
            fields[name[:-2]].append(value)
    elif name not in fields:
        fields[name] = value
    elif isinstance(fields[name], list):
        fields[name].append(value)
    else:
        fields[name] = [fields[name], value]
