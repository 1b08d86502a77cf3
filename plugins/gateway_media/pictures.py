"""Read an image that a client sends: few formats, a bounded number of pixels, as the libraries of models want it."""

from __future__ import annotations

import io
from typing import Any

from gateway import BadRequest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # of others, decoders are rarely used, or run programs
MOST_PIXELS = 40_000_000  # a few kilobytes can unpack to any number; these take 160 MB for a moment


def picture(data: bytes) -> Any:
    """Return a PIL image in RGB, turned as its camera was held. Of an animation it is the first picture.

    Raises:
        BadRequest: it is no image of a known format, is damaged, or has too many pixels. It is not unpacked then.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    listed = ", ".join(FORMATS)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise BadRequest(
                f"the image has {width} × {height} pixels, and {MOST_PIXELS:,} are the most", param="inputs"
            )
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
