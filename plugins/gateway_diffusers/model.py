"""`ImagePipeline`: images of a text, one request at a time."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_tensors.with_torch import device, refusal, words
from starlette.requests import Request

from gateway import BadRequest, ConfigError, weights_path

from .fields import Ask, bounds_of, read
from .structure import check_pipeline


class Gone(Exception):
    """The client has left."""


class ImagePipeline:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.options = config.get("options") or {}
        self.capabilities = {"supports_n": True}

    def load(self) -> None:
        self.bounds = bounds_of(self.options)
        place = weights_path(self.config, Path.cwd())
        check_pipeline(place)
        os.environ["HF_HUB_OFFLINE"] = "1"  # all files are local: nothing may wait for the network
        import diffusers
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._device = device()
        try:
            self.inner = diffusers.DiffusionPipeline.from_pretrained(
                place,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                torch_dtype=torch.float32 if self._device == "cpu" else torch.float16,
            )
        except Exception as error:  # the library has many classes
            raise ConfigError(
                f"{place} cannot be loaded by diffusers {diffusers.__version__}: {words(error)}"
            ) from error
        self.inner.to(self._device).set_progress_bar_config(disable=True)
        self._multiple = max(8, int(getattr(self.inner, "vae_scale_factor", 8)))
        print(f"{type(self.inner).__name__} on {self._device}")

    def images_generations(self, inputs: Mapping[str, Any], request: Request) -> list[bytes]:
        ask = read(inputs, self.bounds, self._multiple)
        with request.state.watch_disconnect() as left:
            return [encoded(image, ask) for image in self.paint(ask, left.is_set)]

    def paint(self, ask: Ask, is_gone: Any = lambda: False) -> list[Any]:
        """Return the images of a request, as Pillow has them. Together they have no more pixels than one may have.

        Raises:
            BadRequest: the pipeline refuses it, or its safety checker an image.
        """
        together = max(1, self.bounds.max_pixels // self._pixels(ask))
        return [
            image
            for start in range(0, ask.n, together)
            for image in self._paint(ask, start, min(together, ask.n - start), is_gone)
        ]

    def _pixels(self, ask: Ask) -> int:
        """Return the pixels of an image; the most if nobody says them."""
        if ask.size is not None:
            return ask.size[0] * ask.size[1]
        network = getattr(self.inner, "unet", None) or getattr(self.inner, "transformer", None)
        own = getattr(getattr(network, "config", None), "sample_size", None)
        side = getattr(self.inner, "default_sample_size", own)
        scale = getattr(self.inner, "vae_scale_factor", 8)
        known = type(side) is int and side > 0
        return int((side * scale) ** 2) if known else self.bounds.max_pixels

    def _paint(self, ask: Ask, start: int, count: int, is_gone: Any) -> list[Any]:
        """Return `count` images of a request, from number `start` on."""
        import torch

        def step(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            if is_gone():
                raise Gone
            return values

        # Image i of a seed is the image of seed + i, however many are painted together.
        generators = [
            torch.Generator(self._device).manual_seed((ask.seed + each) % (1 << 63))
            for each in range(start, start + count)
        ]
        more: dict[str, Any] = {"num_images_per_prompt": count, "generator": generators}
        if ask.size is not None:
            more["width"], more["height"] = ask.size
        if ask.steps is not None:
            more["num_inference_steps"] = ask.steps
        if ask.guidance is not None:
            more["guidance_scale"] = ask.guidance
        if ask.negative is not None:
            more["negative_prompt"] = ask.negative
        try:
            found = self.inner(ask.prompt, callback_on_step_end=step, **more)
        except Gone:
            raise
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise refusal(error) from error
            name = str(error).rpartition("'")[0].rpartition("'")[2]
            raise BadRequest(f"this pipeline has no {name}", param=name, code="unsupported_value") from error
        except Exception as error:
            raise refusal(error) from error
        if any(getattr(found, "nsfw_content_detected", None) or ()):
            what = "the safety checker of the model refused an image: change the prompt, or send another seed"
            raise BadRequest(what, param="prompt", code="content_policy_violation")
        return list(found.images)


def encoded(image: Any, ask: Ask) -> bytes:
    """Return an image as a file of the form that was asked for."""
    buffer = io.BytesIO()
    quality = {} if ask.compression is None or ask.form == "png" else {"quality": ask.compression}
    image.convert("RGB").save(buffer, ask.form.upper(), **quality)
    return buffer.getvalue()
