"""Models of scikit-learn take the input that all models on tables share, and answer what the library does."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_sklearn
import joblib
import numpy as np
import pandas as pd
import pytest
from closeness import assert_near
from gateway_sklearn.model import SklearnModel
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from tabular_cases import (
    COLOURS,
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

from gateway import BadRequest, ConfigError, HTTPError

SMALL = np.clip(ODD, -100, 100).astype(float)  # scikit-learn computes in float64; huge numbers say nothing
WHOLE = np.nan_to_num(SMALL)
FRAME = pd.DataFrame(
    {
        "size": SMALL[:, 0],
        "colour": pd.Series(RANDOM.choice([*COLOURS, None], ROWS), dtype=object),
        "grade": RANDOM.choice([10, 20, 30], ROWS),
        "words": pd.Series(RANDOM.choice(["a good film", "bad", "good", "a bad film"], ROWS), dtype=object),
        "unused": RANDOM.integers(0, 9, ROWS),
    }
)
LABELS = np.where(FRAME["grade"] > 10, np.where(FRAME["words"].str.contains("good"), "best", "good"), "bad")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    return serving(gateway_sklearn, SklearnModel, monkeypatch)


@pytest.fixture
def saved(serve: Serve, tmp_path: Path) -> Callable[..., Any]:
    """Saves an estimator as a pickle that the operator allows, and serves the directory."""

    def saved(estimator: Any, name: str = "model.joblib") -> Any:
        (tmp_path / "it").mkdir(exist_ok=True)
        joblib.dump(estimator, tmp_path / "it" / name)
        return serve(tmp_path / "it", allow_pickle=True)

    return saved


def mixed(**encoder: Any) -> Any:
    """A pipeline over numbers, categories behind an imputer, categories that are numbers, and texts."""
    colours = Pipeline(
        [("fill", SimpleImputer(strategy="most_frequent")), ("code", OneHotEncoder(sparse_output=False, **encoder))]
    )
    columns = ColumnTransformer(
        [
            ("size", make_pipeline(SimpleImputer(), StandardScaler()), ["size"]),
            ("colour", colours, ["colour"]),
            ("grade", OrdinalEncoder(), ["grade"]),
            ("words", TfidfVectorizer(), "words"),
        ],
        sparse_threshold=0.0,
    )
    return make_pipeline(columns, LogisticRegression()).fit(FRAME, LABELS)


# ── every form ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_form_of_a_table_is_answered_as_the_library_answers_the_frame(saved: Any) -> None:
    estimator = mixed()
    model = saved(estimator)
    all_records = records(FRAME)
    rows = [list(record.values()) for record in all_records]
    columns = {name: [record[name] for record in all_records] for name in FRAME}
    split = {"columns": list(FRAME)[::-1], "data": [row[::-1] for row in rows]}
    bodies = [
        *({word: all_records} for word in ("inputs", "instances", "records", "dataframe_records")),
        *({"inputs": rows}, {"inputs": columns}, {"inputs": split}, {"dataframe_split": split}),
        *(all_records, rows, columns, split, {"model": "it", **columns}),
        {"dataframe_split": {"data": rows}},
    ]
    wanted, chances = estimator.predict(FRAME).tolist(), estimator.predict_proba(FRAME)
    for body in bodies:
        answer = model.predict(body)
        assert answer["predictions"] == wanted
        assert_near(answer["probabilities"], chances, 1e-12)
        assert answer["classes"] == ["bad", "best", "good"]
    csv = FRAME[list(FRAME)[::-1]].to_csv(index=False).encode()
    assert as_csv(model, csv) == answer
    assert as_csv(model, FRAME.to_csv(index=False, header=False).encode()) == answer


def test_csv_may_leave_out_a_column_that_the_model_does_not_use(saved: Any) -> None:
    model = saved(mixed())
    known = as_csv(model, FRAME.to_csv(index=False).encode())
    assert as_csv(model, FRAME.drop(columns="unused").assign(more="x").to_csv(index=False).encode()) == known
    with pytest.raises(BadRequest, match=r"rows\[0\] lacks grade \(this model takes 5: size, colour"):
        as_csv(model, FRAME.drop(columns="grade").to_csv(index=False).encode())
    with pytest.raises(BadRequest, match="the first line of the body has size more than once"):
        as_csv(model, b"size,size\n1,2\n")
    with pytest.raises(BadRequest, match=r"line 1 of the body has 2 values, but this model takes 5"):
        as_csv(model, b"1,red\n")


def test_a_model_of_texts_takes_no_csv_and_no_table(saved: Any) -> None:
    model = saved(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good", "bad"], [1, 0]))
    assert model.predict(["good", "bad"])["predictions"] == [1, 0]
    with pytest.raises(HTTPError, match="cannot be asked with CSV"):
        as_csv(model, b"good\n")
    assert "dataframe_split is a table, this model takes texts" in refusal(
        model, {"dataframe_split": {"data": [["a"]]}}
    )


# ── every kind of answer ─────────────────────────────────────────────────────────────────────────────────────────────

KINDS_OF: dict[str, tuple[Any, Any]] = {
    "a regression that takes gaps": (HistGradientBoostingRegressor(max_iter=5), NUMBERS),
    "several numbers": (make_pipeline(SimpleImputer(), LinearRegression()), np.column_stack([NUMBERS, -NUMBERS])),
    "a classifier that takes gaps": (HistGradientBoostingClassifier(max_iter=5), KINDS),
    "a forest of labels": (RandomForestClassifier(5, random_state=0), np.array(COLOURS)[KINDS]),
    "a classifier without probabilities": (make_pipeline(SimpleImputer(), RidgeClassifier()), KINDS > 0),
    "a support vector machine": (make_pipeline(SimpleImputer(), LinearSVC()), KINDS),
    "clusters": (make_pipeline(SimpleImputer(), KMeans(3, n_init=1, random_state=0)), None),
    "outliers": (IsolationForest(n_estimators=10, random_state=0), None),
}


@pytest.mark.parametrize("name", KINDS_OF)
def test_random_rows_are_answered_as_by_the_library(name: str, saved: Any) -> None:
    estimator, label = KINDS_OF[name]
    estimator.fit(SMALL, label)
    answer = saved(estimator).predict({"inputs": plain(SMALL)})
    assert answer["predictions"] == estimator.predict(SMALL).tolist()
    assert ("probabilities" in answer) == hasattr(estimator, "predict_proba")
    if "probabilities" in answer:
        assert answer["probabilities"] == estimator.predict_proba(SMALL).tolist()
    assert answer.get("classes", []) == getattr(estimator, "classes_", np.array([])).tolist()
    one = saved(estimator).predict({"inputs": plain(SMALL)[7]})
    assert_near(one["predictions"], estimator.predict(SMALL[7:8]), 1e-9) if "number" in name else None
    assert len(one["predictions"]) == 1


def test_a_large_table_is_one_request(saved: Any) -> None:
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(SMALL, KINDS)
    table = np.resize(SMALL, (10_000, WIDTH))
    answer = saved(estimator).predict({"inputs": plain(table)})
    assert answer["predictions"] == estimator.predict(table).tolist()


@pytest.mark.parametrize("kind", ["one", "several", "chain"])
def test_probabilities_have_names_if_asked(kind: str, saved: Any) -> None:
    both = np.column_stack([KINDS > 0, KINDS > 1]).astype(int)
    made: dict[str, Any] = {
        "one": lambda: LogisticRegression().fit(TABLE, KINDS > 0),
        "several": lambda: MultiOutputClassifier(LogisticRegression()).fit(TABLE, both),
        "chain": lambda: ClassifierChain(LogisticRegression()).fit(TABLE, both),
    }
    estimator = made[kind]()
    model = saved(estimator)
    answer = model.predict({"inputs": plain(TABLE), "by_name": True})
    unnamed = model.predict({"inputs": plain(TABLE)})["probabilities"]
    assert "classes" not in answer
    if kind == "one":
        assert answer["probabilities"] == [{"false": no, "true": yes} for no, yes in unnamed]
    elif kind == "several":
        assert answer["probabilities"] == [[{"0": no, "1": yes} for no, yes in part] for part in unnamed]
    else:
        assert answer["probabilities"] == unnamed == estimator.predict_proba(TABLE.astype(float)).tolist()


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "violet"}, "['colour'] is 'violet', an unknown category (this model knows 'blue', 'green', 'red'"),
        ({"grade": 40}, "['grade'] is 40, an unknown category (this model knows 10, 20, 30)"),
        ({"grade": "10"}, "['grade'] is '10', an unknown category"),
        ({"grade": None}, "['grade'] is null, an unknown category"),
        ({"words": None}, "['words'] is null: send a string"),
        ({"size": "big"}, "the model refused these inputs"),
        ({"size": [1]}, "['size'] is a list: send one value there"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_place(change: dict[str, Any], message: str, saved: Any) -> None:
    model = saved(mixed())
    good = records(FRAME)[:2]
    told = refusal(model, {"instances": [*good, {**good[0], **change}]})
    assert message in told
    assert told.startswith("instances[2]") or "refused these inputs" in told


def test_an_unknown_category_is_answered_where_the_model_takes_it(saved: Any) -> None:
    estimator = mixed(handle_unknown="ignore")
    model = saved(estimator)
    odd = FRAME.assign(colour="violet")
    assert_near(model.predict(records(odd))["probabilities"], estimator.predict_proba(odd), 1e-12)
    assert as_csv(model, odd.to_csv(index=False).encode()) == model.predict(records(odd))


def test_the_schema_lists_categories_and_its_example_is_answered(saved: Any) -> None:
    model = saved(mixed())
    by_name, _ = model.input_schema["properties"]["inputs"]["anyOf"][0]["items"]["anyOf"]
    assert by_name["properties"]["grade"] == {"enum": [10, 20, 30]}
    assert by_name["properties"]["words"] == {"type": "string"}
    assert len(model.predict(model.input_schema["examples"][0])["predictions"]) == 1


@pytest.mark.parametrize("name", ["columns", "numbers"])
def test_whatever_a_body_is_it_is_answered_or_refused(name: str, saved: Any) -> None:
    estimator = mixed() if name == "columns" else LogisticRegression().fit(TABLE, KINDS)
    answers_or_refuses_all(saved(estimator), 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["columns", "numbers"])
def test_whatever_two_thousand_bodies_are_they_are_answered_or_refused(name: str, saved: Any) -> None:
    estimator = mixed() if name == "columns" else LogisticRegression().fit(TABLE, KINDS)
    answers_or_refuses_all(saved(estimator), 2000)


# ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_requests_of_a_batch_are_computed_together_and_a_wrong_one_fails_alone(
    saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sizes = saved(LogisticRegression().fit(WHOLE, KINDS)), []
    compute = model.compute
    monkeypatch.setattr(model, "compute", lambda table: sizes.append(len(table)) or compute(table))
    rows = plain(WHOLE)
    good = model.predict_batch([{"inputs": rows[:3]}, {"inputs": []}, rows[3]])
    assert sizes[0] == 4 and isinstance(good[1], BadRequest)  # of no rows alone, it says what is wrong
    assert good[0]["predictions"] + good[2]["predictions"] == model.predict({"inputs": rows[:4]})["predictions"]
    sizes.clear()
    first, gap, text = model.predict_batch([{"inputs": rows[:3]}, [[None] * WIDTH], {"inputs": [["a"] * WIDTH]}])
    assert sizes == [4, 3, 1, 1]  # together it was refused, so each was computed by itself
    assert first["predictions"] == good[0]["predictions"]
    assert gap.message.startswith("[0][0] is null or NaN")
    assert text.message.startswith("inputs[0][0] is a text")


def test_tables_with_names_are_computed_by_themselves(saved: Any) -> None:
    model = saved(mixed())
    answers = model.predict_batch([{"inputs": records(FRAME)[:2]}, {"inputs": records(FRAME)[2:4]}])
    assert answers == [model.predict({"inputs": records(FRAME)[:2]}), model.predict({"inputs": records(FRAME)[2:4]})]


# ── pickles of any name ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["clf.joblib", "iris-v2.pkl", "best.pickle"])
def test_the_only_pickle_is_the_model_if_the_operator_allows_it(name: str, serve: Serve, tmp_path: Path) -> None:
    joblib.dump(DecisionTreeClassifier().fit(TABLE, KINDS), tmp_path / name)
    joblib.dump(StandardScaler().fit(TABLE), tmp_path / "scaler.joblib")
    assert gateway_sklearn.find_model(tmp_path, {}) is None  # it may be anything
    model = serve(tmp_path, allow_pickle=True)
    assert model.predict({"inputs": plain(TABLE)})["predictions"] == KINDS.tolist()


def test_of_two_pickles_none_is_chosen_and_beside_other_weights_none_is_a_model(tmp_path: Path) -> None:
    for name in ("one.pkl", "two.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(1))
    with pytest.raises(ConfigError, match=r"several pickles \(one\.pkl, two\.pkl\).*name it model\.pkl"):
        gateway_sklearn.find_model(tmp_path, {"allow_pickle": True})
    (tmp_path / "two.pkl").rename(tmp_path / "model.safetensors")
    assert gateway_sklearn.find_model(tmp_path, {"allow_pickle": True}) is None


def test_a_model_of_another_library_with_the_same_interface_is_served(saved: Any) -> None:
    xgboost = pytest.importorskip("xgboost")
    estimator = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(TABLE, KINDS)
    answer = saved(estimator).predict({"inputs": plain(TABLE)})
    assert answer["predictions"] == estimator.predict(TABLE).tolist()
    assert_near(answer["probabilities"], estimator.predict_proba(TABLE), 1e-6)
