"""Read a request for images: what the pipeline honours, and what would change the answer and is refused."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway_fields import Field, folded, honoured, misspelt, passed, refused, unsupported

from gateway import BadRequest, ConfigError

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
SEEDS = 1 << 63
ALIASES = {"num_inference_steps": "steps", "guidance_scale": "guidance", "cfg_scale": "guidance"}
# `response_format` and `stream` are handled before the model is called.
TABLE: Mapping[str, Field] = {
    **honoured(
        prompt="the text that is painted",
        negative_prompt="what the image should not show",
        n="images of the text; each has the next seed",
        size="`WIDTHxHEIGHT`, or `auto`: the pipeline's own",
        steps="steps of the scheduler",
        num_inference_steps="the name of `steps` in diffusers",
        guidance="how closely the text is followed",
        guidance_scale="the name of `guidance` in diffusers",
        cfg_scale="the name of `guidance` elsewhere",
        seed="a whole number: the same one gives the same image",
        output_format="`png`, `jpeg` or `webp`",
        output_compression="0 to 100, for `jpeg` and `webp`",
        response_format="`b64_json` or `url`",
    ),
    **refused("auto", "standard", "medium", names="quality", instead="steps"),
    **refused("auto", "opaque", names="background"),
    **refused(names="style"),
    **refused("auto", "low", names="moderation"),
    **refused(0, names="partial_images"),
    **refused(names="image mask init_image strength sampler scheduler clip_skip loras lora width height aspect_ratio"),
    **refused([], names="images"),
    **passed("identifies the request or its sender", "model user metadata request_id"),
}
MEANT = folded([name for name, field in TABLE.items() if field.does != "passed"])


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may ask for; `steps` if it does not say."""

    steps: int | None
    max_steps: int
    max_pixels: int
    max_images: int


@dataclass(frozen=True, slots=True)
class Ask:
    prompt: str
    negative: str | None
    n: int
    size: tuple[int, int] | None  # width and height
    steps: int | None
    guidance: float | None
    seed: int
    form: str
    compression: int | None


def bounds_of(options: Mapping[str, Any]) -> Bounds:
    """Return the bounds of the options.

    Raises:
        ConfigError: one of them is wrong.
    """

    def number(name: str, default: int | None) -> Any:
        value = options.get(name, default)
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"config.yaml: options: {name} has to be a whole number from 1 on, not {value!r}")
        return value

    return Bounds(
        number("steps", None), number("max_steps", 150), number("max_pixels", 1 << 21), number("max_images", 10)
    )


def read(inputs: Mapping[str, Any], bounds: Bounds, multiple: int) -> Ask:
    """Return what a request asks for. `multiple`: by what both sides of an image have to be divisible.

    Raises:
        BadRequest: a field cannot be honoured, or is invalid.
    """
    for name, value in inputs.items():
        if value is None:
            continue
        field = TABLE.get(name)
        if field is None:
            if error := misspelt(name, MEANT):
                raise error
            raise unsupported(f"there is no field {str(name)[:60]!a} (have: {', '.join(_names())})", str(name)[:60])
        if field.does == "refused" and not field.is_neutral(value):
            raise field.refusal(name)
    given = _merged(inputs)
    n = given.get("n", 1)
    if type(n) is not int or not 1 <= n <= bounds.max_images:
        raise BadRequest(f"n has to be a whole number from 1 to {bounds.max_images}", param="n")
    form = given.get("output_format", "png")
    return Ask(
        prompt=_text(given, "prompt") or "",
        negative=_text(given, "negative_prompt"),
        n=n,
        size=_size(given, bounds, multiple),
        steps=_whole(given, "steps", 1, bounds.max_steps, bounds.steps),
        guidance=_guidance(given),
        seed=_seed(given),
        form=form,
        compression=_compression(given, form),
    )


def _names() -> list[str]:
    return [name for name, field in TABLE.items() if field.does == "honoured" and name not in ALIASES]


def _merged(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields by our names for them."""
    found: dict[str, Any] = {}
    for name, value in inputs.items():
        if value is None:
            continue
        ours = ALIASES.get(name, name)
        if ours in found and found[ours] != value:
            raise BadRequest(f"{ours} and {name} are two names of one field: send one of them", param=name)
        found[ours] = value
    return found


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string", param=name, code="invalid_type")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"{name} has half a character", param=name) from error
    return value


def _whole(given: Mapping[str, Any], name: str, least: int, most: int, default: int | None) -> int | None:
    value = given.get(name)
    if value is None:
        return default
    if type(value) is not int or not least <= value <= most:
        raise BadRequest(f"{name} has to be a whole number from {least} to {most}", param=name)
    return value


def _seed(given: Mapping[str, Any]) -> int:
    found = _whole(given, "seed", 0, SEEDS - 1, None)
    return random.randrange(SEEDS) if found is None else found


def _guidance(given: Mapping[str, Any]) -> float | None:
    value = given.get("guidance")
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 <= value <= 100
    ):
        raise BadRequest("guidance has to be a number from 0 to 100", param="guidance")
    return float(value)


def _compression(given: Mapping[str, Any], form: str) -> int | None:
    found = _whole(given, "output_compression", 0, 100, None)
    if found not in (None, 100) and form == "png":
        raise unsupported("a png is not compressed: send output_format jpeg or webp", "output_compression")
    return found


def _size(given: Mapping[str, Any], bounds: Bounds, multiple: int) -> tuple[int, int] | None:
    value = given.get("size")
    if value in (None, "auto"):
        return None
    found = SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadRequest('size has to be WIDTHxHEIGHT, such as "512x512", or "auto"', param="size")
    width, height = int(found[1]), int(found[2])
    if width < multiple or height < multiple or width % multiple or height % multiple:
        raise BadRequest(f"both sides of size have to be multiples of {multiple}", param="size")
    if width * height > bounds.max_pixels:
        raise BadRequest(
            f"size has {width * height} pixels, and this model paints up to {bounds.max_pixels}", param="size"
        )
    return width, height
