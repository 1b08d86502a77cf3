"""Models of LightGBM, with answers compared with those of the library, called as its documentation says."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_lightgbm
import lightgbm
import numpy as np
import pandas as pd
import pytest
import yaml
from closeness import assert_near
from gateway_lightgbm.model import LightGBMModel
from tabular_cases import (
    FRAME,
    KINDS,
    LABEL,
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

MODELS = Path(__file__).parents[3] / "models"
QUIET = {"num_threads": 1, "verbose": -1, "min_data_in_leaf": 5, "num_leaves": 7}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    return serving(gateway_lightgbm, LightGBMModel, monkeypatch)


@pytest.fixture
def saved(serve: Serve, tmp_path: Path) -> Callable[..., Any]:
    """Saves a booster, and serves the directory."""

    def saved(booster: Any, name: str = "model.txt", **options: Any) -> Any:
        (tmp_path / "it").mkdir(exist_ok=True)
        booster.save_model(tmp_path / "it" / name)
        return serve(tmp_path / "it", options=options)

    return saved


def train(objective: Any, label: Any = NUMBERS, rounds: int = 6, table: Any = TABLE, **settings: Any) -> Any:
    named = {name: settings.pop(name) for name in ("group", "categorical_feature") if name in settings}
    data = lightgbm.Dataset(table, label, **named)
    return lightgbm.train({**QUIET, "objective": objective, **settings}, data, rounds)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

REGRESSIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "regression": (NUMBERS, {"linear_tree": True}),
    "regression_l1": (NUMBERS, {"boosting": "dart"}),
    "huber": (NUMBERS, {"monotone_constraints": [1, 0, 0, 0, -1]}),
    "quantile": (NUMBERS, {"alpha": 0.9}),
    "mape": (NUMBERS, {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}),
    "poisson": (KINDS, {"extra_trees": True}),
    "gamma": (np.abs(NUMBERS) + 1, {}),
    "tweedie": (np.abs(NUMBERS), {"tweedie_variance_power": 1.3}),
    "cross_entropy": (KINDS / 2, {}),
    "cross_entropy_lambda": (KINDS / 2, {}),
    "lambdarank": (KINDS, {"group": [ROWS // 2] * 2}),
    "fair": (NUMBERS, {"min_data_in_leaf": ROWS}),
}


@pytest.mark.parametrize("name", ["model.txt", "any.lgb"])
@pytest.mark.parametrize("objective", REGRESSIONS)
def test_numbers_are_those_of_the_library(objective: str, name: str, saved: Any) -> None:
    label, settings = REGRESSIONS[objective]
    booster = train(objective, label, **settings)
    model = saved(booster, name)
    wanted = booster.predict(ODD.astype(float)).tolist()
    assert model.predict({"inputs": plain(ODD)}) == {"predictions": wanted}
    assert model.predict({"inputs": plain(ODD)[:1]}) == {"predictions": wanted[:1]}


def test_the_square_root_that_a_model_was_fitted_on_is_undone(saved: Any) -> None:
    booster = train("regression", np.abs(NUMBERS), reg_sqrt=True)
    assert saved(booster).predict(plain(ODD))["predictions"] == booster.predict(ODD.astype(float)).tolist()


def test_an_objective_of_the_author_s_own_gives_raw_scores(saved: Any) -> None:
    booster = train(lambda scores, data: (scores - data.get_label(), np.ones_like(scores)))
    assert saved(booster).predict(plain(ODD))["predictions"] == booster.predict(ODD.astype(float)).tolist()


def test_a_classifier_of_two_has_both_probabilities(saved: Any) -> None:
    booster = train("binary", KINDS > 0, is_unbalance=True)
    answer = saved(booster, classes=["no", "yes"]).predict({"inputs": plain(ODD)})
    ones = booster.predict(ODD.astype(float)).tolist()
    assert answer["probabilities"] == [[1.0 - one, one] for one in ones]
    assert answer["predictions"] == ["yes" if one > 0.5 else "no" for one in ones]
    assert answer["classes"] == ["no", "yes"]


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_a_classifier_of_several_has_all_probabilities(objective: str, saved: Any) -> None:
    booster = train(objective, KINDS, num_class=3)
    answer = saved(booster).predict({"inputs": plain(ODD)})
    wanted = booster.predict(ODD.astype(float))
    assert answer["probabilities"] == wanted.tolist()
    assert answer["predictions"] == wanted.argmax(1).tolist()


def test_the_classifier_of_scikit_learn_answers_the_same(saved: Any) -> None:
    words = np.array(["bad", "good", "so-so"])
    wrapped = lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(TABLE, words[KINDS])
    answer = saved(wrapped.booster_, classes=words.tolist()).predict({"inputs": plain(ODD)})
    frame = pd.DataFrame(ODD.astype(float), columns=[f"Column_{place}" for place in range(WIDTH)])
    assert answer["predictions"] == wrapped.predict(frame).tolist()
    assert answer["probabilities"] == wrapped.predict_proba(frame).tolist()


@pytest.mark.parametrize("count", [1, 10_000])
def test_one_row_and_ten_thousand(count: int, saved: Any) -> None:
    table = np.resize(ODD, (count, WIDTH)).astype(float)
    booster = train("multiclass", KINDS, num_class=3)
    assert saved(booster).predict({"inputs": plain(table)})["probabilities"] == booster.predict(table).tolist()


def test_a_batch_has_the_answers_of_single_requests(saved: Any) -> None:
    model = saved(train("multiclass", KINDS, num_class=3))
    bodies = [{"inputs": [row]} for row in plain(ODD)]
    assert model.predict_batch(bodies) == [model.predict(body) for body in bodies]


def test_contributions_add_up_to_the_score(saved: Any) -> None:
    booster = train("multiclass", KINDS, num_class=3)
    answer = saved(booster).predict({"inputs": plain(ODD), "explain": True})
    wanted = booster.predict(ODD.astype(float), pred_contrib=True).reshape(ROWS, 3, WIDTH + 1)
    assert answer["contributions"] == wanted[:, :, :-1].tolist() and answer["bias"] == wanted[:, :, -1].tolist()
    sums = np.array(answer["contributions"]).sum(2) + np.array(answer["bias"])
    assert_near(sums, booster.predict(ODD.astype(float), raw_score=True))
    one = saved(train("regression")).predict({"inputs": plain(ODD), "explain": True})
    assert np.array(one["contributions"]).shape == (ROWS, WIDTH)
    computing = saved(train("regression", linear_tree=True))
    assert "cannot explain trees whose leaves compute" in refusal(computing, {"inputs": plain(ODD), "explain": True})


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────

UNDERSCORED = FRAME.rename(columns={"is new": "is_new"})  # as the library calls it


def test_categories_are_sent_as_they_are_called(saved: Any) -> None:
    booster = train("regression", LABEL, table=FRAME)
    model = saved(booster)
    wanted = booster.predict(FRAME).tolist()
    assert len(set(wanted)) > 10
    assert model.predict({"inputs": records(UNDERSCORED)})["predictions"] == wanted
    assert as_csv(model, UNDERSCORED.to_csv(index=False).encode())["predictions"] == wanted
    split = json.loads(UNDERSCORED.to_json(orient="split", double_precision=15))
    assert_near(model.predict({"dataframe_split": split})["predictions"], wanted, 1e-9)
    row = records(UNDERSCORED)[0]
    told = "inputs[0]['colour'] is 'violet', an unknown category (this model knows 'blue', 'green', 'red';"
    assert told in refusal(model, {"inputs": [{**row, "colour": "violet"}]})  # the library would take it as missing
    assert "inputs[0]['grade'] is 11" in refusal(model, {"inputs": [{**row, "grade": 11}]})
    assert "lacks is_new" in refusal(model, {"inputs": records(FRAME)})


@pytest.mark.parametrize("values", [["é", "è", "日本"], [0.5, 1.5], [True, False], [10, 20]])
def test_categories_may_be_any_value(values: list[Any], saved: Any) -> None:
    frame = pd.DataFrame({"a": pd.Categorical(RANDOM.choice(np.array(values), ROWS)), "b": TABLE[:, 0]})
    booster = train("regression", frame["a"].cat.codes + 0.0, table=frame)
    model = saved(booster)
    assert model.predict(records(frame))["predictions"] == booster.predict(frame).tolist()
    assert as_csv(model, frame.to_csv(index=False).encode())["predictions"] == booster.predict(frame).tolist()


def test_categories_that_are_numbers_are_numbers(saved: Any) -> None:
    table = np.column_stack([KINDS, TABLE[:, 0]]).astype(float)
    booster = train("regression", KINDS * 2.0, table=table, categorical_feature=[0])
    model = saved(booster)
    assert model.predict(table.tolist())["predictions"] == booster.predict(table).tolist()
    seen = [[7, 0.0], [2**31 - 1, 0.0], [None, 0.0]]
    assert model.predict(seen)["predictions"] == booster.predict(np.array(seen, dtype=float)).tolist()
    for value in (-1, 1.5, 2**31, "red"):
        assert "send the number of a category, from 0 on" in refusal(model, [[value, 0.0]])


def test_which_columns_were_categories_can_be_told(saved: Any, capsys: Any) -> None:
    """Of pandas, the file has the categories of ordered columns too, which are numbers to the library."""
    sizes = pd.Categorical(RANDOM.choice(["S", "M", "L"], ROWS), categories=["S", "M", "L"], ordered=True)
    frame = pd.DataFrame({"size": sizes, "colour": FRAME["colour"], "x": TABLE[:, 0]})
    booster = train("regression", LABEL, table=frame)
    codes = frame.assign(size=frame["size"].cat.codes, colour=frame["colour"].cat.codes.replace(-1, np.nan))
    wanted = booster.predict(frame).tolist()
    assert saved(booster).predict(plain(codes.to_numpy(float)))["predictions"] == wanted
    assert "name the columns in config.yaml: options: category_columns" in capsys.readouterr().out
    named = saved(booster, category_columns=["size", "colour"])
    assert named.predict(records(frame))["predictions"] == wanted
    for columns in ("size", ["size"], ["size", "color"], [1, 2]):
        with pytest.raises(ConfigError, match="category_columns has to"):
            saved(booster, category_columns=columns)


# ── directories ──────────────────────────────────────────────────────────────────────────────────────────────────────

TEXT = train("regression").model_to_string().encode()


def test_a_text_is_only_a_model_if_it_begins_as_one(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("lightgbm\n")
    (tmp_path / "notes.txt").write_text("tree\nversion=soon\n")
    assert gateway_lightgbm.find_model(tmp_path, {}) is None
    (tmp_path / "booster.txt").write_bytes(TEXT)
    spec = gateway_lightgbm.find_model(tmp_path, {})
    assert (spec.format, spec.needs) == ("lightgbm", ("lightgbm",))
    assert (spec.batching.size, spec.batching.concurrency, spec.limits.slots) == (32, 2, 96)
    (tmp_path / "model.skops").touch()
    assert gateway_lightgbm.find_model(tmp_path, {}) is None


def test_a_model_is_found_among_very_many_texts(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"a{number}.txt").write_text("a text")
    (tmp_path / "model.txt").write_bytes(TEXT)
    assert gateway_lightgbm.find_model(tmp_path, {}) is not None


def test_nothing_of_the_library_is_imported_to_find_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightgbm"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "model.txt").write_bytes(TEXT)
    (spec,) = discover([tmp_path], Plugins.load()).specs
    assert (spec.format, spec.served_by) == ("lightgbm", "lightgbm")
    assert list(gateway_lightgbm.check_model(spec)) == []
    assert "lightgbm" not in sys.modules


def test_a_damaged_file_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "model.txt").write_bytes(TEXT[: len(TEXT) // 3])
    spec = gateway_lightgbm.find_model(tmp_path / "it", {})
    (problem,) = gateway_lightgbm.check_model(spec)
    assert "is damaged (it ends too early)" in problem.what and problem.level == "error"
    monkeypatch.chdir(tmp_path / "it")
    with pytest.raises(ConfigError, match="it ends too early"):
        LightGBMModel(spec.config).load()


def test_a_file_dumped_as_json_is_told_how_to_save(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "model.json").write_text(json.dumps(train("regression").dump_model()))
    (problem,) = discover([tmp_path], Plugins.load()).problems
    assert 'booster.save_model("model.txt")' in str(problem)


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_whatever_a_body_is_it_is_answered_or_refused(saved: Any) -> None:
    answers_or_refuses_all(saved(train("regression", LABEL, table=FRAME)), 100)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_whatever_two_thousand_bodies_are_they_are_answered_or_refused(objective: str, saved: Any) -> None:
    few = {"num_class": 3} if objective == "multiclass" else {}
    answers_or_refuses_all(saved(train(objective, KINDS if few else KINDS > 0, table=FRAME, **few)), 2000)


# ── the demo ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_diabetes_demo_reads_its_examples(serve: Serve) -> None:
    model = serve(MODELS / "diabetes")
    examples = yaml.safe_load((MODELS / "diabetes" / "examples.yaml").read_text())
    one, two = (model.predict(example["input"]) for example in examples)
    assert_near(one["predictions"], [193.8], 1e-3)
    assert two["predictions"][0] == one["predictions"][0]
    for prediction, parts, bias in zip(two["predictions"], two["contributions"], two["bias"], strict=True):
        assert list(parts) == list(model.columns.names)
        assert_near([sum(parts.values()) + bias], [prediction])


def test_the_diabetes_demo_trains_again_as_it_is_committed(tmp_path: Path, capsys: Any, serve: Serve) -> None:
    spec = importlib.util.spec_from_file_location("train", MODELS / "diabetes" / "train.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.HERE = tmp_path
    script.main()
    assert "off by 45.5 on average" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    table = plain(np.abs(RANDOM.normal(size=(50, 10))) * [50, 2, 26, 95, 189, 115, 50, 4, 4.6, 91])
    old, new = (serve(place).predict(table)["predictions"] for place in (MODELS / "diabetes", tmp_path))
    assert_near(new, old, 1e-3)
