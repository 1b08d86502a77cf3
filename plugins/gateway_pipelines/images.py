"""`Images`: the labels of an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from gateway_media.pictures import picture

from .signals import SignalPipeline, damaged, no_processor, read_by

# A gray square of 8 × 8 pixels.
SQUARE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR4nGNsYIAAJgaKGAAmCACQXTClHgAAAABJRU5E"
    "rkJggg=="
)


class Images(SignalPipeline):
    name = "image-classification"
    what = "an image"
    body_readers: ClassVar[Mapping[str, str]] = read_by("image/png image/jpeg image/webp image/gif image/bmp")
    input_item: ClassVar[Mapping[str, Any]] = {
        "type": "string",
        "description": "an image as base64 or as a data URL: PNG, JPEG, WebP, GIF or BMP",
    }
    example: ClassVar[Mapping[str, Any]] = {"inputs": SQUARE}

    def open_processor(self, place: Path) -> None:
        from transformers import AutoImageProcessor

        try:
            self.processor = AutoImageProcessor.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise no_processor(place, error) from error

    def tensors(self, data: bytes) -> dict[str, Any]:
        image = picture(data)
        try:
            return dict(self.processor(images=image, return_tensors="pt"))
        except (ValueError, ZeroDivisionError, OSError) as error:  # for example of a size that leaves nothing of it
            raise damaged(error) from error
