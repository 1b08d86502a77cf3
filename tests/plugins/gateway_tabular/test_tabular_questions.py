"""Classifiers of tables answer questions about one row with the probabilities that the library gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway_catboost
import gateway_lightgbm
import gateway_sklearn
import gateway_xgboost
import joblib
import numpy as np
import pandas as pd
import pytest
from closeness import assert_near
from gateway_catboost.model import CatBoostModel
from gateway_lightgbm.model import LightGBMModel
from gateway_sklearn.model import SklearnModel
from gateway_xgboost.model import XGBoostModel
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from tabular_cases import COLOURS, KINDS, NUMBERS, TABLE, serving

from gateway import BadRequest

NAMES = ["a", "b", "c", "d", "e"]
FRAME = pd.DataFrame(TABLE.astype(float), columns=NAMES)
COLOUR = {"type": "choice", "instructions": "Its colour.", "choices": [{"value": each} for each in COLOURS]}
Saved = Callable[[Any], Any]


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Saved:
    """Saves an estimator of scikit-learn and serves it."""

    def saved(estimator: Any) -> Any:
        joblib.dump(estimator, tmp_path / "model.joblib")
        return serving(gateway_sklearn, SklearnModel, monkeypatch)(tmp_path, allow_pickle=True)

    return saved


def of_xgboost(place: Path, serve: Callable[..., Any]) -> tuple[Any, Any]:
    import xgboost

    table = xgboost.DMatrix(FRAME, label=KINDS)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, table, 3)
    booster.save_model(place / "model.ubj")
    return serve(gateway_xgboost, XGBoostModel), booster.predict(xgboost.DMatrix(FRAME))


def of_lightgbm(place: Path, serve: Callable[..., Any]) -> tuple[Any, Any]:
    import lightgbm

    given = {"objective": "multiclassova", "num_class": 3, "num_threads": 1, "verbosity": -1}
    booster = lightgbm.train(given, lightgbm.Dataset(FRAME, KINDS), 3)
    booster.save_model(place / "model.txt")
    found = booster.predict(FRAME)  # of which each is a probability of its own
    return serve(gateway_lightgbm, LightGBMModel), found / found.sum(1, keepdims=True)


def of_catboost(place: Path, serve: Callable[..., Any]) -> tuple[Any, Any]:
    import catboost

    given = {"iterations": 3, "verbose": False, "thread_count": 1, "allow_writing_files": False}
    model = catboost.CatBoostClassifier(**given).fit(FRAME, np.array(COLOURS)[KINDS])
    model.save_model(str(place / "model.cbm"))
    order = [list(model.classes_).index(each) for each in COLOURS]
    return serve(gateway_catboost, CatBoostModel), model.predict_proba(FRAME)[:, order]


def of_sklearn(place: Path, serve: Callable[..., Any]) -> tuple[Any, Any]:
    estimator = LogisticRegression().fit(FRAME, np.array(COLOURS)[KINDS])
    joblib.dump(estimator, place / "model.pkl")
    order = [list(estimator.classes_).index(each) for each in COLOURS]
    return serve(gateway_sklearn, SklearnModel), estimator.predict_proba(FRAME)[:, order]


@pytest.mark.parametrize("make", [of_xgboost, of_lightgbm, of_catboost, of_sklearn])
def test_choices_have_the_probabilities_of_the_library(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(plugin: Any, model_class: Any) -> Any:
        options = {"classes": COLOURS} if plugin in (gateway_xgboost, gateway_lightgbm) else {}
        return serving(plugin, model_class, monkeypatch)(tmp_path, options=options, allow_pickle=True)

    model, wanted = make(tmp_path, serve)
    red = {"type": "predicate", "instructions": " Red "}
    for row, chances in zip(FRAME.to_numpy(), wanted, strict=True):
        record = dict(zip(NAMES, row.tolist(), strict=True))
        answers = model.decide({"input": json.dumps(record), "questions": [COLOUR, red]})["answers"]
        assert_near(answers[0], chances, 1e-6)
        assert answers[1] == answers[0][0]


INPUTS = [
    '{"a": 1, "b": 2, "c": 3, "d": 4, "e": null}',
    '[{"e": null, "a": 1, "b": 2, "c": 3, "d": 4}]',
    '{"inputs": [[1, 2, 3, 4, null]]}',
    " [1, 2, 3, 4, null]\n",
    "1,2,3,4,",
    "e,d,c,b,a\n,4,3,2,1",
    '{"dataframe_split": {"columns": ["a", "b", "c", "d", "e"], "data": [[1, 2, 3, 4, null]]}}',
]


@pytest.fixture
def gaps(saved: Saved) -> Any:
    return saved(DecisionTreeClassifier(max_depth=3).fit(FRAME, np.array(COLOURS)[KINDS]))


@pytest.mark.parametrize("text", INPUTS)
def test_a_row_may_be_written_in_any_form(text: str, gaps: Any) -> None:
    found = gaps.decide({"input": text, "questions": [COLOUR]})
    assert found == gaps.decide({"input": INPUTS[0], "questions": [COLOUR]})
    messages = [{"role": "user", "content": [{"type": "input_text", "text": text}]}]
    assert found == gaps.decide({"input": messages, "questions": [COLOUR]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "input is one row of this model: nothing to predict"),
        ("[[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]", "it holds 2 rows: send one"),
        ('{"a": 1}', "lacks b, c, d, e"),
        ('{"a": 1', "input is not the JSON that it begins like"),
        ("[" * 100_000, "input is not the JSON that it begins like"),
        ("1,2,x,4,5", "input is one row of this model: the model refused these inputs"),
        ("1,2", "line 1 of the body has 2 values"),
        ('{"inputs": [1, 2, 3, 4, 5], "explain": true}', "explanations are for predict"),
    ],
)
def test_what_is_no_row_is_refused_with_the_reason(text: str, message: str, gaps: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        gaps.decide({"input": text, "questions": [COLOUR]})
    assert message in caught.value.message and caught.value.param == "input"


def test_a_question_that_does_not_fit_is_refused_with_the_classes(gaps: Any) -> None:
    other = {"type": "choice", "instructions": "?", "choices": [{"value": "red"}, {"value": "violet"}]}
    with pytest.raises(BadRequest, match=r"'violet' is none of them \(have: blue, green, red\)") as caught:
        gaps.decide({"input": INPUTS[0], "questions": [COLOUR, other]})
    assert caught.value.param == "questions[1].choices[1].value"


def test_options_without_any_probability_are_no_answer(saved: Saved) -> None:
    tree = saved(DecisionTreeClassifier().fit(FRAME, np.array(COLOURS)[KINDS]))
    row = FRAME[KINDS == 0].iloc[0].tolist()
    others = {"type": "choice", "instructions": "?", "choices": [{"value": "green"}, {"value": "blue"}]}
    assert tree.decide({"input": json.dumps(row), "questions": [others, COLOUR]})["answers"] == [None, [1.0, 0.0, 0.0]]


def test_true_and_false_are_classes_that_mean_it(saved: Saved) -> None:
    estimator = LogisticRegression().fit(FRAME, KINDS > 0)
    yes_or_no = {"type": "choice", "instructions": "?", "choices": [{"value": True}, {"value": False}]}
    statement = {"type": "predicate", "instructions": "It is one."}
    row = json.dumps(FRAME.iloc[5].tolist())
    [[yes, no], same] = saved(estimator).decide({"input": row, "questions": [yes_or_no, statement]})["answers"]
    assert_near([no, yes], estimator.predict_proba(FRAME[5:6])[0], 1e-9)
    assert same == yes


def test_a_model_of_texts_or_objects_takes_what_it_reads(saved: Saved) -> None:
    texts = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good film", "bad film"], ["yes", "no"])
    question = {"type": "predicate", "instructions": "It is good."}
    [found] = saved(texts).decide({"input": "[a good one", "questions": [question]})["answers"]
    assert_near(found, texts.predict_proba(["[a good one"])[0][1], 1e-9)
    objects = make_pipeline(DictVectorizer(), MultinomialNB()).fit([{"a": 1}, {"b": 2}], ["yes", "no"])
    [found] = saved(objects).decide({"input": '{"a": 3}', "questions": [question]})["answers"]
    assert_near(found, objects.predict_proba([{"a": 3}])[0][1], 1e-9)


def test_labels_that_may_be_true_at_once_take_predicates_alone(saved: Saved) -> None:
    both = np.column_stack([KINDS > 0, KINDS > 1]).astype(int)
    estimator = OneVsRestClassifier(LogisticRegression()).fit(FRAME, both)
    model, row = saved(estimator), json.dumps(FRAME.iloc[3].tolist())
    first = {"type": "predicate", "instructions": "0"}
    [found] = model.decide({"input": row, "questions": [first]})["answers"]
    assert_near(found, estimator.predict_proba(FRAME[3:4])[0][0], 1e-9)
    choice = {"type": "choice", "instructions": "?", "choices": [{"value": "0"}, {"value": "1"}]}
    with pytest.raises(BadRequest, match="may be true at once"):
        model.decide({"input": row, "questions": [choice]})


@pytest.mark.parametrize(
    "estimator",
    [
        LinearRegression().fit(TABLE, NUMBERS),
        MultiOutputClassifier(LogisticRegression()).fit(TABLE, np.column_stack([KINDS > 0, KINDS > 1])),
    ],
    ids=["a regression", "several outputs"],
)
def test_other_models_have_no_such_method(estimator: Any, saved: Saved) -> None:
    assert not hasattr(saved(estimator), "decide")


def test_whatever_an_input_is_it_is_answered_or_refused(gaps: Any) -> None:
    @settings(max_examples=300, deadline=None)
    @given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
    def all_are(text: str) -> None:
        try:
            gaps.decide({"input": text, "questions": [COLOUR]})
        except BadRequest as error:
            assert error.message

    all_are()
