"""Tasks that read texts, with answers compared with those of the pipelines of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
import torch
from classifier_folders import LENGTH, texts
from pipeline_folders import ENTITIES, load, masked, named, near, save_texts

from gateway import BadRequest, ConfigError, HTTPError

TEXTS = [text for text in texts() if len(text) < 3000]
CUT = {"truncate": True}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("texts")
    return {
        "entities": save_texts(root / "entities", "AutoModelForTokenClassification", **named(ENTITIES)),
        "gaps": save_texts(root / "gaps", "AutoModelForMaskedLM"),
        "answers": save_texts(root / "answers", "AutoModelForQuestionAnswering"),
    }


def library(task: Any, path: Path, **settings: Any) -> Any:
    from transformers import pipeline

    return pipeline(task, model=str(path), device="cpu", **settings)


def ask(model: Any, inputs: Any, **parameters: Any) -> Any:
    (found,) = model.predict_batch([{"inputs": inputs, "parameters": parameters}])
    return found


# ── entities ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_entities_are_those_of_the_pipeline(
    strategy: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["entities"], monkeypatch)
    assert model.network.together and model.network.length == LENGTH
    found = ask(model, TEXTS, aggregation_strategy=strategy, **CUT)
    wanted = library("token-classification", folders["entities"], aggregation_strategy=strategy)(TEXTS)
    assert len(found) == len(TEXTS) == 200
    for text, one, other in zip(TEXTS, found, wanted, strict=True):
        assert near(one, [{**each, "score": float(each["score"])} for each in other]), text
    assert sum(map(len, found)) > 500
    if strategy == "simple":
        assert {each["entity_group"] for one in found for each in one} >= {"PER", "LOC"}
        assert all(text[each["start"] : each["end"]] for text, one in zip(TEXTS, found, strict=True) for each in one)
    json.dumps(found)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "qwen2"])
def test_other_architectures_have_entities_too(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {
        "roberta": {"max_position_embeddings": LENGTH + 1},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        "qwen2": {"num_key_value_heads": 2},
    }[kind]
    path = save_texts(tmp_path, "AutoModelForTokenClassification", kind, **settings, **named(ENTITIES))
    model = load(path, monkeypatch)
    wanted = library("token-classification", path, aggregation_strategy="simple")(TEXTS[:80])
    assert near(ask(model, TEXTS[:80], **CUT), [[{**e, "score": float(e["score"])} for e in one] for one in wanted])


def test_a_long_text_is_divided_with_stride(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["entities"], monkeypatch)
    long = [text for text in TEXTS if len(text) > 100] + ["good film a b c " * 60, "short"]
    wanted = library("token-classification", folders["entities"], aggregation_strategy="first", stride=8)
    for text in long[:40] + long[-2:]:
        found = ask(model, text, aggregation_strategy="first", stride=8)
        assert near(found, [{**each, "score": float(each["score"])} for each in wanted(text)]), text
    assert max(each["end"] for each in ask(model, "good film a b c " * 60, stride=8)) > 900
    for parameters, says in (
        ({"stride": 8, "aggregation_strategy": "none"}, "needs an aggregation_strategy"),
        ({"stride": LENGTH - 2}, "stride must be below 62"),
    ):
        refused = ask(model, "a", **parameters)
        assert isinstance(refused, BadRequest) and says in str(refused)
    refused = ask(model, "a " * 20_000, stride=8)
    assert isinstance(refused, BadRequest) and refused.code == "context_length_exceeded"


def test_labels_can_be_left_out(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["entities"], monkeypatch)
    usual = ask(model, TEXTS[:40], aggregation_strategy="none", **CUT)
    out = usual[-1][0]["entity"]
    wanted = library("token-classification", folders["entities"], aggregation_strategy="none", ignore_labels=[out])
    found = ask(model, TEXTS[:40], aggregation_strategy="none", ignore_labels=[out], **CUT)
    assert near(found, [[{**e, "score": float(e["score"])} for e in one] for one in wanted(TEXTS[:40])])
    assert out not in {each["entity"] for one in found for each in one}


# ── gaps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_gaps_are_filled_as_by_the_pipeline(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["gaps"], monkeypatch)
    inputs = masked(TEXTS)
    assert any(text.count("[MASK]") > 1 for text in inputs)
    fill = library("fill-mask", folders["gaps"], tokenizer_kwargs={"truncation": True})
    found = ask(model, inputs, **CUT)
    for text, one in zip(inputs, found, strict=True):
        assert near(one, fill(text)), text
    found = ask(model, "a [MASK] film", top_k=3)
    assert near(found, fill("a [MASK] film", top_k=3)) and len(found) == 3
    found = ask(model, "a [MASK] film", targets=["good", "bad", "##z"])
    assert near(found, fill("a [MASK] film", targets=["good", "bad", "##z"])) and len(found) == 3


@pytest.mark.parametrize(
    ("text", "parameters", "says"),
    [
        ("a film", {}, r"has no \[MASK\]"),
        ("", {}, r"has no \[MASK\]"),
        ("[MASK]", {"targets": ["goodness"]}, "'goodness' is 5 tokens of this model"),
        ("[MASK]", {"targets": [""]}, "'' is 0 tokens"),
        ("[MASK]", {"targets": []}, "at least one"),
        ("[MASK] " * 50, {"top_k": 1000}, "50 masks with 1000 tokens each are too many"),
        ("[MASK]", {"top_k": 0}, "top_k must be a whole number from 1 to 1000"),
        ("[MASK]", {"top_k": True}, "top_k must be"),
        ("[MASK]", {"targets": "good", "tokenizer_kwargs": {}}, "no parameter tokenizer_kwargs.*top_k, targets"),
    ],
)
def test_a_gap_that_cannot_be_filled_is_refused(
    text: str, parameters: dict[str, Any], says: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["gaps"], monkeypatch)
    model.vocabulary = {**model.vocabulary, **{f"more{number}": 5 for number in range(1000)}}  # as large ones are
    refused = ask(model, text, **parameters)
    assert isinstance(refused, BadRequest)
    with pytest.raises(BadRequest, match=says):
        raise refused


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def best_spans(path: Path, question: str, context: str, most: int, count: int) -> list[tuple[float, int, int]]:
    """The best spans of tokens of a context that needs no division, found by trying all of them."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForQuestionAnswering.from_pretrained(path).eval()
    encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        output = model(**encoded)
    inside = [place for place, which in enumerate(encoded.sequence_ids(0)) if which == 1]
    starts, ends = (
        dict(zip([0, *inside], each[0][[0, *inside]].double().softmax(-1).tolist(), strict=True))
        for each in (output.start_logits, output.end_logits)
    )
    spans = [
        (starts[first] * ends[last], offsets[first][0], offsets[last][1])
        for first in inside
        for last in inside
        if first <= last < first + most
    ]
    return sorted(spans, reverse=True)[:count]


def questions(count: int = 200) -> list[tuple[str, str]]:
    contexts = [text for text in texts(600, seed=9) if text.strip() and "\x00" not in text and "[" not in text]
    return [("good film?", text[:45]) for text in contexts if any(letter.isalnum() for letter in text[:45])][:count]


def test_answers_are_the_best_spans(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["answers"], monkeypatch)
    pairs = questions()
    assert len(pairs) == 200
    inputs = [{"question": question, "context": context} for question, context in pairs]
    found = ask(model, inputs, align_to_words=False, top_k=3, max_answer_len=4)
    for (question, context), answers in zip(pairs, found, strict=True):
        wanted = best_spans(folders["answers"], question, context, 4, 3)
        assert [each["answer"] for each in answers] == [context[start:end] for _, start, end in wanted]
        assert near([each["score"] for each in answers], [score for score, _, _ in wanted])
    one = ask(model, inputs[0], align_to_words=False, max_answer_len=4)
    assert near(one, found[0][0])


def test_answers_are_whole_words_and_may_be_empty(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["answers"], monkeypatch)
    context = "abc defg, hijk! lmno"
    for given in ask(model, {"question": "good?", "context": context}, top_k=20):
        before, after = context[: given["start"]], context[given["end"] :]
        assert not (before[-1:].isalnum() and given["answer"][:1].isalnum()), given
        assert not (after[:1].isalnum() and given["answer"][-1:].isalnum()), given
    asked = {"question": "good?", "context": context}
    answers = ask(model, asked, top_k=100, handle_impossible_answer=True)
    (none,) = [each for each in answers if each["answer"] == ""]
    assert (none["start"], none["end"]) == (0, 0) and 0 <= none["score"] <= 1
    assert not any(each["answer"] == "" for each in ask(model, asked, top_k=100))


def test_a_long_context_is_divided(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["answers"], monkeypatch)
    context = "x " * 200 + "film a b"
    answers = ask(model, {"question": "good?", "context": context}, top_k=100, max_answer_len=2)
    assert all(context[each["start"] : each["end"]] == each["answer"] for each in answers)
    places = [(each["start"], each["end"]) for each in answers]
    assert len(set(places)) == len(places) and max(start for start, _ in places) > 64 > min(
        start for start, _ in places
    )
    for fields, says in (
        ({"question": "a " * 70, "context": "a"}, "the question alone has"),
        ({"question": "", "context": "a"}, "question must be a text"),
        ({"question": "a", "context": " "}, "context must be a text"),
        ({"question": "a"}, "context must be a text"),
        ({"question": "a", "context": "a", "x": 1}, "question and context only"),
        ("a", "an object with question and context"),
        ({"question": "a", "context": "\u200b"}, "no tokens"),
    ):
        refused = ask(model, fields)
        assert isinstance(refused, BadRequest) and says in str(refused), (fields, refused)
    for parameters, says in (
        ({"max_seq_len": 65}, "max_seq_len must be at most 64"),
        ({"doc_stride": 60}, "doc_stride must be below"),
        ({"max_question_len": 3}, "no parameter max_question_len"),
    ):
        refused = ask(model, {"question": "a", "context": "a"}, **parameters)
        assert isinstance(refused, BadRequest) and says in str(refused)


# ── vectors of tokens ────────────────────────────────────────────────────────────────────────────────────────────────


def test_vectors_are_those_of_the_pipeline(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["gaps"], monkeypatch, options={"task": "feature-extraction"})
    extract = library("feature-extraction", folders["gaps"])
    for start in range(0, 200, 20):
        some = TEXTS[start : start + 20]
        found = ask(model, some, **CUT)
        for text, one in zip(some, found, strict=True):
            assert near(one, extract(text, truncation=True), 1e-4), text
    refused = ask(model, ["good film " * 20] * 1024, **CUT)
    assert isinstance(refused, BadRequest) and str(refused).startswith("inputs[") and "send fewer texts" in str(refused)


# ── of all tasks ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_long_text_is_refused_alone_unless_it_may_be_cut(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "a " * LENGTH
    model = load(folders["entities"], monkeypatch)
    good, refused, listed = model.predict_batch([{"inputs": "a"}, {"inputs": long}, {"inputs": ["a", long]}])
    assert isinstance(good, list)
    assert isinstance(refused, BadRequest) and refused.code == "context_length_exceeded"
    assert isinstance(listed, BadRequest) and str(listed).startswith("inputs[1]: This model's maximum context length")
    model = load(folders["entities"], monkeypatch, options={"truncate": True})
    assert isinstance(ask(model, long), list)
    assert isinstance(ask(model, long, truncate=False), BadRequest)
    with pytest.raises(ConfigError, match=r"options.truncate must be true or false"):
        load(folders["entities"], monkeypatch, options={"truncate": 1})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("a text", "must be an object with inputs"),
        ({}, "must be an object with inputs"),
        ({"inputs": None}, "must be an object with inputs"),
        ({"inputs": 5}, "must be a text"),
        ({"inputs": ["a", 5]}, r"inputs\[1\]: the input must be a text"),
        ({"inputs": ["a"] * 1025}, "1,025 entries, and 1,024 are the most"),
        ({"inputs": "a", "parameters": []}, "parameters must be an object"),
        ({"inputs": "a", "top_k": 3}, "no parameter top_k"),
        ({"inputs": "a", "stride": 3, "parameters": {"stride": 4}}, "stands in parameters and beside inputs"),
        ({"inputs": "a", "parameters": {"aggregation_strategy": "all"}}, "one of none, simple, first, average, max"),
        ({"inputs": "a", "parameters": {"ignore_labels": [1]}}, "ignore_labels must be a list"),
    ],
)
def test_a_request_of_another_form_is_refused(
    body: Any, says: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["entities"], monkeypatch)
    refused, good = model.predict_batch([body, {"inputs": "a", "stride": None, "options": {"use_cache": True}}])
    assert isinstance(refused, BadRequest) and isinstance(good, list)
    with pytest.raises(BadRequest, match=says):
        raise refused
    assert ask(model, []) == []


@pytest.mark.parametrize("name", ["entities", "gaps", "answers"])
def test_a_number_that_is_none_is_the_error_of_its_text(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders[name], monkeypatch)
    with torch.no_grad():
        model.model.get_input_embeddings().weight[5] = float("nan")  # "film"
    of = {"entities": "{}", "gaps": "{} [MASK]"}.get(name)
    inputs = [of.format(word) if of else {"question": "a", "context": word} for word in ("film", "good")]
    if name == "gaps":
        model.model.get_output_embeddings().weight = torch.nn.Parameter(torch.randn(model.model.config.vocab_size, 32))
    bad, good = model.predict_batch([{"inputs": each} for each in inputs])
    assert isinstance(bad, HTTPError) and bad.code == "invalid_model_output"
    assert isinstance(good, (list, dict))


@pytest.mark.parametrize("name", ["entities", "gaps", "answers"])
def test_the_example_of_the_schema_is_answered(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders[name], monkeypatch)
    (example,) = model.input_schema["examples"]
    (answer,) = model.predict_batch([example])
    assert isinstance(answer, (list, dict)) and model.output_schema
