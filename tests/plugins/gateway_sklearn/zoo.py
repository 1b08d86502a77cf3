"""A zoo of fitted scikit-learn models, each with the kind of rows that it was fitted on.

`ZOO` makes them when asked, by name. Their functions stand here, where a saved model finds them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans, MeanShift
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import RFE, SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import CategoricalNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

TEXTS = ["a good film", "a bad film", "good", "bad bad", "good good film", "bad"] * 2
LABELS = ["yes", "no"] * 6
ONES = [1, 0] * 6
NUMBERS = [[float(i % 5), float(i % 3)] for i in range(12)]
PAIRS = [[i % 2, i % 3 % 2] for i in range(12)]
OBJECTS = [{"color": ["red", "blue"][i % 2], "size": i} for i in range(12)]
MIXED = [[["red", "blue", "green"][i % 3], float(i)] for i in range(12)]
WEIGHTS = [[[word, len(word)] for word in text.split()] for text in TEXTS]
WORDS = [["red", ["small", "large"][i % 2]] for i in range(12)]
GAPS: list[list[Any]] = [[float(i) if i % 3 else None, ["red", None][i % 2]] for i in range(12)]


def lower(texts: Any) -> Any:
    return [text.lower() for text in texts]


def first_two(table: Any) -> Any:
    return table[:, :2]


def log(table: Any) -> Any:
    return np.log1p(np.abs(table))


def text_model() -> Any:
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


def numbers_model() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression())


def mixed_table(rows: Any) -> Any:
    return np.array(rows, dtype=object)


def by_columns(*parts: Any) -> Any:
    return make_pipeline(ColumnTransformer(list(parts), sparse_threshold=0.0), DecisionTreeClassifier(random_state=0))


Zoo = dict[str, Callable[[], tuple[str, Any]]]
texts: dict[str, Callable[[], Any]] = {
    "text": text_model,
    "text in a search": lambda: GridSearchCV(text_model(), {"logisticregression__C": [1, 2]}, cv=2),
    "text in a random search": lambda: RandomizedSearchCV(
        text_model(), {"logisticregression__C": [1, 2]}, n_iter=1, cv=2
    ),
    "text, calibrated": lambda: CalibratedClassifierCV(text_model(), cv=2),
    "text, voting": lambda: VotingClassifier([("a", text_model()), ("b", text_model())], voting="soft"),
    "text, stacked": lambda: StackingClassifier([("a", text_model()), ("b", text_model())], cv=2),
    "text in a union": lambda: make_pipeline(
        FeatureUnion([("words", TfidfVectorizer()), ("letters", CountVectorizer(analyzer="char"))]),
        LogisticRegression(),
    ),
    "text in a union of pipelines": lambda: make_pipeline(
        FeatureUnion(
            [("a", make_pipeline(TfidfVectorizer(), SelectKBest(k=1))), ("b", CountVectorizer()), ("c", "drop")]
        ),
        LogisticRegression(),
    ),
    "text, one against the rest": lambda: OneVsRestClassifier(text_model()),
    "text in a pipeline in a pipeline": lambda: Pipeline(
        [("nothing", "passthrough"), ("inner", Pipeline([("t", TfidfVectorizer())])), ("m", MultinomialNB())]
    ),
    "text, searched, calibrated, voting": lambda: VotingClassifier(
        [("a", CalibratedClassifierCV(GridSearchCV(text_model(), {}, cv=2), cv=2))]
    ),
    "text, threshold": lambda: FixedThresholdClassifier(text_model(), threshold=0.4, pos_label="yes"),
    "text, hashed": lambda: make_pipeline(HashingVectorizer(n_features=16), SGDClassifier(random_state=0)),
    "text through a function": lambda: make_pipeline(FunctionTransformer(lower), TfidfVectorizer(), MultinomialNB()),
    "text, by one code that all classes share": lambda: OutputCodeClassifier(text_model(), random_state=0),
    "text, unread": lambda: DummyClassifier(),
    "text, unread, voting": lambda: VotingClassifier([("a", DummyClassifier()), ("b", text_model())]),
    "text, search inside": lambda: make_pipeline(
        TfidfVectorizer(), GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2)
    ),
}
numbers: dict[str, Callable[[], Any]] = {
    "numbers": numbers_model,
    "numbers in a search": lambda: GridSearchCV(numbers_model(), {}, cv=2),
    "forest": lambda: RandomForestClassifier(3, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=2, random_state=0),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=2),
    "bagging": lambda: BaggingClassifier(DecisionTreeClassifier(), 2, max_features=1, random_state=0),
    "neighbours": lambda: KNeighborsClassifier(2),
    "machine": lambda: SVC(),
    "dummy": lambda: DummyClassifier(),
    "filled": lambda: make_pipeline(SimpleImputer(), LogisticRegression()),
    "binned": lambda: make_pipeline(KBinsDiscretizer(2, quantile_method="linear"), LogisticRegression()),
    "function of numbers": lambda: make_pipeline(FunctionTransformer(log), LogisticRegression()),
    "function of columns": lambda: make_pipeline(FunctionTransformer(first_two), LogisticRegression()),
    "chosen": lambda: RFE(LogisticRegression(), n_features_to_select=1),
    "pairs of classes": lambda: OneVsOneClassifier(LogisticRegression()),
    "codes of classes": lambda: OutputCodeClassifier(LogisticRegression(), random_state=0),
    "network": lambda: MLPClassifier((2,), max_iter=5, random_state=0),
    "stacked": lambda: StackingClassifier([("a", LogisticRegression())], passthrough=True, cv=2),
    "nothing in between": lambda: Pipeline([("a", "passthrough"), ("b", LogisticRegression())]),
}
outliers: dict[str, Callable[[], Any]] = {
    "isolation": lambda: IsolationForest(n_estimators=3, random_state=0),
    "outliers": lambda: LocalOutlierFactor(3, novelty=True),
    "one class": lambda: OneClassSVM(),
    "clusters": lambda: KMeans(2, n_init=1, random_state=0),
    "shifted": lambda: MeanShift(bandwidth=2),
}
regressions: dict[str, Callable[[], Any]] = {
    "line": lambda: LinearRegression(),
    "tree": lambda: DecisionTreeRegressor(random_state=0),
    "target changed": lambda: TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
    "voting line": lambda: VotingRegressor([("a", Ridge()), ("b", LinearRegression())]),
}
several: dict[str, Callable[[], Any]] = {
    "several": lambda: MultiOutputClassifier(LogisticRegression()),
    "several at once": lambda: RandomForestClassifier(3, random_state=0),
    "chain": lambda: ClassifierChain(LogisticRegression()),
    "several labels": lambda: OneVsRestClassifier(LogisticRegression()),
    "several lines": lambda: MultiOutputRegressor(Ridge()),
    "several labels of a network": lambda: MLPClassifier((2,), max_iter=5, random_state=0),
    "several without probabilities": lambda: MultiOutputClassifier(SGDClassifier(random_state=0)),
}
encoder = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
words: dict[str, Callable[[], Any]] = {
    "one hot": lambda: make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
    "one hot, strict": lambda: make_pipeline(OneHotEncoder(), LogisticRegression()),
    "ordinal": lambda: make_pipeline(OrdinalEncoder(**encoder), DecisionTreeClassifier(random_state=0)),
    "target encoded": lambda: make_pipeline(TargetEncoder(cv=2), LogisticRegression()),
    "filled, one hot": lambda: make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"), LogisticRegression()
    ),
    "encoded in a search": lambda: GridSearchCV(
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), {}, cv=2
    ),
    "encoded in a union": lambda: make_pipeline(
        FeatureUnion([("a", OneHotEncoder(handle_unknown="ignore")), ("b", OrdinalEncoder(**encoder))]),
        LogisticRegression(),
    ),
}
mixed: dict[str, Callable[[], Any]] = {
    "columns": lambda: by_columns(("a", OneHotEncoder(handle_unknown="ignore"), [0]), ("b", StandardScaler(), [1])),
    "columns, the rest as it is": lambda: make_pipeline(
        ColumnTransformer([("a", OrdinalEncoder(**encoder), [0])], remainder="passthrough"),
        DecisionTreeClassifier(random_state=0),
    ),
    "a column of text": lambda: by_columns(("a", TfidfVectorizer(), 0), ("b", StandardScaler(), [1])),
    "columns in a search": lambda: GridSearchCV(
        by_columns(("a", OneHotEncoder(handle_unknown="ignore"), [0]), ("b", SimpleImputer(), [1])), {}, cv=2
    ),
    "a pipeline of a column": lambda: by_columns(
        ("a", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), [0]),
        ("b", "passthrough", [1]),
    ),
}
objects: dict[str, Callable[[], Any]] = {
    "objects": lambda: make_pipeline(DictVectorizer(), LogisticRegression()),
    "objects in a search": lambda: GridSearchCV(make_pipeline(DictVectorizer(), LogisticRegression()), {}, cv=2),
    "objects, hashed": lambda: make_pipeline(FeatureHasher(8), LogisticRegression()),
    "objects, voting": lambda: VotingClassifier([("a", make_pipeline(DictVectorizer(), LogisticRegression()))]),
}


def _fitted(rows: Any, target: Any, models: dict[str, Callable[[], Any]], kind: str) -> Zoo:
    def make(model: Callable[[], Any]) -> Callable[[], tuple[str, Any]]:
        return lambda: (kind, model().fit(rows, target) if target is not None else model().fit(rows))

    return {name: make(model) for name, model in models.items()}


ZOO: Zoo = {
    **_fitted(TEXTS, LABELS, texts, "texts"),
    "text, several": lambda: ("texts", MultiOutputClassifier(text_model()).fit(TEXTS, PAIRS)),
    "text, with a label that all have": lambda: (
        "texts",
        OneVsRestClassifier(text_model()).fit(TEXTS, [[1, one] for one in ONES]),
    ),
    "text, target changed": lambda: (
        "texts",
        TransformedTargetRegressor(make_pipeline(TfidfVectorizer(), Ridge()), func=np.log1p, inverse_func=np.expm1).fit(
            TEXTS, ONES
        ),
    ),
    **_fitted(np.array(NUMBERS), [*LABELS[:11], "maybe"], numbers, "numbers"),
    **_fitted(np.array(NUMBERS), None, outliers, "numbers"),
    **_fitted(np.array(NUMBERS), ONES, regressions, "numbers"),
    "self-training": lambda: ("numbers", SelfTrainingClassifier(LogisticRegression()).fit(NUMBERS, [1, 0, -1] * 4)),
    **_fitted(np.array(NUMBERS), PAIRS, several, "numbers"),
    "whole numbers": lambda: ("numbers", CategoricalNB().fit([[i % 5, i % 3] for i in range(12)], ONES)),
    "isotonic": lambda: ("line", IsotonicRegression(out_of_bounds="clip").fit(range(12), range(12))),
    **_fitted(np.array(WORDS, dtype=object), LABELS, words, "words"),
    **_fitted(mixed_table(MIXED), LABELS, mixed, "words"),
    "gaps": lambda: (
        "words",
        by_columns(("a", SimpleImputer(), [0]), ("b", OneHotEncoder(handle_unknown="ignore"), [1])).fit(
            mixed_table(GAPS), LABELS
        ),
    ),
    "numbers as categories": lambda: (
        "words",
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(
            [[2**60 + i % 2, i % 3] for i in range(12)], LABELS
        ),
    ),
    **_fitted(OBJECTS, LABELS, objects, "objects"),
    "weighted words, hashed": lambda: (
        "weights",
        make_pipeline(FeatureHasher(8, input_type="pair"), LogisticRegression()).fit(WEIGHTS, LABELS),
    ),
}
