"""Whatever a scikit-learn model answers when it is called directly it answers here, and nothing else ends in a 500."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from gateway_sklearn import find_model
from gateway_sklearn.model import SklearnModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zoo import GAPS, MIXED, NUMBERS, OBJECTS, TEXTS, WEIGHTS, WORDS, ZOO

from gateway import BadRequest

pytestmark = pytest.mark.filterwarnings("ignore")
Serve = Callable[[str], tuple[str, Any, SklearnModel]]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """The kind of a model's rows, the model, and the same served; each made once."""
    made: dict[str, tuple[str, Any, SklearnModel]] = {}

    def serve(name: str) -> tuple[str, Any, SklearnModel]:
        if name not in made:
            kind, estimator = ZOO[name]()
            made[name] = kind, estimator, load(tmp_path_factory.mktemp("zoo"), estimator)
        return made[name]

    return serve


def load(folder: Path, estimator: Any) -> SklearnModel:
    joblib.dump(estimator, folder / "model.pkl")
    spec = find_model(folder, {"allow_pickle": True})
    assert spec is not None
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(folder)
        model = SklearnModel(config=spec.config)
        model.load()
    return model


def forms(kind: str, rows: list[Any]) -> Iterator[Callable[[], Any]]:
    """What a user would hand to the estimator for these rows."""
    if kind in ("texts", "objects", "weights"):
        yield lambda: rows
    elif kind == "line":
        yield lambda: np.array(rows, dtype=float)
    elif len({len(row) for row in rows}) <= 1:
        if all(isinstance(value, (int, float, type(None))) for row in rows for value in row):
            yield lambda: np.array(rows, dtype=float)
        for null in (math.nan, None) if kind == "words" else (math.nan,):
            yield partial(table, rows, null)


def table(rows: list[Any], null: float | None) -> Any:
    made = np.empty((len(rows), len(rows[0]) if rows else 0), dtype=object)
    for place, row in enumerate(rows):
        made[place, :] = [null if value is None else value for value in row]
    return made


def directly(kind: str, estimator: Any, rows: list[Any]) -> list[Any]:
    """The answers of the estimator to those forms that it takes."""
    answers = []
    for form in forms(kind, rows):
        try:
            answers.append(plain(estimator.predict(form())))
        except Exception:  # that is what may become a 400
            continue
    return answers


def plain(value: Any) -> Any:
    value = value.toarray() if hasattr(value, "toarray") else value
    return value.tolist()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return bool(np.isclose(one, other, equal_nan=True))
    return bool(one == other)


def check(served: tuple[str, Any, SklearnModel], rows: list[Any]) -> Any:
    kind, estimator, model = served
    expected = directly(kind, estimator, rows)
    try:
        found = model.predict({"inputs": rows})["predictions"]
    except BadRequest as error:
        assert not expected, f"refused ({error}), and the estimator says {expected[0]}"
        assert error.status == 400 and str(error)
        return None
    assert any(same(found, answer) for answer in expected), f"{found}, and the estimator says {expected}"
    return found


GOOD: dict[str, list[Any]] = {
    "texts": TEXTS,
    "objects": OBJECTS,
    "weights": WEIGHTS,
    "numbers": NUMBERS,
    "words": [*WORDS, *MIXED, *GAPS],
    "line": [0.0, 3.5, 12],
}


@pytest.mark.parametrize("name", ZOO)
def test_a_model_of_every_kind_answers_as_when_it_is_called(serve: Serve, name: str) -> None:
    served = serve(name)
    kind, estimator, model = served
    answers = [check(served, [row]) for row in GOOD[kind]]
    assert any(answer is not None for answer in answers), "it takes no input at all"
    if kind != "words":
        assert check(served, GOOD[kind]) is not None
    example = model.input_schema["examples"][0]["inputs"][0]  # type: ignore[index]
    row = {"words": GOOD_WORDS[name], "weights": WEIGHTS[0]}.get(kind, example)
    answer = model.predict({"inputs": [row]})
    assert len(answer["predictions"]) == 1
    if hasattr(estimator, "predict_proba"):
        [form, *_] = forms(kind, [row])
        theirs = estimator.predict_proba(form())
        assert same(
            answer["probabilities"], [plain(part) for part in theirs] if isinstance(theirs, list) else plain(theirs)
        )


# A row that each of the models with categories takes.
GOOD_WORDS = {
    name: MIXED[0] if "column" in name else GAPS[0] if name == "gaps" else [2**60, 1] if "numbers" in name else WORDS[0]
    for name in ZOO
}

words = st.sampled_from(["red", "blue", "small", "large", "5", "nan", "", "a good film", "ünïcode 🙂", "\x00"])
numbers = st.one_of(
    st.integers(-3, 3),
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    st.sampled_from([2**60, 2**60 + 1, 10**400, -(2**63), 1e308, 5.0, True, False]),
)
cells = st.one_of(words, numbers, st.none())
junk: Any = st.recursive(
    cells, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=4
)
ROWS: dict[str, Any] = {
    "texts": words | junk,
    "objects": st.dictionaries(st.sampled_from(["color", "size", "other"]), junk, max_size=3) | junk,
    "numbers": st.lists(numbers | st.none(), min_size=2, max_size=2) | st.lists(cells, min_size=1, max_size=3) | junk,
    "words": st.lists(cells, min_size=2, max_size=2) | st.tuples(words, words).map(list) | junk,
    "weights": st.lists(st.tuples(words, numbers).map(list) | junk, max_size=3) | junk,
    "line": numbers | junk,
}


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_it_answers_what_the_estimator_answers_and_refuses_the_rest(serve: Serve, name: str, data: Any) -> None:
    served = serve(name)
    rows = data.draw(st.lists(ROWS[served[0]], max_size=3))
    if served[0] in ("numbers", "words") and not all(isinstance(row, list) for row in rows):
        body: Any = {"inputs": rows}  # no table; what becomes of it is an answer or a 400
        try:
            served[2].predict(body)
        except BadRequest as error:
            assert str(error)
        return
    check(served, rows)


@given(body=junk | st.fixed_dictionaries({"inputs": junk}) | st.fixed_dictionaries({"instances": junk}))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_body_whatever_is_more_than_a_bad_request(serve: Serve, body: Any) -> None:
    for name in ("text", "numbers", "one hot", "columns", "objects", "isotonic", "text through a function"):
        try:
            serve(name)[2].predict(body)
        except BadRequest as error:
            assert str(error)
