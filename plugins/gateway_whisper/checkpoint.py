"""`Checkpoint`: Whisper of transformers. Times and words are those of the library's pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway_checkpoints import unloadable
from gateway_checkpoints.labels import object_of
from gateway_fields import unsupported

from gateway import BadRequest

from .loadable import GENERATION
from .request import Wanted
from .speech import RATE, Speech


class Checkpoint(Speech):
    converted = False

    def open(self, place: Path) -> None:
        from gateway_checkpoints.opening import open_model, open_tokenizer
        from transformers import AutomaticSpeechRecognitionPipeline, WhisperFeatureExtractor

        tokenizer = open_tokenizer(place)
        try:
            self.features = WhisperFeatureExtractor.from_pretrained(place, local_files_only=True)
        except Exception as error:
            raise unloadable(place, f"what prepares its inputs cannot be loaded ({error})") from error
        self.model = open_model(place, "WhisperForConditionalGeneration")
        self.settings = self.model.generation_config
        if self.settings.max_length is None or "max_length" not in object_of(place, GENERATION):
            self.settings.max_length = self.model.config.max_target_positions
        self.multilingual = bool(getattr(self.settings, "is_multilingual", True))
        self.languages = {number: token for token, number in (getattr(self.settings, "lang_to_id", None) or {}).items()}
        self.tokenizer = tokenizer
        self.library = AutomaticSpeechRecognitionPipeline(
            model=self.model, tokenizer=tokenizer, feature_extractor=self.features, device=self.model.device
        )
        print(f"{self.model.num_parameters():,} parameters in {self.model.dtype} on {self.model.device}")

    def hear(self, samples: Any, wanted: Wanted) -> Iterator[dict[str, Any]]:
        import torch

        if wanted.words and getattr(self.settings, "alignment_heads", None) is None:
            raise unsupported("this model has no times of words (alignment_heads)", "timestamp_granularities")
        with torch.inference_mode():
            found = self.model.generate(**self._inputs(samples), **self._asked(wanted))
        segments = found["segments"][0]
        for segment in segments:
            yield {
                "start": round(float(segment["start"]), 2),
                "end": round(float(segment["end"]), 2),
                "text": self.tokenizer.decode(segment["tokens"], skip_special_tokens=True),
                "tokens": segment["tokens"].tolist(),
                "temperature": wanted.temperature,
            }
        rest: dict[str, Any] = {"language": wanted.language or self._language(segments)}
        if wanted.words:
            rest["words"] = self._words(found, segments, len(samples) / RATE)
        yield rest

    def _inputs(self, samples: Any) -> dict[str, Any]:
        """Return the features of a recording, of all of it if it is longer than one window."""
        is_long = len(samples) > self.features.n_samples
        how = {"truncation": False, "padding": "longest"} if is_long else {}
        found = self.features(samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **how)
        return dict(found.to(device=self.model.device, dtype=self.model.dtype))

    def _asked(self, wanted: Wanted) -> dict[str, Any]:
        asked: dict[str, Any] = {"return_timestamps": True, "return_segments": True, "num_beams": self.beams}
        if wanted.words:
            asked["return_token_timestamps"] = True
        if self.multilingual:
            asked |= {"task": wanted.task, "language": wanted.language}
        if wanted.temperature:
            asked |= {"temperature": wanted.temperature, "do_sample": True, "num_beams": 1}
        if wanted.prompt is not None:
            asked["prompt_ids"] = self._prompt(wanted.prompt)
        return asked

    def _prompt(self, text: str) -> Any:
        """Return the tokens of a prompt, of a long one the last, as the first Whisper had it."""
        try:
            tokens = self.tokenizer.get_prompt_ids(text, return_tensors="pt")
        except ValueError as error:
            raise BadRequest(f"prompt has a special token: {error}", param="prompt") from error
        most = self.model.config.max_target_positions // 2 - 2
        if len(tokens) - 1 > most:
            import torch

            tokens = torch.cat([tokens[:1], tokens[-most:]])
        return tokens.to(self.model.device)

    def _language(self, segments: Any) -> str:
        """Return the language that was heard: its token is among the first of the whole sequence."""
        if not self.multilingual or not segments:
            return "en"
        result = segments[0]["result"]
        whole = result["sequences"] if isinstance(result, dict) else result
        tokens = (self.languages.get(number) for number in whole.tolist())
        return next((token.strip("<|>") for token in tokens if token), "en")

    def _words(self, found: Any, segments: Any, duration: float) -> list[dict[str, Any]]:
        import torch

        if not segments:
            return []
        times = torch.cat([segment["token_timestamps"] for segment in segments])[None]
        outputs = [{"tokens": found["sequences"].cpu(), "token_timestamps": times.cpu()}]
        chunks = self.library.postprocess(outputs, return_timestamps="word")["chunks"]
        return [
            {
                "word": each["text"].strip(),
                "start": each["timestamp"][0],
                "end": duration if each["timestamp"][1] is None else each["timestamp"][1],
            }
            for each in chunks
        ]
