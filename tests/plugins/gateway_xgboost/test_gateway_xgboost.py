"""Models of XGBoost, with answers compared with those of the library, called as its documentation says."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_xgboost
import numpy as np
import pandas as pd
import pytest
import xgboost
import yaml
from closeness import assert_near
from gateway_xgboost.model import XGBoostModel
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

from gateway import BadRequest, ConfigError
from gateway.directories.discovery import discover
from gateway.plugins import Plugins

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    return serving(gateway_xgboost, XGBoostModel, monkeypatch)


@pytest.fixture
def saved(serve: Serve, tmp_path: Path) -> Callable[..., Any]:
    """Saves a booster, and serves the directory."""

    def saved(booster: Any, name: str = "model.ubj", **options: Any) -> Any:
        (tmp_path / "it").mkdir(exist_ok=True)
        booster.save_model(tmp_path / "it" / name)
        return serve(tmp_path / "it", options=options)

    return saved


def train(objective: str, label: Any = NUMBERS, rounds: int = 6, table: Any = TABLE, **settings: Any) -> Any:
    given = {"objective": objective, "nthread": 1, "max_depth": 4, **settings}
    return xgboost.train(given, xgboost.DMatrix(table, label=label, enable_categorical=True), rounds)


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

REGRESSIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "reg:squarederror": (NUMBERS, {}),
    "reg:absoluteerror": (NUMBERS, {"base_score": 3.5}),
    "reg:pseudohubererror": (NUMBERS, {"booster": "dart", "rate_drop": 0.5}),
    "reg:gamma": (np.abs(NUMBERS) + 1, {"num_parallel_tree": 3, "subsample": 0.5}),
    "reg:tweedie": (np.abs(NUMBERS), {"tweedie_variance_power": 1.3}),
    "reg:quantileerror": (NUMBERS, {"quantile_alpha": [0.1, 0.5, 0.9]}),
    "count:poisson": (KINDS, {"monotone_constraints": "(1,0,0,0,0)"}),
    "survival:cox": (np.abs(NUMBERS) + 1, {}),
    "binary:logitraw": (KINDS > 0, {}),
    "reg:logistic": (KINDS > 0, {"booster": "gblinear"}),
}


@pytest.mark.parametrize("objective", REGRESSIONS)
@pytest.mark.parametrize("name", ["model.ubj", "model.json", "any.bst"])
def test_numbers_are_those_of_the_library(objective: str, name: str, saved: Any) -> None:
    label, settings = REGRESSIONS[objective]
    booster = train(objective, label, **settings)
    answer = saved(booster, name).predict({"inputs": plain(ODD)})
    wanted = booster.predict(xgboost.DMatrix(ODD))
    if settings.get("booster") == "dart":  # of which the library sums the trees in another order for another table
        assert_near(answer["predictions"], wanted, 1e-6)
    else:
        assert answer == {"predictions": wanted.tolist()}
    one = saved(booster, name).predict({"inputs": plain(ODD)[:1]})
    assert one == {"predictions": answer["predictions"][:1]}


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_several_targets_are_a_list_each(strategy: str, saved: Any) -> None:
    label = np.column_stack([NUMBERS, -NUMBERS, TABLE[:, 2]])
    booster = train("reg:squarederror", label, multi_strategy=strategy)
    model = saved(booster)
    answer = model.predict({"inputs": plain(ODD)})
    assert answer == {"predictions": booster.predict(xgboost.DMatrix(ODD)).tolist()}
    if strategy == "multi_output_tree":
        assert "cannot explain trees with several outputs" in refusal(model, {"inputs": plain(ODD), "explain": True})
    else:
        assert np.array(model.predict({"inputs": plain(ODD), "explain": True})["contributions"]).shape == (
            ROWS,
            3,
            WIDTH,
        )


@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
def test_a_classifier_of_two_has_both_probabilities(booster: str, saved: Any) -> None:
    trained = train("binary:logistic", KINDS > 0, booster=booster, scale_pos_weight=2)
    answer = saved(trained, classes=["no", "yes"]).predict({"inputs": plain(ODD)})
    wanted = trained.predict(xgboost.DMatrix(ODD))
    assert_near([yes for _, yes in answer["probabilities"]], wanted, 1e-6 if booster == "dart" else 0)
    assert [no for no, _ in answer["probabilities"]] == [
        float(np.float32(1) - np.float32(yes)) for _, yes in answer["probabilities"]
    ]
    assert answer["predictions"] == ["yes" if one > 0.5 else "no" for one in wanted.tolist()]
    assert answer["classes"] == ["no", "yes"]


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
def test_a_classifier_of_several_has_all_probabilities(objective: str, saved: Any) -> None:
    booster = train(objective, KINDS, num_class=3)
    answer = saved(booster).predict({"inputs": plain(ODD)})
    wanted = train("multi:softprob", KINDS, num_class=3).predict(xgboost.DMatrix(ODD))
    assert answer["probabilities"] == wanted.tolist()
    assert answer["predictions"] == wanted.argmax(1).tolist()
    if objective == "multi:softmax":
        assert answer["predictions"] == booster.predict(xgboost.DMatrix(ODD)).tolist()


def test_a_hinge_has_classes_alone(saved: Any) -> None:
    booster = train("binary:hinge", KINDS > 0)
    answer = saved(booster, classes=["no", "yes"]).predict({"inputs": plain(ODD)})
    wanted = [["no", "yes"][int(value)] for value in booster.predict(xgboost.DMatrix(ODD))]
    assert answer == {"predictions": wanted, "classes": ["no", "yes"]}


def test_a_ranking_has_scores(saved: Any) -> None:
    table = xgboost.DMatrix(TABLE, label=KINDS, qid=np.repeat(np.arange(4), ROWS // 4))
    booster = xgboost.train({"objective": "rank:ndcg", "nthread": 1}, table, 4)
    assert saved(booster).predict(plain(ODD))["predictions"] == booster.predict(xgboost.DMatrix(ODD)).tolist()


def test_the_classifier_of_scikit_learn_answers_the_same(saved: Any) -> None:
    wrapped = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(TABLE, KINDS)
    answer = saved(wrapped).predict({"inputs": plain(ODD)})
    assert answer["predictions"] == wrapped.predict(ODD).tolist()
    assert answer["probabilities"] == wrapped.predict_proba(ODD).tolist()


def test_after_early_stopping_the_best_rounds_count(saved: Any, capsys: Any) -> None:
    """`XGBClassifier` uses these, and `Booster.predict` all."""
    booster = xgboost.train(
        {"objective": "binary:logistic", "nthread": 1, "eta": 1.0},
        xgboost.DMatrix(TABLE, label=KINDS > 0),
        50,
        evals=[(xgboost.DMatrix(TABLE[::-1], label=KINDS > 0), "other")],
        early_stopping_rounds=5,
        verbose_eval=False,
    )
    best = booster.best_iteration + 1
    assert best < booster.num_boosted_rounds()
    table = xgboost.DMatrix(ODD)
    found = saved(booster).predict({"inputs": plain(ODD)})["probabilities"]
    assert [yes for _, yes in found] == booster.predict(table, iteration_range=(0, best)).tolist()
    assert f"the first {best} of its {booster.num_boosted_rounds()} rounds are used" in capsys.readouterr().out
    every = booster.num_boosted_rounds()
    found = saved(booster, rounds=every).predict({"inputs": plain(ODD)})["probabilities"]
    assert [yes for _, yes in found] == booster.predict(table).tolist()
    for rounds in (0, every + 1, "all", True):
        with pytest.raises(ConfigError, match=f"rounds has to be a whole number from 1 to {every}"):
            saved(booster, rounds=rounds)


@pytest.mark.parametrize("count", [1, 10_000])
def test_one_row_and_ten_thousand(count: int, saved: Any) -> None:
    table = np.resize(ODD, (count, WIDTH))
    booster = train("multi:softprob", KINDS, num_class=3)
    answer = saved(booster).predict({"inputs": plain(table)})
    assert answer["probabilities"] == booster.predict(xgboost.DMatrix(table)).tolist()


def test_a_batch_has_the_answers_of_single_requests(saved: Any) -> None:
    model = saved(train("multi:softprob", KINDS, num_class=3))
    bodies = [{"inputs": [row]} for row in plain(ODD)]
    assert model.predict_batch(bodies) == [model.predict(body) for body in bodies]


def test_contributions_add_up_to_the_score(saved: Any) -> None:
    booster = train("multi:softprob", KINDS, num_class=3)
    answer = saved(booster).predict({"inputs": plain(ODD), "explain": True})
    table = xgboost.DMatrix(ODD)
    wanted = booster.predict(table, pred_contribs=True)
    assert answer["contributions"] == wanted[:, :, :-1].tolist() and answer["bias"] == wanted[:, :, -1].tolist()
    sums = np.array(answer["contributions"]).sum(2) + np.array(answer["bias"])
    assert_near(sums[4:], booster.predict(table, output_margin=True)[4:])
    one = train("reg:squarederror")
    assert np.array(saved(one).predict({"inputs": plain(ODD), "explain": True})["contributions"]).shape == (ROWS, WIDTH)


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["model.ubj", "model.json"])
def test_categories_are_sent_as_they_are_called(name: str, saved: Any) -> None:
    booster = train("reg:squarederror", LABEL, table=FRAME)
    model = saved(booster, name)
    wanted = booster.predict(xgboost.DMatrix(FRAME, enable_categorical=True)).tolist()
    assert model.predict({"inputs": records(FRAME)})["predictions"] == wanted
    assert as_csv(model, FRAME.to_csv(index=False).encode())["predictions"] == wanted
    split = json.loads(FRAME.to_json(orient="split"))
    assert model.predict({"dataframe_split": split})["predictions"] == wanted
    explained = model.predict({"inputs": records(FRAME), "explain": True, "by_name": True})
    by_library = booster.predict(xgboost.DMatrix(FRAME, enable_categorical=True), pred_contribs=True)
    assert [list(each.values()) for each in explained["contributions"]] == by_library[:, :-1].tolist()
    assert list(explained["contributions"][0]) == list(FRAME.columns)


def test_an_unknown_category_is_named_with_those_that_are_known(saved: Any) -> None:
    model = saved(train("reg:squarederror", LABEL, table=FRAME))
    row = {"size": 1.0, "colour": "violet", "grade": 10, "is new": True, "count": 1}
    told = "inputs[0]['colour'] is 'violet', an unknown category (this model knows 'blue', 'green', 'red';"
    assert told in refusal(model, {"inputs": [row]})
    assert "inputs[0]['grade'] is 11" in refusal(model, {"inputs": [{**row, "colour": "red", "grade": 11}]})
    assert "inputs[0] lacks grade" in refusal(model, {"inputs": [{k: v for k, v in row.items() if k != "grade"}]})
    assert "is a text ('big'): send a number" in refusal(model, {"inputs": [{**row, "colour": None, "size": "big"}]})


def test_categories_without_names_are_numbers(saved: Any) -> None:
    table = np.column_stack([KINDS, TABLE[:, 0]]).astype(np.float32)
    of_numbers = xgboost.DMatrix(table, label=NUMBERS, feature_types=["c", "q"], enable_categorical=True)
    booster = xgboost.train({"nthread": 1}, of_numbers, 5)
    model = saved(booster)
    assert model.predict(table.tolist())["predictions"] == booster.predict(of_numbers).tolist()
    assert "inputs[0][0] is a number: send the number of a category" in refusal(model, {"inputs": [[-1, 0]]})
    assert "inputs[0][0] is a text" in refusal(model, {"inputs": [["red", 0]]})


def test_a_name_of_a_category_that_the_library_has_cut_is_never_taken_for_another(saved: Any, capsys: Any) -> None:
    """XGBoost 3.2 keeps names of pandas that are not ASCII in the wrong places, and predicts for one as for another."""
    words = ["a", "è", "é"]
    frame = pd.DataFrame({"word": pd.Categorical(RANDOM.choice(words, ROWS), categories=words)})
    label = frame["word"].cat.codes.astype(float)
    booster = train("reg:squarederror", label, 20, frame, eta=1.0)
    model = saved(booster)
    found = model.predict({"inputs": [{"word": "a"}, {"word": "è"}]})["predictions"]
    assert_near(found, [0.0, 1.0], 0.05)
    assert "'é', an unknown category (this model knows 'a', 'è'" in refusal(model, {"inputs": [{"word": "é"}]})
    assert "has cut the names of 1 categories of the column word" in capsys.readouterr().out


# ── directories ──────────────────────────────────────────────────────────────────────────────────────────────────────

UBJ = train("reg:squarederror").save_raw("ubj")
JSON = train("reg:squarederror").save_raw("json")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *(("a.ubj", UBJ), ("a.json", JSON), ("a.bst", UBJ), ("a.xgb", JSON), ("xgboost-model", UBJ)),
        *(("a.model", UBJ), ("a.bin", JSON), ("model.json", json.dumps(json.loads(JSON), indent=1).encode())),
    ],
)
def test_a_file_of_any_name_is_found_and_loaded(name: str, data: bytes, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / name).write_bytes(data)
    (tmp_path / "it" / "metadata.json").write_text('{"trained": "today"}')
    spec = gateway_xgboost.find_model(tmp_path / "it", {})
    assert (spec.format, spec.needs) == ("xgboost", ("xgboost",))
    assert (spec.batching.size, spec.batching.concurrency, spec.limits.slots) == (32, 2, 96)
    model = serve(tmp_path / "it")
    assert model.predict([plain(TABLE)[0]])["predictions"] == model.predict(plain(TABLE))["predictions"][:1]


@pytest.mark.parametrize(
    "beside", ["m.skops", "m.gguf", "m.safetensors", "modules.json", "MLmodel", "model.py", "m.onnx"]
)
def test_a_copy_beside_a_model_of_another_kind_is_not_the_model(beside: str, tmp_path: Path) -> None:
    (tmp_path / "model.ubj").write_bytes(UBJ)
    (tmp_path / beside).write_text("x = 1\nclass Model: ...\n")
    assert gateway_xgboost.find_model(tmp_path, {}) is None
    (tmp_path / "config.yaml").write_text("framework: xgboost")
    assert gateway_xgboost.find_model(tmp_path, {}) is not None


def test_other_files_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "learner"}')
    (tmp_path / "a.bin").write_bytes(b"\0" * 100)
    (tmp_path / ".model.ubj").write_bytes(UBJ)
    assert gateway_xgboost.find_model(tmp_path, {}) is None
    (tmp_path / ".model.ubj").unlink()
    (tmp_path / "a.bin").unlink()
    (tmp_path / "config.yaml").write_text("framework: xgboost")
    with pytest.raises(ConfigError, match=r"no model; save it with booster.save_model\(\"model.ubj\"\)"):
        gateway_xgboost.find_model(tmp_path, {})
    (tmp_path / "other.skops").touch()
    with pytest.raises(ConfigError, match=r"other\.skops is a model of scikit-learn: write framework: sklearn"):
        gateway_xgboost.find_model(tmp_path, {})


def test_of_several_files_the_one_named_model_counts(tmp_path: Path) -> None:
    for name in ("one.ubj", "two.ubj"):
        (tmp_path / name).write_bytes(UBJ + name.encode())
    with pytest.raises(ConfigError, match=r"several models \(one\.ubj, two\.ubj\).*name it model\.ubj"):
        gateway_xgboost.find_model(tmp_path, {})
    (tmp_path / "model.ubj").write_bytes(UBJ)
    assert gateway_xgboost.find_model(tmp_path, {}) is not None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>\n<html>", "is an HTML or XML page"),
        (UBJ[: len(UBJ) // 2], "it ends too early"),
        (JSON[: len(JSON) // 2], "is not a model of XGBoost, or is damaged"),
        (b"binf\0\0\0", "old binary format, which version 3.1 and later do not read"),
        (b'{"learner": {}}', "there is no 'learner_model_param'"),
        (b"[" * 100_000, "is not a model of XGBoost"),
    ],
)
def test_a_damaged_file_is_a_problem_without_the_library(
    data: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)  # its import would fail
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "model.ubj").write_bytes(data)
    monkeypatch.chdir(tmp_path / "it")
    with pytest.raises(ConfigError, match=message):
        XGBoostModel({}).load()
    try:
        spec = gateway_xgboost.find_model(tmp_path / "it", {})
    except ConfigError as error:
        assert message in str(error)
    else:
        (problem,) = gateway_xgboost.check_model(spec)
        assert message in problem.what and problem.level == "error"


def test_nothing_of_the_library_is_imported_to_find_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "xgboost"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "model.ubj").write_bytes(UBJ)
    (spec,) = discover([tmp_path], Plugins.load()).specs
    assert (spec.format, spec.served_by) == ("xgboost", "xgboost")
    assert list(gateway_xgboost.check_model(spec)) == []
    assert "xgboost" not in sys.modules


@pytest.mark.parametrize("threads", [0, "2", True, 1.5])
def test_threads_are_a_number(threads: Any, saved: Any) -> None:
    with pytest.raises(ConfigError, match="threads has to be a whole number from 1 on"):
        saved(train("reg:squarederror"), threads=threads)


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_whatever_a_body_is_it_is_answered_or_refused(saved: Any) -> None:
    answers_or_refuses_all(saved(train("reg:squarederror", LABEL, table=FRAME)), 100)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "reg:squarederror"])
def test_whatever_two_thousand_bodies_are_they_are_answered_or_refused(objective: str, saved: Any) -> None:
    few = {"num_class": 3} if objective == "multi:softprob" else {}
    label = KINDS if few else KINDS > 0
    answers_or_refuses_all(saved(train(objective, label, table=FRAME, **few)), 2000)


def test_what_the_library_refuses_is_a_bad_request_in_its_words(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(train("reg:squarederror"))
    with pytest.raises(ValueError, match=r"^Check failed: n_features_data == n_features_model \(4 vs. 5\)"):
        model._predict(TABLE[:, :4].copy())
    monkeypatch.setattr(model, "_predict", lambda table: (_ for _ in ()).throw(ValueError("no such thing")))
    with pytest.raises(BadRequest, match="the model refused these inputs: no such thing"):
        model.predict({"inputs": plain(TABLE)})
    monkeypatch.setattr(model, "_predict", lambda table: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        model.predict({"inputs": plain(TABLE)})


# ── the demo ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_wine_demo_reads_its_examples(serve: Serve) -> None:
    model = serve(MODELS / "wine")
    examples = yaml.safe_load((MODELS / "wine" / "examples.yaml").read_text())
    answers = {example["name"]: model.predict(example["input"]) for example in examples}
    assert answers["a record"]["predictions"] == ["Barolo"]
    explained = answers["two rows, one with a missing value, and why"]
    assert explained["predictions"] == ["Grignolino", "Barbera"]
    assert list(explained["probabilities"][0]) == ["Barolo", "Grignolino", "Barbera"]
    assert explained["contributions"][0][0].keys() == set(model.columns.names)


def test_the_wine_demo_trains_again_as_it_is_committed(tmp_path: Path, capsys: Any, serve: Serve) -> None:
    import importlib.util

    shutil.copy(MODELS / "wine" / "config.yaml", tmp_path)
    spec = importlib.util.spec_from_file_location("train", MODELS / "wine" / "train.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.HERE = tmp_path
    script.main()
    assert "0.981" in capsys.readouterr().out
    table = np.abs(RANDOM.normal(size=(50, 13))) * [13, 2, 2, 19, 99, 2, 2, 0.3, 1.5, 5, 1, 2.6, 700]
    old, new = (serve(place).predict(table.tolist())["probabilities"] for place in (MODELS / "wine", tmp_path))
    assert_near(new, old, 1e-3)
