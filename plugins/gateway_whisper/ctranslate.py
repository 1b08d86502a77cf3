"""`Converted`: Whisper for CTranslate2, computed by faster-whisper. Segments come as they are heard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway_checkpoints import unloadable

from gateway import ConfigError

from .request import Wanted
from .speech import Speech

TYPES = (
    "default auto int8 int8_float32 int8_float16 int8_bfloat16 int16 float16 bfloat16 float32".split()
)  # of CTranslate2 4


class Converted(Speech):
    converted = True

    def open(self, place: Path) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import ctranslate2
        from faster_whisper import WhisperModel

        kind = self.options.get("compute_type", "default")
        if kind not in TYPES:
            raise ConfigError(f"options.compute_type must be one of {', '.join(TYPES)}, not {str(kind)[:50]!r}")
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        try:
            self.model = WhisperModel(
                str(place), device=device, compute_type=kind, cpu_threads=threads, local_files_only=True
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise unloadable(place, error, "CTranslate2") from error
        self.multilingual = self.model.model.is_multilingual
        print(f"Whisper in {self.model.model.compute_type} on {device}")

    def hear(self, samples: Any, wanted: Wanted) -> Iterator[dict[str, Any]]:
        how = {"temperature": wanted.temperature} if wanted.temperature else {}  # otherwise higher ones are tried
        segments, about = self.model.transcribe(
            samples,
            language=wanted.language,
            task=wanted.task,
            initial_prompt=wanted.prompt,
            word_timestamps=wanted.words,
            beam_size=self.beams,
            **how,
        )
        words = []
        for segment in segments:
            words += [
                {"word": word.word.strip(), "start": float(word.start), "end": float(word.end)}
                for word in segment.words or ()
            ]
            yield {
                "start": float(segment.start),
                "end": float(segment.end),
                "text": segment.text,
                "seek": segment.seek,
                "tokens": list(segment.tokens),
                "temperature": float(segment.temperature or 0.0),
                "avg_logprob": float(segment.avg_logprob),
                "compression_ratio": float(segment.compression_ratio),
                "no_speech_prob": float(segment.no_speech_prob),
            }
        yield {"language": about.language, **({"words": words} if wanted.words else {})}
