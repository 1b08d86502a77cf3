"""Models of CatBoost, with answers compared with those of the library, called as its documentation says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_catboost
import numpy as np
import pandas as pd
import pytest
from catboost import CatBoost, CatBoostClassifier, CatBoostRanker, CatBoostRegressor, Pool
from closeness import assert_near
from gateway_catboost.model import CatBoostModel
from tabular_cases import (
    KINDS,
    NUMBERS,
    ODD,
    RANDOM,
    ROWS,
    TABLE,
    WIDTH,
    Serve,
    answers_or_refuses_all,
    as_csv,
    plain,
    records,
    refusal,
    serving,
)

from gateway import ConfigError
from gateway.directories.discovery import discover
from gateway.plugins import Plugins

QUIET: dict[str, Any] = {
    "iterations": 6,
    "depth": 3,
    "thread_count": 1,
    "verbose": False,
    "allow_writing_files": False,
    "random_seed": 0,
}
WORDS = RANDOM.choice(["red wine", "white wine", "water", ""], ROWS)
FRAME = pd.DataFrame(
    {
        "size": TABLE[:, 0],
        "colour": RANDOM.choice(["red", "green", "blau é"], ROWS),
        "grade": RANDOM.integers(0, 3, ROWS),
        "note": WORDS,
    }
)
LABEL = FRAME["grade"] * 2.0 + (FRAME["colour"] == "red") + FRAME["size"]
SPECIAL = {"cat_features": ["colour", "grade"], "text_features": ["note"]}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    return serving(gateway_catboost, CatBoostModel, monkeypatch)


@pytest.fixture
def saved(serve: Serve, tmp_path: Path) -> Callable[..., Any]:
    """Saves a model, and serves the directory."""

    def saved(model: Any, name: str = "model.cbm", **options: Any) -> Any:
        (tmp_path / "it").mkdir(exist_ok=True)
        model.save_model(tmp_path / "it" / name, format="json" if name.endswith("json") else "cbm")
        return serve(tmp_path / "it", options=options)

    return saved


def regression(loss: str = "RMSE", label: Any = NUMBERS, table: Any = TABLE, **settings: Any) -> Any:
    return CatBoostRegressor(loss_function=loss, **{**QUIET, **settings}).fit(table, label)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

REGRESSIONS: dict[str, Any] = {
    "RMSE": NUMBERS,
    "MAE": NUMBERS,
    "Quantile:alpha=0.9": NUMBERS,
    "MultiQuantile:alpha=0.1,0.9": NUMBERS,
    "Poisson": KINDS,
    "Tweedie:variance_power=1.5": np.abs(NUMBERS),
    "RMSEWithUncertainty": NUMBERS,
    "MultiRMSE": np.column_stack([NUMBERS, -NUMBERS]),
    "LogLinQuantile": np.abs(NUMBERS) + 1,
}


@pytest.mark.parametrize("name", ["model.cbm", "any.json", "any.bin"])
@pytest.mark.parametrize("loss", REGRESSIONS)
def test_numbers_are_those_of_the_library(loss: str, name: str, saved: Any) -> None:
    trained = regression(loss, REGRESSIONS[loss], nan_mode="Min")
    wanted = trained.predict(ODD)
    model = saved(trained, name)
    assert_near(model.predict({"inputs": plain(ODD)})["predictions"], wanted, 1e-9 if name.endswith("json") else 0)
    assert_near(
        model.predict({"inputs": plain(ODD)[:1]})["predictions"], wanted[:1], 1e-9 if name.endswith("json") else 0
    )


LABELS: dict[str, Any] = {
    "texts": np.array(["no", "yes"])[(KINDS > 0).astype(int)],
    "three texts": np.array(["bad", "good", "so-so"])[KINDS],
    "numbers": KINDS * 10,
    "fractions": KINDS + 0.5,
    "booleans": KINDS > 0,
}


@pytest.mark.parametrize("labels", LABELS)
def test_a_classifier_has_its_labels_and_their_probabilities(labels: str, saved: Any) -> None:
    trained = CatBoostClassifier(**QUIET).fit(TABLE, LABELS[labels])
    model = saved(trained)
    answer = model.predict({"inputs": plain(ODD)})
    assert answer["classes"] == sorted(set(LABELS[labels].tolist()))
    assert answer["probabilities"] == trained.predict_proba(ODD).tolist()
    wanted = CatBoost().load_model("model.cbm").predict(ODD, prediction_type="Class").ravel().tolist()
    assert answer["predictions"] == wanted
    named = model.predict({"inputs": plain(ODD)[:1], "by_name": True})
    assert list(named["probabilities"][0].values()) == answer["probabilities"][0]


def test_other_labels_can_be_given(saved: Any) -> None:
    trained = CatBoostClassifier(**QUIET).fit(TABLE, KINDS)
    answer = saved(trained, classes=["a", "b", "c"]).predict({"inputs": plain(ODD)})
    assert answer["classes"] == ["a", "b", "c"] and set(answer["predictions"]) <= {"a", "b", "c"}
    with pytest.raises(ConfigError, match="classes has to be a list of 3 different labels"):
        saved(trained, classes=["a", "b"])


def test_several_labels_for_a_row_are_a_list(saved: Any) -> None:
    trained = CatBoostClassifier(loss_function="MultiLogloss", **QUIET).fit(TABLE, (TABLE[:, :3] > 0).astype(int))
    answer = saved(trained).predict({"inputs": plain(ODD)})
    assert answer["probabilities"] == trained.predict_proba(ODD).tolist()
    assert answer["predictions"] == trained.predict(ODD).tolist()


def test_a_ranking_has_scores(saved: Any) -> None:
    trained = CatBoostRanker(loss_function="YetiRank", **QUIET)
    trained.fit(Pool(TABLE, KINDS, group_id=np.repeat(np.arange(4), ROWS // 4)))
    assert saved(trained).predict(plain(ODD))["predictions"] == trained.predict(ODD).tolist()


@pytest.mark.parametrize("count", [1, 10_000])
def test_one_row_and_ten_thousand(count: int, saved: Any) -> None:
    table = np.resize(ODD, (count, WIDTH))
    trained = CatBoostClassifier(**QUIET).fit(TABLE, KINDS)
    assert saved(trained).predict({"inputs": plain(table)})["probabilities"] == trained.predict_proba(table).tolist()


def test_contributions_add_up_to_the_score(saved: Any) -> None:
    trained = CatBoostClassifier(**QUIET).fit(TABLE, KINDS)
    answer = saved(trained).predict({"inputs": plain(ODD), "explain": True})
    assert np.array(answer["contributions"]).shape == (ROWS, 3, WIDTH)
    sums = np.array(answer["contributions"]).sum(2) + np.array(answer["bias"])
    assert_near(sums, trained.predict(ODD, prediction_type="RawFormulaVal"))
    one = saved(regression()).predict({"inputs": plain(ODD), "explain": True})
    assert np.array(one["contributions"]).shape == (ROWS, WIDTH)


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_categories_and_texts_are_sent_as_they_are(saved: Any) -> None:
    trained = regression("RMSE", LABEL, FRAME, **SPECIAL)
    model = saved(trained)
    wanted = trained.predict(FRAME).tolist()
    assert len(set(wanted)) > 10
    assert model.predict({"inputs": records(FRAME)})["predictions"] == wanted
    assert as_csv(model, FRAME.to_csv(index=False).encode())["predictions"] == wanted
    explained = model.predict({"inputs": records(FRAME), "explain": True, "by_name": True})
    pool = Pool(FRAME, cat_features=SPECIAL["cat_features"], text_features=SPECIAL["text_features"])
    by_library = trained.get_feature_importance(pool, type="ShapValues")
    assert_near([list(each.values()) for each in explained["contributions"]], by_library[:, :-1])


def test_a_category_may_be_new_but_not_missing(saved: Any) -> None:
    trained = regression("RMSE", LABEL, FRAME, **SPECIAL)
    model = saved(trained)
    row = {"size": None, "colour": "violet", "grade": "1", "note": None}
    wanted = trained.predict(pd.DataFrame([{**row, "size": np.nan, "grade": 1, "note": ""}])).tolist()
    assert model.predict([row])["predictions"] == wanted == model.predict([{**row, "grade": 1}])["predictions"]
    assert "inputs[0]['colour'] is missing, for which CatBoost has no category" in refusal(
        model, {"inputs": [{**row, "colour": None}]}
    )
    assert "['grade'] is a number: send a text or a whole number" in refusal(model, {"inputs": [{**row, "grade": 1.5}]})
    assert "['note'] is a number: send a text, or null" in refusal(model, {"inputs": [{**row, "note": 5}]})
    assert "['size'] is a text: send a number" in refusal(model, {"inputs": [{**row, "size": "5"}]})
    assert "['size'] is infinite" in refusal(model, {"inputs": [{**row, "size": float("inf")}]})
    assert "['grade'] is too large" in refusal(model, {"inputs": [{**row, "grade": 10**5000}]})


def test_columns_of_vectors_are_told(saved: Any) -> None:
    frame = pd.DataFrame({"vector": list(TABLE.tolist()), "size": TABLE[:, 0]})
    trained = CatBoostClassifier(embedding_features=["vector"], **QUIET).fit(frame, KINDS > 0)
    with pytest.raises(ConfigError, match="has columns of vectors"):
        saved(trained)


def test_a_batch_has_the_answers_of_single_requests(saved: Any) -> None:
    for model in (saved(regression()), saved(regression("RMSE", LABEL, FRAME, **SPECIAL))):
        table = records(FRAME) if model.columns.has_names else plain(ODD)
        bodies = [{"inputs": [row]} for row in table]
        assert model.predict_batch(bodies) == [model.predict(body) for body in bodies]


# ── directories ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_found_by_its_name_or_its_content(tmp_path: Path) -> None:
    (tmp_path / "info.json").write_text('{"name": "catboost"}')
    (tmp_path / "it.bin").write_bytes(b"CBM2")
    assert gateway_catboost.find_model(tmp_path, {}) is None
    regression().save_model(tmp_path / "it.bin")
    spec = gateway_catboost.find_model(tmp_path, {})
    assert (spec.format, spec.needs) == ("catboost", ("catboost",))
    assert (spec.batching.size, spec.batching.concurrency, spec.limits.slots) == (32, 2, 96)
    (tmp_path / "model.skops").touch()
    assert gateway_catboost.find_model(tmp_path, {}) is None


def test_of_one_model_in_two_formats_the_smaller_is_served(tmp_path: Path, serve: Serve) -> None:
    trained = regression()
    trained.save_model(tmp_path / "it.json", format="json")
    trained.save_model(tmp_path / "it.cbm")
    assert len(serve(tmp_path).predict(plain(TABLE))["predictions"]) == ROWS


@pytest.mark.parametrize("name", ["model.cbm", "model.json"])
def test_a_file_that_is_cut_is_a_problem_without_the_library(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it").mkdir()
    regression().save_model(tmp_path / "it" / name, format=name[6:])
    for module in [module for module in sys.modules if module.partition(".")[0] == "catboost"]:
        monkeypatch.delitem(sys.modules, module)
    (spec,) = discover([tmp_path], Plugins.load()).specs
    assert (spec.format, spec.served_by) == ("catboost", "catboost")
    assert list(gateway_catboost.check_model(spec)) == []
    data = (tmp_path / "it" / name).read_bytes()
    (tmp_path / "it" / name).write_bytes(data[:-100])
    (problem,) = gateway_catboost.check_model(spec)
    assert "is not a model of CatBoost, or is damaged" in problem.what and problem.level == "error"
    monkeypatch.chdir(tmp_path / "it")
    with pytest.raises(ConfigError, match="is damaged"):
        CatBoostModel(spec.config).load()
    assert "catboost" not in sys.modules


def test_what_the_library_cannot_load_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.cbm").write_bytes(b"CBM1\x10\0\0\0" + b"\0" * 16)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.cbm cannot be loaded by CatBoost 1\."):
        CatBoostModel({}).load()


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_whatever_a_body_is_it_is_answered_or_refused(saved: Any) -> None:
    answers_or_refuses_all(saved(regression("RMSE", LABEL, FRAME, **SPECIAL)), 100)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["two", "three", "number"])
def test_whatever_two_thousand_bodies_are_they_are_answered_or_refused(label: str, saved: Any) -> None:
    if label == "number":
        trained = regression("RMSE", LABEL, FRAME, **SPECIAL)
    else:
        trained = CatBoostClassifier(**QUIET, **SPECIAL).fit(FRAME, KINDS if label == "three" else KINDS > 0)
    answers_or_refuses_all(saved(trained), 2000)
