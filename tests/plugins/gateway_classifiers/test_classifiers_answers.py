"""Classifiers and cross encoders, with answers compared with those of transformers and sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
import torch
from classifier_folders import LENGTH, MOODS, load, save, save_words, texts

from gateway import BadRequest, HTTPError

TEXTS = texts()
PAIRS = list(zip(texts(seed=1), reversed(texts(seed=2)), strict=True))
CLOSE = 1e-5
THREE = {0: "sport", 1: "news", 2: "weather"}


def of_pipeline(path: Path, inputs: list[str]) -> list[dict[str, float]]:
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(path), device="cpu", top_k=None, truncation=True)
    return [{each["label"]: each["score"] for each in found} for found in classify(inputs)]


def by_label(found: Any) -> dict[str, float]:
    return {each["label"]: each["score"] for each in found}


def differ(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    assert one.keys() == other.keys()
    return max(abs(one[label] - other[label]) for label in one)


@pytest.mark.parametrize(
    ("kind", "labels", "settings"),
    [
        ("bert", MOODS, {}),
        ("bert", THREE, {"problem_type": "single_label_classification"}),
        ("bert", THREE, {"problem_type": "multi_label_classification"}),
        ("bert", 5, {}),
        ("roberta", THREE, {"max_position_embeddings": LENGTH + 1}),
        ("distilbert", MOODS, {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
        ("modernbert", THREE, {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": None, "eos_token_id": None}),
        ("qwen2", THREE, {"num_key_value_heads": 2}),
    ],
)
def test_probabilities_are_those_of_the_pipeline(
    kind: str, labels: Any, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(save(tmp_path, kind, labels, **settings), monkeypatch, options={"truncate": True})
    assert model.network.together and model.network.length == LENGTH
    found = model.classify_batch([{"input": text} for text in TEXTS])
    assert [each["label"] for each in found[0]] == [labels[i] for i in labels] if isinstance(labels, dict) else 5
    wanted = of_pipeline(tmp_path, TEXTS)
    assert max(differ(by_label(one), other) for one, other in zip(found, wanted, strict=True)) < CLOSE
    assert len({round(each[0]["score"], 4) for each in found}) > 50  # they are not all alike


def test_positions_behind_that_of_padding_are_no_room_for_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "roberta")
    save_words(tmp_path, model_max_length=10**30)
    assert load(tmp_path, monkeypatch).network.length == LENGTH - 1


@pytest.mark.parametrize("saved", ["transformers", "sentence-transformers", "old", "identity", "shorter"])
def test_scores_are_those_of_a_cross_encoder(saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cross = pytest.importorskip("sentence_transformers").CrossEncoder
    settings = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"} if saved == "old" else {}
    path = save(tmp_path / "plain", labels=1, **settings)
    if saved in ("sentence-transformers", "identity", "shorter"):
        function = {"activation_fn": torch.nn.Identity()} if saved == "identity" else {}
        made = cross(str(path), device="cpu", max_length=20 if saved == "shorter" else None, **function)
        path = tmp_path / "saved"
        made.save_pretrained(str(path))
    wanted = cross(str(path), device="cpu", local_files_only=True).predict(PAIRS)
    model = load(path, monkeypatch, options={"truncate": True})
    assert model.network.length == (20 if saved == "shorter" else LENGTH)
    found = model.rerank_batch([{"query": one, "document": other} for one, other in PAIRS])
    assert max(abs(one - other) for one, other in zip(found, wanted, strict=True)) < CLOSE
    assert max(found) - min(found) > 0.1
    assert (max(found) > 1 or min(found) < 0) is (saved in ("old", "identity"))
    assert found == pytest.approx(model.score_batch([{"text_1": one, "text_2": other} for one, other in PAIRS]))


def test_a_regression_gives_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(save(tmp_path, labels=1, problem_type="regression"), monkeypatch)
    from transformers import pipeline

    found = pipeline("text-classification", model=str(tmp_path), device="cpu")({"text": "good", "text_pair": "film"})
    (score,) = model.score_batch([{"text_1": "good", "text_2": "film"}])
    assert abs(score - (found[0] if isinstance(found, list) else found)["score"]) < CLOSE


def test_a_checkpoint_without_padding_computes_each_text_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, "qwen2", THREE, num_key_value_heads=2, pad_token_id=None)
    model = load(path, monkeypatch, options={"truncate": True})
    assert not model.network.together and "warning: the checkpoint has no token for padding" in capsys.readouterr().out
    some = TEXTS[:40]
    found = model.classify_batch([{"input": text} for text in some])
    wanted = [of_pipeline(path, [text])[0] for text in some]
    assert max(differ(by_label(one), other) for one, other in zip(found, wanted, strict=True)) < CLOSE


# ── too long, and other errors of one input ──────────────────────────────────────────────────────────────────────────


def test_a_long_text_is_refused_alone_unless_it_may_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(save(tmp_path), monkeypatch)
    long = "a " * LENGTH
    exact = "a " * (LENGTH - 2)
    first, refused, cut, last = model.classify_batch(
        [{"input": "a"}, {"input": long}, {"input": long, "truncate": True}, {"input": exact}]
    )
    assert isinstance(refused, BadRequest) and refused.code == "context_length_exceeded"
    assert str(refused).startswith(f"This model's maximum context length is {LENGTH} tokens")
    assert differ(by_label(cut), by_label(last)) < CLOSE
    assert differ(by_label(first), of_pipeline(tmp_path, ["a"])[0]) < CLOSE


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"truncate": "yes"}, "invalid_type"),
        ({"truncate": True, "truncation": False}, None),
        ({"truncate_prompt_tokens": 5}, "unsupported_value"),
        ({"truncate_prompt_tokens": True}, "unsupported_value"),
        ({"raw_scores": True}, "unsupported_value"),
        ({"use_activation": False}, "unsupported_value"),
        ({"instruction": "Judge"}, "unsupported_value"),
        ({"max_tokens_per_doc": 4}, "unsupported_value"),
        ({"Truncate": True}, "unsupported_value"),
        ({"candidate_labels": ["a"]}, "unsupported_value"),
    ],
)
def test_a_field_that_would_change_the_answer_is_refused(
    fields: dict[str, Any], code: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway_rating_fields import cuts

    with pytest.raises(BadRequest) as error:
        cuts({"input": "a", **fields}, False)
    assert code is None or error.value.code == code


def test_a_field_without_effect_is_not() -> None:
    from gateway_rating_fields import cuts

    assert not cuts({"input": "a", "raw_scores": False, "use_activation": True, "instruction": "", "user": "me"}, False)
    assert cuts({"input": "a", "truncate_prompt_tokens": -1}, False)
    assert cuts({"input": "a", "truncate": None}, True)
    assert not cuts({"input": "a", "truncate": False}, True)


def test_a_number_that_is_none_is_the_error_of_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(save(tmp_path), monkeypatch)
    table = model.network._model.get_input_embeddings()
    with torch.no_grad():
        table.weight[5] = float("nan")  # "film"
    bad, good = model.classify_batch([{"input": "film"}, {"input": "good"}])
    assert isinstance(bad, HTTPError) and bad.code == "invalid_model_output"
    assert sum(by_label(good).values()) == pytest.approx(1)


# ── passes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pass_has_inputs_of_similar_lengths_and_a_budget() -> None:
    from gateway_checkpoints.passes import Shape, passes

    lengths = [3, 60, 4, 59, 3, 61, 200, 30]
    found = list(passes(lengths, Shape(budget=130, spare=8)))
    assert sorted(place for run in found for place in run) == list(range(len(lengths)))
    for run in found:
        longest = max(lengths[place] for place in run)
        assert len(run) == 1 or longest * len(run) <= 130
        assert sum(longest - lengths[place] for place in run) <= 8
    assert [6] in found and [0, 2, 4] in [sorted(run) for run in found]
    assert all(len(run) == 1 for run in passes(lengths, Shape(1000, 1000), together=False))
    assert list(passes([], Shape(10, 10))) == []
