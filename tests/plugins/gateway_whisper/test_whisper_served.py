"""Whisper over HTTP, asked by OpenAI's own client: every format, streams, words, translations and several files."""

from __future__ import annotations

import math
import random
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("soundfile")
pytest.importorskip("ctranslate2")
from openai import BadRequestError, OpenAI
from whisper_folders import RATE, convert, noises, recorded, save_whisper

from gateway.testing import Gateway

SOUND = noises(2)[1]
CUE = r"\d\d:\d\d:\d\d[.,]\d\d\d --> \d\d:\d\d:\d\d[.,]\d\d\d"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root, elsewhere = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("large")
    save_whisper(root / "checkpoint")
    save_whisper(root / "fast")
    (root / "fast" / "config.yaml").write_text("options: {beams: 1}\n")
    convert(save_whisper(elsewhere / "it", window=30), root / "converted")
    with Gateway(root, timeout=300) as gateway:
        yield gateway


@pytest.fixture
def client(served: Gateway) -> OpenAI:
    return OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0)


@pytest.mark.parametrize("model", ["checkpoint", "converted"])
def test_every_format_has_what_was_heard(model: str, client: OpenAI) -> None:
    ask: Any = client.audio.transcriptions.create
    file = ("it.wav", recorded(SOUND))
    whole = ask(model=model, file=file, language="en", response_format="verbose_json", timestamp_granularities=["word"])
    assert whole.language == "english" and whole.duration == pytest.approx(len(SOUND) / RATE, abs=0.01)
    assert whole.segments and all(each.end >= 0 and each.text is not None for each in whole.segments)
    assert [each.id for each in whole.segments] == list(range(len(whole.segments)))
    assert whole.words is not None and all(each.start <= each.end for each in whole.words)
    if model == "converted":
        assert whole.segments[0].avg_logprob < 0  # the others are heard again with chance, as they are unlikely
        return
    json = ask(model=model, file=file, language="en")
    text = ask(model=model, file=file, language="en", response_format="text")
    assert json.text == text == whole.text.strip() == whole.text
    assert json.usage.type == "duration" and json.usage.seconds == math.ceil(len(SOUND) / RATE)
    srt = ask(model=model, file=file, language="en", response_format="srt")
    vtt = ask(model=model, file=file, language="en", response_format="vtt")
    assert len(re.findall(CUE, srt)) == len(re.findall(CUE, vtt)) == len(whole.segments)
    assert srt.startswith("1\n00:00:") and vtt.startswith("WEBVTT\n")
    events = list(ask(model=model, file=file, language="en", stream=True))
    assert events[-1].type == "transcript.text.done" and events[-1].text == json.text
    assert "".join(each.delta for each in events[:-1]).strip() == json.text


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG"])
def test_recordings_of_several_formats_are_heard(kind: str, client: OpenAI) -> None:
    loud = np.concatenate(noises(8))[: RATE * 2]
    stereo = recorded(np.stack([loud, loud], axis=1), 44_100, kind)
    found: Any = client.audio.transcriptions.create(
        model="checkpoint", file=(f"it.{kind.lower()}", stereo), response_format="verbose_json"
    )
    assert found.duration == pytest.approx(RATE * 2 / 44_100, abs=0.1) and found.text


def test_translations_and_their_language(client: OpenAI) -> None:
    found: Any = client.audio.translations.create(
        model="checkpoint", file=("it.wav", recorded(SOUND)), response_format="verbose_json"
    )
    assert found.language == "english" and found.task == "translate" and found.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"file": ("it.wav", b"no recording")}, "file"),
        ({"language": "klingon"}, "language"),
        ({"temperature": 2}, "temperature"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"include": ["logprobs"]}, "include"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str, client: OpenAI) -> None:
    given: dict[str, Any] = {"model": "checkpoint", "file": ("it.wav", recorded(SOUND)), **fields}
    with pytest.raises(BadRequestError) as error:
        client.audio.transcriptions.create(**given)
    assert error.value.param == param


def test_no_generated_form_is_a_mistake_of_ours(served: Gateway) -> None:
    of = random.Random(11)
    whole = [recorded(noises(1)[0][: RATE // 5], kind=kind) for kind in ("WAV", "FLAC", "MP3")]
    names = "language prompt response_format temperature timestamp_granularities[] stream include[] keywords[] other"
    values = ["en", "xx", "", "text", "vtt", "0", "-1", "1e9", "nan", "word", "true", "\x00", "é" * 40]

    def form() -> bytes:
        data = bytearray(of.choice(whole))
        for _ in range(of.choice([0, 1, 20])):
            data[of.randrange(len(data))] = of.randrange(256)
        parts = [
            b'name="file"; filename="a.wav"\r\n\r\n' + bytes(data[: of.choice([len(data), *[of.randrange(120)] * 4])])
        ]
        for _ in range(of.randrange(3)):
            parts.append(f'name="{of.choice(names.split())}"\r\n\r\n{of.choice(values)}'.encode())
        parts.append(b'name="model"\r\n\r\nfast')
        return b"".join(b"--X\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--X--\r\n"

    def post(body: bytes) -> int:
        kind = {"content-type": "multipart/form-data; boundary=X"}
        request = urllib.request.Request(f"{served.url}/v1/audio/transcriptions", body, kind)
        try:
            with urllib.request.urlopen(request, timeout=200) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(post, [form() for _ in range(2000)]))
    assert set(found) == {200, 400}
