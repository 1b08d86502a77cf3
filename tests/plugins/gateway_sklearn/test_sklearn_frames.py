"""Models that were fitted on tables with names: what they take, and the packages that they need for it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_sklearn import find_model
from gateway_sklearn.model import SklearnModel
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from gateway import BadRequest, ConfigError

pd = pytest.importorskip("pandas")

FRAME = pd.DataFrame(
    {
        "color": pd.Series(["red", "blue", None, "red"] * 3, dtype=object),
        "size": [1.0, 2.0, None, 4.0] * 3,
        "story": ["a good film", "bad", "good", "a bad film"] * 3,
        "id": [1, 2, 3, 4] * 3,
    }
)
LABELS = ["yes", "no", "yes", "no"] * 3
ROW = {"color": "blue", "size": 2, "story": "a bad one", "id": 9}


def columns(*, rest: str = "drop", color: Any = ("color",)) -> Any:
    return ColumnTransformer(
        [
            ("color", OneHotEncoder(handle_unknown="ignore"), list(color) if isinstance(color, tuple) else color),
            ("size", SimpleImputer(), ["size"]),
            ("story", TfidfVectorizer(), "story"),
        ],
        remainder=rest,
        sparse_threshold=0.0,
    )


def pick(frame: Any) -> Any:
    return frame[["size"]].fillna(0)


def tree(*before: Any) -> Any:
    return make_pipeline(*before, DecisionTreeClassifier(random_state=0)).fit(FRAME, LABELS)


MODELS: dict[str, Callable[[], Any]] = {
    "columns": lambda: tree(columns()),
    "columns in a search": lambda: GridSearchCV(make_pipeline(columns(), LogisticRegression()), {}, cv=2).fit(
        FRAME, LABELS
    ),
    "the rest as it is": lambda: tree(columns(rest="passthrough")),
    "a function of the table": lambda: tree(FunctionTransformer(pick)),
    "tables inside": lambda: tree(
        ColumnTransformer([("size", SimpleImputer(), [1]), ("id", "passthrough", [3])]).set_output(transform="pandas")
    ),
    "columns by their type": lambda: tree(
        ColumnTransformer([("n", SimpleImputer(), make_column_selector(dtype_include="number"))])
    ),
    "numbers with names": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[["id"]], LABELS),
    "categories with names": lambda: make_pipeline(OrdinalEncoder(), DecisionTreeClassifier(random_state=0)).fit(
        FRAME[["color", "id"]], LABELS
    ),
    "trees that know categories": lambda: HistGradientBoostingClassifier(
        max_iter=2, min_samples_leaf=1, categorical_features=["color"]
    ).fit(FRAME[["color", "size"]], LABELS),
}


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], SklearnModel]:
    def serve(estimator: Any) -> SklearnModel:
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(estimator))
        spec = find_model(tmp_path, {"allow_pickle": True})
        assert spec is not None
        monkeypatch.chdir(tmp_path)
        model = SklearnModel(config=spec.config)
        model.load()
        return model

    return serve


@pytest.mark.parametrize("name", MODELS)
def test_rows_with_names_are_answered_as_the_table_of_them(serve: Any, name: str) -> None:
    estimator = MODELS[name]()
    model = serve(estimator)
    names = list(estimator.feature_names_in_)
    for change in ({}, {"color": "green"}, {"color": None}, {"size": None}, {"color": None, "size": None}):
        row = {key: value for key, value in {**ROW, **change}.items() if key in names}
        nulls = {"color": None, "size": np.nan}
        frame = pd.DataFrame(
            {
                key: pd.Series(
                    [nulls.get(key) if value is None else value], dtype=object if key in ("color", "story") else float
                )
                for key, value in row.items()
            }
        )
        try:
            expected = estimator.predict(frame[names]).tolist()
        except ValueError:
            with pytest.raises(BadRequest, match=r"refused these inputs|an unknown category"):
                model.predict({"inputs": [row]})
            continue
        backwards = dict(reversed(row.items()))
        for body in ({"inputs": [row]}, {"inputs": backwards}, {"instances": [[row[key] for key in names]]}):
            assert model.predict(body)["predictions"] == expected


def test_a_column_that_the_model_does_not_use_may_be_missing_and_others_may_be_there(serve: Any) -> None:
    model = serve(tree(columns()))
    row = {key: value for key, value in ROW.items() if key != "id"}
    assert model.predict({"inputs": [{**row, "more": "x"}]}) == model.predict({"inputs": [ROW]})
    with pytest.raises(BadRequest, match=r"inputs\[0\] lacks size"):
        model.predict({"inputs": [{key: value for key, value in ROW.items() if key != "size"}]})
    with pytest.raises(BadRequest, match=r"inputs\[1\] lacks size|inputs\[0\] lacks size"):
        model.predict({"inputs": [ROW, {key: value for key, value in ROW.items() if key != "size"}]})


def test_null_or_numbers_alone_in_a_column_of_categories_stay_what_they_are(serve: Any) -> None:
    model = serve(make_pipeline(OrdinalEncoder(), DecisionTreeClassifier(random_state=0)).fit(FRAME[["color"]], LABELS))
    assert model.predict({"inputs": [[None]]})["predictions"] == ["yes"]  # None is a category, NaN would be unknown
    with pytest.raises(
        BadRequest, match=r"inputs\[1\]\['color'\] is 5, an unknown category \(this model knows 'blue', 'red', null\)"
    ):
        model.predict({"inputs": [["red"], [5]]})


@pytest.mark.parametrize("name", ["columns", "columns in a search", "a function of the table", "tables inside"])
def test_a_package_that_is_needed_is_said_when_the_model_loads(
    serve: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("gateway_sklearn.columns.has", lambda package: package != "pandas")
    with pytest.raises(ConfigError, match="run: pip install pandas"):
        serve(MODELS[name]())


def test_tables_that_steps_make_for_each_other_need_their_package(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway_sklearn.columns.has", lambda package: package != "polars")
    inside = make_pipeline(StandardScaler().set_output(transform="polars"), LogisticRegression())
    inside.steps[1][1].fit([[0.0], [1.0]], [0, 1])
    inside.steps[0][1].fit([[0.0], [1.0]])
    with pytest.raises(ConfigError, match="run: pip install polars"):
        serve(inside)


def test_names_alone_need_no_package(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("columns", "rows"):
        monkeypatch.setattr(f"gateway_sklearn.{module}.has", lambda package: False)
    model = serve(MODELS["numbers with names"]())
    assert model.predict({"inputs": [{"id": 1}]})["predictions"] == model.predict({"inputs": [[1]]})["predictions"]


@pytest.mark.parametrize(
    "around",
    [
        lambda reads: reads,
        lambda reads: make_pipeline(FunctionTransformer(), reads),
        lambda reads: FeatureUnion([("one", make_pipeline("passthrough", reads)), ("two", CountVectorizer())]),
    ],
    ids=["first", "behind a step that hands on what it got", "within one"],
)
def test_texts_that_are_names_of_files_are_never_opened(
    serve: Any, tmp_path: Path, around: Callable[[Any], Any]
) -> None:
    (tmp_path / "a.txt").write_text("good film")
    reads_files = make_pipeline(around(CountVectorizer(input="filename")), LogisticRegression())
    reads_files.fit([str(tmp_path / "a.txt")] * 2, [0, 1])
    with pytest.raises(ConfigError, match="would open the files that a request names"):
        serve(reads_files)


class Equal:
    """Not a text, and equal to one."""

    def __eq__(self, other: object) -> bool:
        return other == "filename"


class Text(str):
    """Reads as one text and is equal to another."""

    def __eq__(self, other: object) -> bool:
        return other == "filename"

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    "opens",
    [np.array("filename"), np.array(["filename"]), np.str_("filename"), Equal(), Text("content"), None],
    ids=["an array", "an array of one", "NumPy's text", "what is equal to it", "a text of another class", "nothing"],
)
def test_whatever_is_not_the_word_content_opens_no_files(serve: Any, opens: Any) -> None:
    reads = make_pipeline(CountVectorizer(), LogisticRegression()).fit(["good", "bad"], [0, 1])
    reads[0].input = opens
    with pytest.raises(ConfigError, match="would open the files that a request names"):
        serve(reads)


def test_a_vectorizer_that_is_masked_in_an_array_is_found(serve: Any) -> None:
    reads = make_pipeline(CountVectorizer(), LogisticRegression()).fit(["good", "bad"], [0, 1])
    hidden = CountVectorizer(input="filename")
    reads[1].extra = np.ma.MaskedArray(np.array([hidden], dtype=object), mask=[True])
    with pytest.raises(ConfigError, match="would open the files that a request names"):
        serve(reads)


@pytest.mark.parametrize("name", ["tofile", np.array("tofile"), Text("predict")], ids=["text", "array", "other class"])
def test_a_stack_or_a_chain_calls_no_method_but_those_that_predict(serve: Any, name: Any) -> None:
    stack = StackingClassifier([("one", LogisticRegression())], cv=2).fit([[0], [1]] * 4, [0, 1] * 4)
    chain = ClassifierChain(LogisticRegression()).fit([[0], [1]] * 4, [[0, 1], [1, 0]] * 4)
    assert serve(stack).predict({"inputs": [[1]]})["predictions"] == [1]
    assert serve(chain).predict({"inputs": [[1]]})["predictions"] == [[1, 0]]
    stack.stack_method_, chain.chain_method_ = [name], name
    stack.estimators_ = [np.zeros(1)]
    for unsafe in (stack, chain):
        with pytest.raises(ConfigError, match="it may call predict, predict_proba"):
            serve(unsafe)


def test_a_model_that_was_not_fitted_fails_its_load(serve: Any) -> None:
    with pytest.raises(ConfigError, match="LogisticRegression that was not fitted"):
        serve(make_pipeline(TfidfVectorizer(), LogisticRegression()))


def test_lists_of_words_are_taken_as_they_are(serve: Any) -> None:
    hashed = make_pipeline(FeatureHasher(8, input_type="string"), LogisticRegression())
    model = serve(hashed.fit([["a", "b"], ["c"]], [0, 1]))
    assert model.predict({"inputs": [["a", "b"], ["c"]]})["predictions"] == [0, 1]
    with pytest.raises(BadRequest, match="refused these inputs"):
        model.predict({"inputs": [5]})


def test_objects_are_told_from_what_is_none(serve: Any) -> None:
    from sklearn.feature_extraction import DictVectorizer

    model = serve(make_pipeline(DictVectorizer(), LogisticRegression()).fit([{"a": 1}, {"b": "x"}], [0, 1]))
    assert model.predict({"inputs": {"a": 1}})["predictions"] == [0]
    assert model.predict({"inputs": [{"b": "x"}, {"a": 2, "new": "y"}]})["predictions"] == [1, 0]
    with pytest.raises(BadRequest, match=r"inputs\[1\] is a text, this model takes objects: send"):
        model.predict({"inputs": [{"a": 1}, "text"]})
    with pytest.raises(BadRequest, match="Unsupported value"):
        model.predict({"inputs": [{"a": {"b": 1}}]})


def test_a_value_that_is_no_text_is_told_by_its_place(serve: Any) -> None:
    frame = pd.DataFrame({"width": [1.0, 2.0], "text": ["good", "bad"]})
    columns = ColumnTransformer([("words", TfidfVectorizer(), "text")], remainder="passthrough")
    model = serve(make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1]))
    for value, kind in ((None, "null"), (5, "a number"), (True, "true or false")):
        with pytest.raises(BadRequest, match=rf"inputs\[1\]\['text'\] is {kind}: send a string"):
            model.predict({"inputs": [{"text": "good", "width": 1}, {"text": value, "width": 1}]})
    with pytest.raises(BadRequest, match=r"inputs\[0\]\['width'\] is a list: send one value there"):
        model.predict({"inputs": [{"text": "good", "width": [1]}]})


def test_a_column_of_dates_among_others_is_read_as_dates(serve: Any) -> None:
    frame = FRAME[["color", "size"]].assign(day=pd.to_datetime(["2020-01-01", "2021-06-02"] * 6))
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    day = ColumnTransformer([("day", encoder, ["day"]), ("size", SimpleImputer(), ["size"])])
    model = make_pipeline(day, DecisionTreeClassifier(random_state=0)).fit(frame, ["old", "new"] * 6)
    served = serve(model)
    rows = [{"color": "red", "size": 1, "day": "2021-06-02"}, {"color": None, "size": 2.0, "day": "2020-01-01"}]
    assert served.predict({"inputs": rows})["predictions"] == ["new", "old"]
    assert served.predict({"inputs": [list(row.values()) for row in rows]})["predictions"] == ["new", "old"]
    missing = served.predict({"inputs": [{"color": "red", "size": 1, "day": None}]})["predictions"]
    assert missing == model.predict(frame.head(1).assign(day=pd.NaT)).tolist()
