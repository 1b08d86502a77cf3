"""`Sounds`: the labels of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from gateway_checkpoints import unloadable
from gateway_media.recordings import sound

from gateway import BadRequest, ConfigError

from .signals import SignalPipeline, damaged, no_processor, read_by

SECONDS = 60  # the longest recording: attention to each moment of it takes memory by its square
LENGTHS = (0.03, 0.1, 0.3, 1, 3)  # seconds of recordings with which the shortest possible one is found


class Sounds(SignalPipeline):
    name = "audio-classification"
    what = "a recording"
    body_readers: ClassVar[Mapping[str, str]] = read_by(
        "audio/wav audio/x-wav audio/wave audio/flac audio/x-flac audio/mpeg audio/mp3 audio/ogg"
    )
    input_item: ClassVar[Mapping[str, Any]] = {
        "type": "string",
        "description": "a recording as base64 or as a data URL: wav, flac, ogg, mp3, aiff or au",
    }

    def open_processor(self, place: Path) -> None:
        from transformers import AutoFeatureExtractor

        self.seconds = self.options.get("max_seconds", SECONDS)
        if type(self.seconds) not in (int, float) or not 0 < self.seconds <= 3600:
            raise ConfigError(f"options.max_seconds must be a number up to 3600, not {self.seconds!r}")
        try:
            self.processor = AutoFeatureExtractor.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise no_processor(place, error) from error
        self.rate = getattr(self.processor, "sampling_rate", None)
        if type(self.rate) is not int or not 1000 <= self.rate <= 384_000:
            raise unloadable(place, f"its processor's settings have the sampling_rate {self.rate}: get them again")

    def prepare(self, place: Path) -> None:
        """Find the shortest recording that the network can read."""
        import numpy

        for seconds in LENGTHS:
            samples = numpy.zeros(int(self.rate * seconds), dtype="float32")
            try:
                self.forward([self._prepared(samples)])
            except (RuntimeError, ValueError, IndexError, BadRequest):
                continue
            self.shortest = seconds
            self.example = {"inputs": _silence(seconds)}
            return
        raise unloadable(place, f"it cannot even read a recording of {LENGTHS[-1]} seconds")

    def tensors(self, data: bytes) -> dict[str, Any]:
        found = sound(data, self.rate, self.seconds)
        if found.seconds < self.shortest:
            what = f"the recording has {found.seconds:.3f} seconds, and the model needs {self.shortest:g}"
            raise BadRequest(f"{what}: send a longer one", param="inputs")
        return self._prepared(found.samples)

    def _prepared(self, samples: Any) -> dict[str, Any]:
        try:
            return dict(self.processor(samples, sampling_rate=self.rate, return_tensors="pt"))
        except (ValueError, AssertionError) as error:
            raise damaged(error) from error


def _silence(seconds: float) -> str:
    """Return a recording of silence as a data URL: 8,000 samples a second of one byte."""
    import base64
    import io
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 1, 8000, 0, "NONE", ""))
        writer.writeframes(b"\x80" * int(8000 * seconds + 1))
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"
