"""Labels of the client's choice, with answers compared with those of the library's pipeline."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
from classifier_folders import LENGTH, save, texts

from gateway import BadRequest, ConfigError

NLI = {0: "contradiction", 1: "neutral", 2: "entailment"}
TEXTS = [text for text in texts() if len(text) < 3000]
WORDS = ["good", "bad", "a film", "c", "12", "é", "x y z"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("nli")
    reversed_labels = {0: "ENTAILMENT", 1: "NOT_ENTAILMENT"}
    two = save(root / "two", "roberta", labels=reversed_labels, max_position_embeddings=LENGTH + 1)
    return {"three": save(root / "three", labels=NLI), "two": two}


def load(path: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Any:
    import gateway_classifiers
    from gateway_classifiers.zero_shot import ZeroShot

    spec = gateway_classifiers.find_model(path, overrides)
    assert spec is not None and spec.target == "gateway_classifiers.zero_shot:ZeroShot"
    monkeypatch.chdir(path)
    model = ZeroShot(spec.config)
    model.load()
    return model


def library(path: Path) -> Any:
    from transformers import pipeline

    return pipeline("zero-shot-classification", model=str(path), device="cpu")


def by_label(answer: Any) -> dict[str, float]:
    if "labels" in answer:
        return dict(zip(answer["labels"], answer["scores"], strict=True))
    return {each["label"]: each["score"] for each in answer}


@pytest.mark.parametrize("name", ["three", "two"])
def test_scores_are_those_of_the_pipeline(name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, judge, of = load(folders[name], monkeypatch), library(folders[name]), random.Random(1)
    for number, text in enumerate(TEXTS):
        given: dict[str, Any] = {"candidate_labels": of.sample(WORDS, of.randint(1, 4)), "multi_label": number % 3 == 0}
        if number % 2:
            given["hypothesis_template"] = "{} is it!"
        (answer,) = model.predict_batch([{"inputs": text, "parameters": {**given, "truncate": True}}])
        if not text:  # which the pipeline takes for no text at all
            assert by_label(answer).keys() == set(given["candidate_labels"])
            continue
        wanted = judge(text, **given)
        assert by_label(answer) == pytest.approx(by_label(wanted), abs=1e-5), (text, given)
        assert [each["label"] for each in answer] == sorted(
            by_label(answer), key=lambda label: -by_label(answer)[label]
        )


def test_classify_takes_labels_or_has_its_own(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["three"], monkeypatch)
    chosen, own, comma, refused = model.classify_batch(
        [
            {"input": "a good film", "candidate_labels": ["good", "bad"]},
            {"input": "a good film"},
            {"input": "a good film", "candidate_labels": "good, bad", "multi_label": True},
            {"input": "a good film", "candidate_labels": ["good", "good"]},
        ]
    )
    judge = library(folders["three"])
    assert [each["label"] for each in chosen] == ["good", "bad"]
    assert by_label(chosen) == pytest.approx(by_label(judge("a good film", ["good", "bad"])), abs=1e-5)
    assert by_label(comma) == pytest.approx(by_label(judge("a good film", ["good", "bad"], multi_label=True)), abs=1e-5)
    assert [each["label"] for each in own] == list(NLI.values())
    assert isinstance(refused, BadRequest) and "a list of different texts" in str(refused)


def test_questions_are_about_anything(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, judge = load(folders["three"], monkeypatch), library(folders["three"])
    choices = [{"value": "good"}, {"value": "bad", "description": "a bad film"}]
    questions = [
        {"type": "predicate", "instructions": "good is it!"},
        {"type": "choice", "instructions": "Its tone.", "choices": choices},
        {"type": "choice", "instructions": [{"type": "input_text", "text": "{} is it!"}], "choices": choices[:1] * 2},
        {"type": "choice", "instructions": "good is it!", "choices": [{"value": False}, {"value": True}]},
        {"type": "score", "instructions": "How good?", "levels": [{"label": "bad"}, {"label": "good"}]},
    ]
    messages = [{"role": "user", "content": [{"type": "input_text", "text": "a film"}]}]
    first, second = model.decide_batch(
        [{"input": "a film", "questions": questions}, {"input": messages, "questions": questions[:1]}]
    )
    alone = judge("a film", ["good"], hypothesis_template="{} is it!")["scores"][0]
    assert first[0] == pytest.approx(alone, abs=1e-5) and second == [pytest.approx(alone, abs=1e-5)]
    among = by_label(judge("a film", ["good", "a bad film"]))
    assert first[1] == pytest.approx([among["good"], among["a bad film"]], abs=1e-5)
    assert first[2] == pytest.approx([0.5, 0.5])
    assert first[3] == pytest.approx([1 - alone, alone], abs=1e-5)
    levels = by_label(judge("a film", ["bad", "good"]))
    assert first[4] == pytest.approx([levels["bad"], levels["good"]], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"inputs": "a"}, "candidate_labels is missing"),
        ({"inputs": "a", "parameters": {"candidate_labels": []}}, "a list of 1 to 255 texts"),
        ({"inputs": "a", "parameters": {"candidate_labels": ["a", 5]}}, "a list of texts"),
        ({"inputs": "a", "parameters": {"candidate_labels": [str(n) for n in range(256)]}}, "1 to 255"),
        ({"inputs": "a", "candidate_labels": ["a"], "hypothesis_template": "no gap"}, "a text with one {}"),
        ({"inputs": "a", "candidate_labels": ["a"], "hypothesis_template": "{0.__class__} {}"}, "a text with one {}"),
        ({"inputs": "a", "candidate_labels": ["a"], "hypothesis_template": "{:999999999}"}, "a text with one {}"),
        ({"inputs": "a", "candidate_labels": ["a " * 70]}, "is longer than what the model reads"),
        ({"inputs": "a " * 80, "candidate_labels": ["a"]}, "maximum context length is 64 tokens"),
    ],
)
def test_labels_that_cannot_be_judged_are_refused(
    body: Any, says: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["three"], monkeypatch)
    refused, good = model.predict_batch([body, {"inputs": "a", "candidate_labels": ["a", "b"]}])
    assert isinstance(refused, BadRequest) and sum(by_label(good).values()) == pytest.approx(1)
    with pytest.raises(BadRequest, match=says):
        raise refused


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"type": "choice", "instructions": "a", "choices": [{"value": True}, {"value": "b"}]}, "among texts, or"),
        ({"type": "predicate", "instructions": [{"type": "input_image", "image_url": "x"}]}, "reads texts only"),
    ],
)
def test_questions_that_are_no_texts_are_refused(
    question: Any, says: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["three"], monkeypatch)
    (refused,) = model.decide_batch([{"input": "a", "questions": [question]}])
    assert isinstance(refused, BadRequest) and says in str(refused)
    many = [{"type": "predicate", "instructions": "a"}] * 400
    choices = [{"value": str(number)} for number in range(255)]
    (refused,) = model.decide_batch(
        [{"input": "a", "questions": [*many, *[{"type": "choice", "instructions": "a", "choices": choices}] * 15]}]
    )
    assert isinstance(refused, BadRequest) and "4096 are the most" in str(refused)


def test_a_long_text_is_cut_and_not_its_label(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["three"], monkeypatch, options={"truncate": True})
    long, labels = "good film " * LENGTH, ["x y z", "a b c d e f g"]
    (answer,) = model.classify_batch([{"input": long, "candidate_labels": labels}])
    assert by_label(answer) == pytest.approx(by_label(library(folders["three"])(long, labels)), abs=1e-5)


def test_a_text_is_weighed_with_each_of_its_labels(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["three"], monkeypatch)
    labels = [f"label {number}" for number in range(250)]
    asked = {"candidate_labels": labels, "truncate": True}
    one, long, many = model.predict_batch(
        [
            {"inputs": "a film", "parameters": asked},
            {"inputs": "a film " * 2500, "parameters": asked},
            {"inputs": ["a film"] * 132, "parameters": asked},
        ]
    )
    assert len(one) == 250
    for each in (long, many, *model.classify_batch([{"input": "a film " * 2500, "candidate_labels": labels}])):
        assert isinstance(each, BadRequest) and "are read with each of 250 labels" in str(each)
    question = {"type": "predicate", "instructions": "it is good"}
    (found,) = model.decide_batch([{"input": "a film " * 2500, "questions": [question] * 250}])
    assert isinstance(found, BadRequest) and "17,500 characters are read with each of 250 labels" in str(found)


def test_the_task_may_be_chosen(folders: dict[str, Path], tmp_path: Path) -> None:
    import gateway_classifiers

    spec = gateway_classifiers.find_model(folders["three"], {"options": {"task": "classify"}})
    assert spec is not None and spec.target.endswith(":Classifier")
    with pytest.raises(
        ConfigError, match=r"options.task is zero-shot, but no label in config.json is entailment: negat"
    ):
        gateway_classifiers.find_model(save(tmp_path), {"options": {"task": "zero-shot"}})
