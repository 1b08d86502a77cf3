"""POST /v1/images/generations: images from a text, in OpenAI's format."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from ...errors import BadRequest, InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Endpoint
from ...wording import counted
from .. import answer_schemas
from ..base import Context, Dialect, Encoder, Prepared
from ..events import checked, encode_json, unwrap
from ..fields import missing, take, take_range
from ..relayed_errors import error_of
from ..single_value import what
from .chat_request import MAX_N

TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
ENVELOPE = ("created", "background", "output_format", "quality", "size", "usage")
PICTURE = ("b64_json", "url")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "prompt": {"type": "string"},
        "n": {"type": "integer", "minimum": 1, "maximum": MAX_N, "default": 1},
        "size": {"type": "string"},
        "quality": {"type": "string"},
        "background": {"type": "string"},
        "response_format": {"enum": ["b64_json", "url"]},
        "output_format": {"enum": list(TYPES), "default": "png"},
    },
    "additionalProperties": True,
    "example": {"prompt": "A lighthouse at night"},
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(path="/v1/images/generations", method="images_generations", dialect="images", summary="OpenAI images.")
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("images", ImagesDialect())


class ImagesDialect(Dialect):
    request_schema = SCHEMA
    response_schema = answer_schemas.IMAGES

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        if take(inputs, "prompt", str) is None:
            raise missing("prompt")
        n = inputs["n"] = take_range(inputs, "n", 1, MAX_N, 1)
        for name in ("size", "quality", "background"):
            take(inputs, name, str)
        for name, known in (("response_format", PICTURE), ("output_format", tuple(TYPES))):
            if take(inputs, name, str, known[0]) not in known:
                raise BadRequest(f"'{name}' must be one of {', '.join(known)}", param=name)
        if take(inputs, "stream", bool, False):
            raise BadRequest("images are not streamed", param="stream", code="unsupported_value")
        inputs.pop("stream", None)
        return Prepared(model, inputs, n=n)

    def encoder(self, prepared: Prepared, context: Context) -> ImagesEncoder:
        return ImagesEncoder(prepared, context)


class ImagesEncoder(Encoder):
    """Accepts the bytes of a file, a dict with `b64_json` or `url`, lists of these, or OpenAI's object with `data`."""

    def __init__(self, prepared: Prepared, context: Context) -> None:
        self._n, self._context = prepared.n, context
        self._asked: str | None = prepared.inputs.get("response_format")
        self._type = TYPES[prepared.inputs.get("output_format", "png")]
        self._calls: dict[int, list[dict[str, Any]]] = {}  # calls end in any order
        self._about: dict[str, Any] = {}

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        for item in items:
            if item is not None:
                self._calls.setdefault(call, []).extend(self._images(unwrap(item)))
        return b""

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        images = [image for _, images in sorted(self._calls.items()) for image in images]
        if len(images) != self._n:
            raise InvalidOutput(f"the model returned {counted(len(images), 'image')}, {self._n} asked for")
        return encode_json({"created": self._context.created, **self._about, "data": images}), []

    def _images(self, value: Any) -> list[dict[str, Any]]:
        if isinstance(value, list):
            return [image for item in value for image in self._images(unwrap(item))]
        if isinstance(value, bytes):
            return [self._file(value)]
        if isinstance(value, dict):
            if isinstance(value.get("error"), str | dict):
                raise error_of(value)
            if "data" in value:
                self._about |= checked({name: value[name] for name in ENVELOPE if name in value}, "its answer")
                return self._images(value["data"])
            if any(value.get(name) is not None for name in PICTURE):
                return [self._dict(value)]
        raise InvalidOutput(f"the model returned {what(value)}, not the bytes of an image, `b64_json` or `url`")

    def _dict(self, value: dict[str, Any]) -> dict[str, Any]:
        image = {name: item for name, item in value.items() if item is not None}
        if isinstance(image.get("b64_json"), bytes):
            image |= self._file(image.pop("b64_json"))
        if not all(isinstance(image.get(name, ""), str) for name in PICTURE):
            raise InvalidOutput("`b64_json` and `url` of an image must be strings")
        if self._asked == "url" and "url" not in image:
            image["url"] = f"data:{self._type};base64,{image.pop('b64_json')}"
        if self._asked == "b64_json" and "b64_json" not in image:
            raise BadRequest(
                "the model answers with URLs, not with images", param="response_format", code="unsupported_value"
            )
        return dict(checked(image, "an image"))

    def _file(self, data: bytes) -> dict[str, Any]:
        """Return a file in the requested form. Nothing is stored, so a URL contains the whole file."""
        text = b64encode(data).decode()
        return {"url": f"data:{self._type};base64,{text}"} if self._asked == "url" else {"b64_json": text}
