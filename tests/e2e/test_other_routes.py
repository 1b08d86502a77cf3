"""Audio, images, moderations, rerank, scores and tokens: the official SDK, or vLLM's paths, against real workers."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx2
import openai
import pytest

from gateway.testing import Gateway

from .conftest import write_models

PATIENCE = 60.0  # seconds for what should come at once
SCRIBE = '''
import pathlib, time

class Model:
    """Reads recordings that are plain text; "?" in one is an error, "@path" waits for a file."""
    def transcriptions(self, inputs):
        data = inputs["file"]["data"].decode()
        for second, word in enumerate(data.split()):
            if word == "?":
                raise ValueError("secret details")
            while word.startswith("@") and not pathlib.Path(word[1:]).exists():
                time.sleep(0.005)
            yield {"start": second, "end": second + 1, "text": f" {word}"}
        yield {"language": inputs.get("language", "?"), "duration": len(data)}

    def translations(self, inputs):
        return f"{inputs['file']['filename']} {inputs['file']['content_type']} {inputs.get('temperature')}"

    def speech(self, inputs):
        words = inputs["input"].split()
        try:
            for word in words:
                if word == "?":
                    raise ValueError("secret details")
                yield b"" if word == "-" else f"{word} ".encode()
        finally:
            if words and words[0].startswith("@"):
                pathlib.Path(words[0][1:]).touch()
'''
PAINTER = """
class Model:
    def images_generations(self, inputs):
        return f"{inputs['prompt']} {inputs['n']} {inputs.get('size')}".encode()
    def moderations(self, inputs):
        return [{"violence": len(text) / 10} for text in inputs["input"]]
"""
VECTORS = '''
from gateway import HTTPError

class Model:
    """A text is as many as it has of each vowel."""
    def embeddings(self, inputs):
        for place, text in enumerate(inputs["input"]):
            if not text:
                raise HTTPError(400, f"input[{place}] is empty", param=f"input[{place}]")
        return [[text.count(vowel) + 0.001 for vowel in "aeiou"] for text in inputs["input"]]
'''
JUDGE = """
class Model:
    def rerank(self, inputs):
        return [(index, len(text)) for index, text in enumerate(inputs["documents"])]
    def score(self, inputs):
        return [float(len(one) - len(other)) for one, other in zip(inputs["text_1"], inputs["text_2"])]
    def count_tokens(self, text):
        return 10
    def classify(self, inputs):
        return [{"long": len(text) / 10, "short": 1 - len(text) / 10} for text in inputs["input"]]
"""
MODELS = {"scribe": SCRIBE, "painter": PAINTER, "vectors": VECTORS, "plain-vectors": VECTORS, "judge": JUDGE}
SETTINGS = """
[models.scribe]
slots = 4
[models.vectors]
derive = ["rerank"]
[models.painter]
slots = 4
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("gateway")
    write_models(root / "models", {name: {"model.py": text} for name, text in MODELS.items()})
    (root / "gateway.toml").write_text(SETTINGS)
    with Gateway(root / "models", cwd=root) as running:
        yield running


def post(gateway: Gateway, path: str, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


# ── audio ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recording_becomes_text_in_every_format(client: openai.OpenAI) -> None:
    recording = ("a.wav", b"good morning", "audio/wav")
    create = client.audio.transcriptions.create
    assert create(model="scribe", file=recording).text == "good morning"
    assert create(model="scribe", file=recording, response_format="text") == "good morning"
    assert str(create(model="scribe", file=recording, response_format="srt")).endswith("00:00:02,000\nmorning\n")
    assert str(create(model="scribe", file=recording, response_format="vtt")).startswith("WEBVTT\n\n00:00:00.000")
    verbose = create(
        model="scribe",
        file=recording,
        language="en",
        response_format="verbose_json",
        timestamp_granularities=["segment", "word"],
    )
    assert (verbose.language, verbose.duration) == ("en", 12) and verbose.segments is not None
    assert [segment.text for segment in verbose.segments] == [" good", " morning"]
    diarized = create(model="scribe", file=recording, response_format="diarized_json", chunking_strategy="auto")
    assert [segment.speaker for segment in diarized.segments] == ["A", "A"]


def test_pieces_of_a_transcript_come_as_they_are_heard(client: openai.OpenAI, tmp_path: Any) -> None:
    go = tmp_path / "go"
    stream = client.audio.transcriptions.create(
        model="scribe", file=("a.wav", f"good @{go} morning".encode()), stream=True
    )
    events = iter(stream)
    first = next(events)
    assert first.type == "transcript.text.delta" and first.delta == " good"
    go.touch()
    *_, last = events
    assert last.type == "transcript.text.done" and last.text == f"good @{go} morning"


@pytest.mark.filterwarnings("ignore:deprecated")  # the SDK about its own method
def test_a_file_keeps_its_name_and_its_type(client: openai.OpenAI) -> None:
    answer = client.audio.translations.create(
        model="scribe", file=("héllo.flac", b"\x00\xff", "audio/flac"), temperature=0.5
    )
    assert answer.text == "héllo.flac audio/flac 0.5"


def test_a_model_that_fails_before_its_first_word_is_an_error(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            client.audio.transcriptions.create(model="scribe", file=("a.wav", b"?"), stream=stream)
        assert caught.value.code == "model_error" and "secret" not in str(caught.value)


def test_a_transcript_that_breaks_off_never_looks_finished(client: openai.OpenAI) -> None:
    seen = []
    with pytest.raises(openai.APIError):
        for event in client.audio.transcriptions.create(model="scribe", file=("a.wav", b"good ?"), stream=True):
            seen.append(event.type)
    assert seen == ["transcript.text.delta"]


def test_a_form_without_a_file_names_the_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        form: Any = {"headers": {"Content-Type": "multipart/form-data"}}
        client.post("/audio/transcriptions", cast_to=object, files={"model": (None, "scribe")}, options=form)
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "file")
    with pytest.raises(openai.APIStatusError) as other:
        client.post("/audio/transcriptions", cast_to=object, body={"model": "scribe"})
    assert (other.value.status_code, other.value.code) == (415, "unsupported_media_type")


def test_a_text_is_read_aloud(client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="scribe", voice="alloy", input="good morning")
    assert answer.content == b"good morning " and answer.response.headers["content-type"] == "audio/mpeg"
    with client.audio.speech.with_streaming_response.create(
        model="scribe", voice="alloy", input="good morning", response_format="wav"
    ) as stream:
        assert stream.headers["content-type"] == "audio/wav" and stream.headers["transfer-encoding"] == "chunked"
        assert b"".join(stream.iter_bytes()) == b"good morning "


def test_a_voice_that_fails_at_once_is_an_error_and_later_a_broken_connection(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError):
        client.audio.speech.create(model="scribe", voice="alloy", input="?")
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError, httpx2.ReadError)):
        client.audio.speech.create(model="scribe", voice="alloy", input="good ?").read()


@pytest.mark.parametrize("form", ["audio", "sse"])
def test_a_voice_that_says_nothing_is_an_error(client: openai.OpenAI, form: Literal["audio", "sse"]) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.audio.speech.create(model="scribe", voice="alloy", input=" ", stream_format=form)
    assert caught.value.code == "invalid_model_output"


def test_a_voice_may_clear_its_throat_but_has_to_say_something(client: openai.OpenAI) -> None:
    assert client.audio.speech.create(model="scribe", voice="alloy", input="- - good").content == b"good "
    with pytest.raises(openai.InternalServerError) as caught:
        client.audio.speech.create(model="scribe", voice="alloy", input="- -")
    assert caught.value.code == "invalid_model_output"
    with pytest.raises(openai.InternalServerError):
        client.audio.speech.create(model="scribe", voice="alloy", input="- ?")


def test_a_listener_who_leaves_ends_the_speech(client: openai.OpenAI, tmp_path: Any) -> None:
    left = tmp_path / "left"
    endless = " ".join([f"@{left}", *["word"] * 100_000])
    with client.audio.speech.with_streaming_response.create(model="scribe", voice="alloy", input=endless) as stream:
        next(stream.iter_bytes(16))
    deadline = time.monotonic() + PATIENCE
    while not left.exists():
        assert time.monotonic() < deadline, "the model's finally never ran"
        time.sleep(0.01)


def test_speech_comes_as_events_when_it_is_asked_for(client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="scribe", voice="alloy", input="good", stream_format="sse")
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line]
    assert [event["type"] for event in events] == ["speech.audio.delta", "speech.audio.done"]


# ── images and moderations ───────────────────────────────────────────────────────────────────────────────────────────


def test_images_are_painted_n_at_once(client: openai.OpenAI) -> None:
    answer = client.images.generate(model="painter", prompt="a cat", n=3, size="512x512")
    assert answer.data is not None
    assert [base64.b64decode(image.b64_json or "") for image in answer.data] == [b"a cat 1 512x512"] * 3


def test_texts_are_judged(client: openai.OpenAI) -> None:
    answer = client.moderations.create(model="painter", input=["bad", "very bad"])
    assert [result.flagged for result in answer.results] == [False, True]
    assert answer.results[1].category_scores.violence == 0.8


# ── rerank, score, classify ──────────────────────────────────────────────────────────────────────────────────────────


def test_one_reranker_answers_on_three_paths_and_below_its_own_base(gateway: Gateway) -> None:
    ask = {"model": "judge", "query": "q", "documents": ["a", {"text": "ccc"}, "bb"], "top_n": 2}
    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        for base in ("", "/models/judge"):
            status, body = post(gateway, base + path, ask)
            assert status == 200, body
            assert [(item["index"], item["relevance_score"]) for item in body["results"]] == [(1, 3.0), (2, 2.0)]


def test_embeddings_rerank_where_the_operator_says_so(gateway: Gateway) -> None:
    ask = {"model": "vectors", "query": "aaa", "documents": ["oo", "aa", "aaoo"]}
    status, body = post(gateway, "/v1/rerank", ask)
    assert status == 200 and [item["index"] for item in body["results"]] == [1, 2, 0]
    status, body = post(gateway, "/v1/rerank", {**ask, "model": "plain-vectors"})
    assert (status, body["error"]["code"]) == (404, "route_not_supported")


def test_an_error_of_embeddings_names_the_text_by_the_words_of_rerank(gateway: Gateway) -> None:
    for query, documents, where in (("", ["a"], "query"), ("q", ["a", ""], "documents[1]")):
        status, body = post(gateway, "/v1/rerank", {"model": "vectors", "query": query, "documents": documents})
        assert status == 400
        assert (body["error"]["message"], body["error"]["param"]) == (f"{where} is empty", where)


def test_scores_and_classes_have_vllms_shape(gateway: Gateway) -> None:
    status, body = post(gateway, "/v1/score", {"model": "judge", "text_1": "aaa", "text_2": ["a", "aa"]})
    assert status == 200 and [item["score"] for item in body["data"]] == [2.0, 1.0]
    status, body = post(gateway, "/v1/classify", {"model": "judge", "input": "aaaaaaaa"})
    assert status == 200
    assert body["data"] == [{"index": 0, "label": "long", "probs": [0.8, pytest.approx(0.2)], "num_classes": 2}]


def test_the_models_own_tokens_are_the_usage(gateway: Gateway) -> None:
    for path, ask, tokens in (
        ("/v1/rerank", {"query": "q", "documents": ["a", "b"]}, 30),
        ("/v1/score", {"text_1": "a", "text_2": ["b", "c"]}, 40),
        ("/v1/classify", {"input": "a"}, 10),
    ):
        status, body = post(gateway, path, {"model": "judge", **ask})
        assert (status, body["usage"]["total_tokens"]) == (200, tokens), path


def test_errors_have_openais_shape_on_every_path(gateway: Gateway) -> None:
    for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/tokenize", "/models/judge/rerank"):
        status, body = post(gateway, path, {"model": "judge", "messages": 5})
        assert status in (400, 404) and set(body["error"]) == {"message", "type", "param", "code"}, path
