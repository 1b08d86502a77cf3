"""`Speech`: what is common to the two ways to compute Whisper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from gateway_media.recordings import sound

from gateway import BadRequest, ConfigError, check_ordinary, weights_path

from . import loadable, request
from .languages import NAMES

RATE = 16_000  # samples a second of all Whisper models
SECONDS = 1800
BEAMS = 5  # as in the libraries, and in the first Whisper


class Speech:
    """Answers transcriptions and translations. A subclass loads a folder and hears a recording."""

    converted: ClassVar[bool]
    multilingual: bool

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.options: Mapping[str, Any] = config.get("options") or {}

    def open(self, place: Path) -> None:
        """Load the model in a folder that was checked, and set `multilingual`."""
        raise NotImplementedError

    def hear(self, samples: Any, wanted: request.Wanted) -> Iterator[dict[str, Any]]:
        """Yield segments, then a dict with `language`, as a code, and perhaps `words`."""
        raise NotImplementedError

    def load(self) -> None:
        place = weights_path(self.config, Path.cwd())
        check_ordinary(place)
        loadable.say_unloadable(place, converted=self.converted)
        self.seconds = self.options.get("max_seconds", SECONDS)
        if type(self.seconds) not in (int, float) or not 0 < self.seconds <= 86_400:
            raise ConfigError(f"options.max_seconds must be a number up to 86400, not {self.seconds!r}")
        self.beams = self.options.get("beams", BEAMS)
        if type(self.beams) is not int or not 1 <= self.beams <= 16:
            raise ConfigError(f"options.beams must be a whole number from 1 to 16, not {self.beams!r}")
        self.open(place)

    def transcriptions(self, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._answer(inputs, "transcribe")

    def translations(self, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._answer(inputs, "translate")

    def _answer(self, inputs: Mapping[str, Any], task: request.Task) -> Iterator[dict[str, Any]]:
        wanted = request.read(inputs, task, multilingual=self.multilingual)
        try:
            recording = sound(inputs["file"]["data"], RATE, self.seconds)
        except BadRequest as error:
            raise BadRequest(str(error), param="file", code=error.code) from error
        spoke = False
        for each in self.hear(recording.samples, wanted):
            if "start" in each:
                spoke = True
                yield each
                continue
            language = "en" if task == "translate" else each["language"]
            each = {**each, "language": NAMES.get(language, language), "duration": recording.seconds}
            if not spoke:
                each["text"] = "WEBVTT\n" if wanted.format == "vtt" else ""
            each["usage"] = {"type": "duration", "seconds": math.ceil(recording.seconds)}
            yield each
