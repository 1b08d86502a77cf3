"""fastText: labels and vectors as the library gives them, and files that would end its process."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fasttext")
import fasttext
import gateway_fasttext
import numpy as np
from fakes import PATIENT
from fasttext_files import (
    DIM,
    LABELS,
    WORDS,
    args,
    dictionary,
    languages,
    loaded,
    matrix,
    problems,
    texts,
    trained,
    vectors,
)
from gateway_fasttext.structure import MAGIC, check_file
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import BadRequest, ConfigError, HTTPError
from gateway.testing import Gateway
from gateway.worker.bodies.truss import document


def library(place: Path) -> Any:
    (file,) = [*place.glob("*.bin"), *place.glob("*.ftz")]
    return fasttext.FastText._FastText(model_path=str(file))


# ── answers ──


@pytest.mark.parametrize("make", [trained, languages])
def test_labels_are_those_of_the_library_for_random_texts(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make(tmp_path / "it")
    model, direct = loaded(place, monkeypatch), library(place)
    for text in texts():
        for k, threshold in ((1, 0.0), (3, 0.0), (500, 0.2)):
            labels, numbers = direct.predict(text.replace("\n", " "), k=k, threshold=threshold)
            found = model.predict({"text": text, "k": k, "threshold": threshold})
            assert found["labels"] == [label.removeprefix("__label__") for label in labels]
            assert found["probabilities"] == [min(number, 1.0) for number in numbers]
    together = model.predict({"texts": texts(), "k": 2})["predictions"]
    assert together == [model.predict({"text": text, "k": 2}) for text in texts()]
    every = model.classify({"input": texts()[4:]})
    order = [label.removeprefix("__label__") for label in direct.get_labels()]
    assert all(list(each) == order and max(each.values()) <= 1 for each in every)
    best = [max(each, key=lambda name: each[name]) for each in every]
    assert best == [model.predict(text)["labels"][0] for text in texts()[4:]]


def test_a_classifier_has_learnt_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(trained(tmp_path), monkeypatch)
    assert [model.predict(text)["labels"] for text in ("a lovely film", "a nasty day", "the meal was a walk")] == [
        ["good"], ["bad"], ["neither"]
    ]  # fmt: skip


@pytest.mark.parametrize("make", [trained, vectors, languages])
def test_vectors_are_those_of_the_library(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make(tmp_path / "it")
    model, direct = loaded(place, monkeypatch), library(place)
    several = [text for text in texts() if text not in LABELS]
    lines = [text.replace("\n", " ") for text in several]
    for unit, one in (("sentence", direct.get_sentence_vector), ("word", direct.get_word_vector)):
        found = model.embeddings({"input": several, "unit": unit})
        assert all((each == one(text)).all() for each, text in zip(found, lines, strict=True))
    assert (model.embeddings({"input": several})[20] == direct.get_sentence_vector(lines[20])).all()
    (found,) = model.embeddings({"input": ["good film"], "normalize": True, "dimensions": model.known.dimensions})
    assert np.linalg.norm(found) == pytest.approx(1)


def test_a_label_is_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would read behind its matrix, and answer with what is there."""
    model = loaded(trained(tmp_path / "labels"), monkeypatch)
    assert len(model.embeddings({"input": ["__label__good"]})) == 1  # of a sentence, it leaves labels out
    with pytest.raises(BadRequest, match=r"input\[1\] has a label of the model, which is no word"):
        model.embeddings({"input": ["film", "__label__good"], "unit": "word"})
    place = tmp_path / "vectors"
    place.mkdir()
    numbers = np.ones((len(WORDS), DIM)), np.ones((len(WORDS), DIM))
    parts = struct.pack("<2i", MAGIC, 12), args(model=2), dictionary(WORDS, LABELS), *map(matrix, numbers)
    (place / "model.bin").write_bytes(b"".join(parts))
    model = loaded(place, monkeypatch)
    for body in ({"input": "__label__good", "unit": "word"}, {"input": "a\t__label__good film"}):
        with pytest.raises(BadRequest, match=r"input\[0\] has a label of the model"):
            model.embeddings(body)


def test_a_text_without_a_known_word_has_no_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a line is a word, which a model may lack."""
    place = tmp_path / "it"
    place.mkdir()
    numbers = np.ones((len(WORDS), DIM)), np.ones((3, DIM))
    parts = struct.pack("<2i", MAGIC, 12), args(), dictionary(WORDS, LABELS), *map(matrix, numbers)
    (place / "model.bin").write_bytes(b"".join(parts))
    model = loaded(place, monkeypatch)
    assert model.predict("zzz") == {"labels": [], "probabilities": []}
    with pytest.raises(BadRequest, match="has no word that the model knows"):
        model.classify({"input": ["film", "zzz"]})


def test_numbers_that_are_none_are_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = matrix(np.full((len(WORDS), DIM), np.nan))
    parts = struct.pack("<2i", MAGIC, 12), args(model=2), dictionary(WORDS), none, none
    (tmp_path / "model.bin").write_bytes(b"".join(parts))
    with pytest.raises(HTTPError, match="the model computed NaN or infinity") as error:
        loaded(tmp_path, monkeypatch).embeddings({"input": ["film"], "unit": "word"})
    assert error.value.status == 500


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": ({}, 'send one of "text" and "texts"'),
    "two": ({"text": "a", "texts": ["b"]}, 'send one of "text" and "texts"'),
    "a number": ({"text": 5}, "text has to be a text"),
    "a number in a list": (["a", 5], "texts[1] has to be a text"),
    "half a character": ("\ud800", "text has half a character"),
    "another field": ({"text": "a", "top": 1}, "there is no field 'top' (have: text, texts, k, threshold)"),
    "no labels": ({"text": "a", "k": 0}, "k has to be a whole number from 1 on"),
    "a truth value": ({"text": "a", "k": True}, "k has to be a whole number from 1 on"),
    "a probability": ({"text": "a", "threshold": 1.5}, "threshold has to be a number from 0 to 1"),
    "a NaN": ({"text": "a", "threshold": float("nan")}, "threshold has to be a number from 0 to 1"),
}


def test_a_wrong_request_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(trained(tmp_path), monkeypatch)
    for body, told in WRONG.values():
        with pytest.raises(BadRequest) as error:
            model.predict(body)
        assert told in error.value.message
    for body, told in (
        ({"input": ["a"], "k": 2}, "classify answers with every label: use predict for k"),
        ({"input": ["\ud800"]}, "input[0] has half a character"),
    ):
        with pytest.raises(BadRequest) as error:
            model.classify(body)
        assert told in error.value.message
    for body, told in (
        ({"input": ["a"], "unit": "line"}, 'unit has to be "sentence" or "word"'),
        ({"input": ["a"], "dimensions": 3}, "only gives 8 dimensions"),
        ({"input": []}, "input must be a string or a list of strings"),
        ({"input": [5]}, "input[0] has to be a text"),
        ({"input": ["a"], "prompt": "query: "}, "this model has no prompts"),
        ({"input": ["a"], "truncate_prompt_tokens": 5}, "does not support truncate_prompt_tokens"),
    ):
        with pytest.raises(BadRequest) as error:
            model.embeddings(body)
        assert told in error.value.message


# ── any body ──

BODY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "texts", "k", "threshold", "model", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        return [loaded(make(place / make.__name__), patch) for make in (trained, languages)]


def answers_or_refuses(models: Any, body: Any) -> None:
    for model in models:
        try:
            found = model.predict(body)
        except BadRequest as error:
            assert 0 < len(error.message) < 2000
            error.message.encode()
        else:
            document(found)


@settings(PATIENT, max_examples=200)
@given(body=BODY)
def test_a_body_is_answered_or_refused(models: Any, body: Any) -> None:
    answers_or_refuses(models, body)


@pytest.mark.slow
@settings(PATIENT, max_examples=2000)
@given(body=BODY)
def test_two_thousand_bodies_are_answered_or_refused(models: Any, body: Any) -> None:
    answers_or_refuses(models, body)


# ── files ──


def forged(place: Path, change: Any) -> Path:
    file = place / "model.bin"
    data = bytearray(file.read_bytes())
    change(data)
    file.write_bytes(bytes(data))
    return place


def put(at: int, form: str, value: Any) -> Any:
    return lambda data: struct.pack_into(f"<{form}", data, at, value)


HEAD, SIZES = 8, 8 + 56  # behind the version, and behind the arguments
FORGED = {
    "another version": (put(4, "i", 13), "it has version 13 of the format"),
    "no dimensions": (put(HEAD, "i", 0), "its vectors have 0 numbers"),
    "other dimensions": (put(HEAD, "i", 9), "its matrix of words has the shape"),
    "another loss": (put(HEAD + 24, "i", 9), "it has the loss 9 and the model 3"),
    "another model": (put(HEAD + 28, "i", 7), "it has the loss 3 and the model 7"),
    "negative buckets": (put(HEAD + 32, "i", -1), "it has -1 buckets"),
    "no buckets": (put(HEAD + 40, "i", 3), "it has n-grams, but no buckets for them"),
    "no buckets of words": (put(HEAD + 20, "i", 2), "it has n-grams, but no buckets for them"),
    "no entries": (lambda data: struct.pack_into("<3i", data, SIZES, 0, 0, 0), "it has 0 entries"),
    "other entries": (put(SIZES, "i", 23), "it has 23 entries, but 21 words and 3 labels"),
    "very many": (
        lambda data: struct.pack_into("<3i", data, SIZES, 1 << 30, (1 << 30) - 3, 3),
        "it has 1073741824 entri",
    ),
    "more entries": (lambda data: struct.pack_into("<3i", data, SIZES, 9000, 8997, 3), "entry"),
    "words as labels": (lambda data: struct.pack_into("<3i", data, SIZES, 24, 20, 4), "entry 20 should be a label"),
    "a count": (put(SIZES + 28 + 5, "q", -1), "entry 0 occurred -1 times"),
    "large counts": (put(SIZES + 28 + 5, "q", 1 << 60), "its entries occurred"),
    "pruned": (put(SIZES + 20, "q", 5), "it says that words were removed, but is not quantized|n-gram"),
    "negative pruning": (put(SIZES + 20, "q", -7), "it keeps -7 n-grams"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_number_that_leads_nowhere_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, told = FORGED[name]
    place = forged(trained(tmp_path), change)
    (what,) = problems(place)
    assert any(each in what for each in told.split("|")), what
    with pytest.raises(ConfigError, match="is not a model of fastText, or damaged"):
        loaded(place, monkeypatch)


def test_a_file_that_is_cut_anywhere_is_told(tmp_path: Path) -> None:
    for make in (trained, languages):
        place = make(tmp_path / make.__name__)
        (file,) = place.iterdir()
        data = file.read_bytes()
        for end in [*range(4, 400, 7), *range(len(data) // 2, len(data), len(data) // 50), len(data) - 1]:
            file.write_bytes(data[:end])
            assert "is not a model of fastText, or damaged" in problems(place)[0], end


def test_codes_of_a_quantized_file_are_compared(tmp_path: Path) -> None:
    place = languages(tmp_path)
    file = place / "model.ftz"
    whole = check_file(file)
    assert (whole.is_quantized, whole.labels, whole.dimensions) == (True, 176, 16)
    data = file.read_bytes()
    at = data.index(struct.pack("<qq", whole.words + struct.unpack_from("<q", data, SIZES + 20)[0], 16))
    for shift, form, value, told in (
        (16, "i", 5, "codes"),
        (0, "q", 7, "has the shape"),
        (-1, "B", 2, "its flag of norms is 2"),
        (-2, "B", 0, "it says that words were removed, but is not quantized"),
    ):
        damaged = bytearray(data)
        struct.pack_into(f"<{form}", damaged, at + shift, value)
        file.write_bytes(bytes(damaged))
        assert "is not a model of fastText, or damaged" in problems(place)[0], told


def test_no_damaged_file_ends_the_process(tmp_path: Path) -> None:
    """Every byte of the structure is changed in turn; the library reads what is accepted, in another process."""
    for make, most in ((trained, 160), (vectors, 160)):
        place = make(tmp_path / make.__name__)
        data = (place / "model.bin").read_bytes()
        accepted = []
        for at in range(4, min(most, len(data))):
            for value in (0, 1, 255):
                damaged = bytearray(data)
                damaged[at] = value
                (place / "model.bin").write_bytes(bytes(damaged))
                try:
                    check_file(place / "model.bin")
                except ConfigError:
                    continue
                name = place / f"{at}-{value}.bin"
                name.write_bytes(bytes(damaged))
                accepted.append(name.name)
        program = (
            "import sys, pathlib, fasttext\n"
            "for file in sorted(pathlib.Path(sys.argv[1]).glob('*-*.bin')):\n"
            "    try:\n"
            "        model = fasttext.FastText._FastText(model_path=str(file))\n"
            "        model.predict('a good film zzz', k=-1)\n"
            "    except (ValueError, RuntimeError): pass\n"
            "    else: model.get_sentence_vector('a good film zzz')\n"
            "print('read')\n"
        )
        done = subprocess.run([sys.executable, "-c", program, place], capture_output=True, text=True, timeout=200)
        assert done.stdout == "read\n", done.stderr
        assert len(accepted) > 50


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.ftz")
    (tmp_path / "config.yaml").write_text("framework: fasttext\n")
    assert problems(tmp_path) != []


def test_nothing_of_the_library_is_imported_to_find_and_check(tmp_path: Path) -> None:
    trained(tmp_path / "labels")
    vectors(tmp_path / "vectors")
    program = (
        "import sys; from pathlib import Path; import gateway_fasttext\n"
        "from gateway.directories.discovery import discover\n"
        "from gateway.plugins import Plugins\n"
        "for spec in discover([Path(sys.argv[1])], Plugins.load()).specs:\n"
        "    print(spec.name, spec.served_by, spec.target.split(':')[1], list(gateway_fasttext.check_model(spec)))\n"
        "assert not {'fasttext', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == [
        "labels fasttext FastTextClassifier []", "vectors fasttext FastTextEmbedder []"
    ], done.stderr  # fmt: skip


def test_another_binary_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"nothing of it")
    assert gateway_fasttext.find_model(tmp_path, {}) is None


# ── served ──


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("models")
    trained(root / "labels")
    vectors(root / "vectors")
    with Gateway(root, timeout=200) as gateway:
        yield gateway


def post(gateway: Gateway, path: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(f"{gateway.url}{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_all_routes_answer(served: Gateway) -> None:
    status, answer = post(served, "/v1/models/labels:predict", {"text": "a lovely film", "k": 2})
    assert (status, answer["labels"][0], len(answer["probabilities"])) == (200, "good", 2)
    status, answer = post(served, "/v1/classify", {"model": "labels", "input": ["a lovely film", "a nasty day"]})
    assert (status, [each["label"] for each in answer["data"]]) == (200, ["good", "bad"])
    question = {"type": "choice", "instructions": "Its tone.", "choices": [{"value": "good"}, {"value": "bad"}]}
    body = {"model": "labels", "input": "a lovely film", "questions": [question]}
    status, answer = post(served, "/v1/decisions", body)
    assert status == 200 and '"choice": "good"' in json.dumps(answer)
    for model in ("labels", "vectors"):
        body = {"model": model, "input": ["film", "day"], "unit": "word"}
        status, answer = post(served, "/v1/embeddings", body)
        assert (status, len(answer["data"][1]["embedding"])) == (200, DIM)
    status, answer = post(served, "/v1/models/labels:predict", {"text": 5})
    assert status == 400 and "text has to be a text" in answer["error"]
