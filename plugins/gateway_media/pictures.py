"""Read an image that a client sends: few formats, a bounded number of pixels, as the libraries of models want it."""

from __future__ import annotations

import io
from typing import Any

from gateway import BadRequest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # of others, decoders are rarely used, or run programs
MOST_PIXELS = 40_000_000  # a few kilobytes can unpack to any number; these take 160 MB for a moment
MOST_STRETCHED = 100  # the longer side by the shorter: processors scale the shorter one to hundreds of pixels
SCAN = b"\xff\xda"  # begins a pass of a JPEG over its pixels; such bytes occur nowhere else in what is compressed
RUNS = (1, 2)  # kinds of BMP in which a few bytes stand for any number of rows
MOST_SCANS = 100  # cameras and programs write about ten, and each takes as long as the image is large


def picture(data: bytes) -> Any:
    """Return a PIL image in RGB, turned as its camera was held. Of an animation it is the first picture.

    Raises:
        BadRequest: it is no image of a known format, is damaged, or has too many pixels for its file or in one row. It
            is not unpacked then.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    listed = ", ".join(FORMATS)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check(image, data)
        upright = ImageOps.exif_transpose(image)
        return (image if upright is None else upright).convert("RGB")
    except BadRequest:
        raise
    except Image.DecompressionBombError as error:
        raise BadRequest(
            f"the image has more than {MOST_PIXELS:,} pixels, which are the most", param="inputs"
        ) from error
    except UnidentifiedImageError as error:
        raise BadRequest(f"the input is not an image in a known format (have: {listed})", param="inputs") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise BadRequest(f"the image is damaged: {' '.join(str(error).split())[:200]}", param="inputs") from error


def _check(image: Any, data: bytes) -> None:
    """Refuse an image that takes far more time or memory than others of its bytes."""
    width, height = image.size
    size = f"the image has {width} × {height} pixels"
    if width * height > MOST_PIXELS:
        raise BadRequest(f"{size}, and {MOST_PIXELS:,} are the most", param="inputs")
    if max(width, height) > MOST_STRETCHED * min(width, height):
        raise BadRequest(f"{size}: one side is more than {MOST_STRETCHED} times the other: cut it", param="inputs")
    if image.format == "JPEG" and data.count(SCAN) > MOST_SCANS:
        raise BadRequest(f"the image has more than {MOST_SCANS} passes: save it again as a JPEG", param="inputs")
    if image.format == "BMP" and image.info.get("compression") in RUNS:
        raise BadRequest("the image is a BMP whose pixels are compressed: save it as a PNG", param="inputs")
