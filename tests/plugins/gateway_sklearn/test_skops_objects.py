"""What `gateway check` says of a .skops file that cannot serve, and that the load says the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import joblib
import pytest
import skops.io
from gateway_sklearn import check_model, find_model
from gateway_sklearn.model import SklearnModel
from gateway_sklearn.skops_objects import is_preparing, useless
from sklearn.cluster import DBSCAN
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectFromModel, SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import ClassifierChain
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils import all_estimators

from gateway import ConfigError

X, Y = load_iris(return_X_y=True)


def search(estimator: Any, name: str, **more: Any) -> Any:
    return GridSearchCV(estimator, {name: [1, 2]}, cv=2, **more)


def logistic() -> Any:
    return LogisticRegression(max_iter=1000)


NOVELTY = (
    "which has no predict: with novelty=False it can only judge the data it was fitted on; fit it with novelty=True"
)
REFIT = "which has no predict: with refit=False it keeps no fitted estimator; fit it with refit=True"
USELESS: Mapping[str, tuple[Callable[[], Any], str]] = {
    "a scaler": (lambda: StandardScaler().fit(X), "of type StandardScaler, which has no predict"),
    "a pipeline of transformers": (
        lambda: make_pipeline(StandardScaler(), PCA(2)).fit(X),
        "of type Pipeline, which has no predict",
    ),
    "a pipeline that ends in nothing": (
        lambda: Pipeline([("a", StandardScaler()), ("b", "passthrough")]).fit(X),
        "of type Pipeline, which has no predict",
    ),
    "columns": (
        lambda: ColumnTransformer([("a", StandardScaler(), [0, 1])]).fit(X),
        "of type ColumnTransformer, which has no predict",
    ),
    "a search of a transformer": (
        lambda: search(PCA(), "n_components").fit(X),
        "of type GridSearchCV, which has no predict",
    ),
    "a search without a best one": (
        lambda: search(logistic(), "C", refit=False).fit(X, Y),
        f"of type GridSearchCV, {REFIT}",
    ),
    "outliers of its own data": (lambda: LocalOutlierFactor().fit(X), f"of type LocalOutlierFactor, {NOVELTY}"),
    "a pipeline that ends in these": (
        lambda: make_pipeline(StandardScaler(), LocalOutlierFactor()).fit(X),
        f"of type Pipeline, {NOVELTY}",
    ),
    "a frozen scaler": (
        lambda: FrozenEstimator(StandardScaler().fit(X)),
        "of type FrozenEstimator, which has no predict",
    ),
    "a selector": (lambda: SelectFromModel(logistic()).fit(X, Y), "of type SelectFromModel, which has no predict"),
    "a clustering of its own data": (lambda: DBSCAN().fit(X), "of type DBSCAN, which has no predict"),
    "a list": (lambda: [logistic().fit(X, Y)], "of type list, which has no predict"),
    "a table": (lambda: X, "of type ndarray, which has no predict"),
    "not fitted": (logistic, "estimator of type LogisticRegression that was not fitted; fit it, then save it"),
}
UNTRUSTED: Mapping[str, Callable[[], Any]] = {
    "a search without a best one": lambda: search(logistic(), "C", refit=False).fit(X, Y),
    "neighbours": lambda: NearestNeighbors().fit(X),
    "a selector": lambda: SelectKBest(k=1).fit(X, Y),
}
USEFUL: Mapping[str, Callable[[], Any]] = {
    "outliers of new data": lambda: make_pipeline(StandardScaler(), LocalOutlierFactor(novelty=True)).fit(X),
    "a pipeline": lambda: make_pipeline(StandardScaler(), logistic()).fit(X, Y),
    "a search of pipelines": lambda: search(make_pipeline(PCA(), logistic()), "logisticregression__C").fit(X, Y),
    "a frozen one": lambda: FrozenEstimator(logistic().fit(X, Y)),
    "a chain": lambda: ClassifierChain(logistic()).fit(X, [[y > 0, y > 1] for y in Y]),
    "one that needs no fit": GaussianProcessRegressor,
}


def described(place: Path) -> Any:
    trusted = skops.io.get_untrusted_types(file=place / "model.skops")
    return find_model(place, {"options": {"trusted_types": trusted}})


def told(place: Path) -> list[str]:
    return [problem.what for problem in check_model(described(place))]


@pytest.mark.parametrize("kind", USELESS)
def test_check_and_load_say_the_same_of_what_cannot_predict(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, says = USELESS[kind]
    skops.io.dump(make(), tmp_path / "model.skops")
    (what,) = told(tmp_path)
    assert what.startswith("model.skops holds an ") and what.endswith(says)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        SklearnModel(config=described(tmp_path).config).load()
    assert str(refused.value) == what


@pytest.mark.parametrize("kind", UNTRUSTED)
def test_nobody_is_asked_to_trust_the_types_of_what_cannot_predict(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skops.io.dump(UNTRUSTED[kind](), tmp_path / "model.skops")
    assert skops.io.get_untrusted_types(file=tmp_path / "model.skops")
    spec = find_model(tmp_path, {})
    assert spec is not None
    (what,) = [problem.what for problem in check_model(spec)]
    assert "which has no predict" in what and "trust" not in what
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        SklearnModel(config=spec.config).load()
    assert str(refused.value) == what


@pytest.mark.parametrize("kind", ["outliers of its own data", "a search without a best one"])
def test_a_pickle_of_what_cannot_predict_has_the_same_reason(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, says = USELESS[kind]
    joblib.dump(make(), tmp_path / "model.joblib")
    spec = find_model(tmp_path, {"allow_pickle": True})
    assert spec is not None
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        SklearnModel(config=spec.config).load()
    assert str(refused.value).endswith(says)


def node(of: str, values: Any, module: str) -> Any:
    return {"__class__": of, "__module__": module, "content": {"content": values}}


@pytest.mark.parametrize(
    "schema",
    [
        node("Pipeline", {"steps": "a text"}, "sklearn.pipeline"),
        node("Pipeline", {"steps": {"content": ["a text"]}}, "sklearn.pipeline"),
        node("GridSearchCV", {"cv": 2, "refit": "a text"}, "sklearn.model_selection"),
        node("GridSearchCV", {"cv": 2, "refit": None, "best_estimator_": [1]}, "sklearn.model_selection"),
    ],
)
def test_a_table_of_objects_that_is_none_is_no_fault_of_the_plugin(schema: Any, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
    assert useless(tmp_path / "model.skops") is None


@pytest.mark.parametrize("kind", USEFUL)
def test_check_says_nothing_of_what_predicts(kind: str, tmp_path: Path) -> None:
    skops.io.dump(USEFUL[kind](), tmp_path / "model.skops")
    assert told(tmp_path) == []


# ── steps before a model, saved beside it ────────────────────────────────────────────────────────────────────────────


def save(place: Path, **objects: Any) -> Path:
    for name, each in objects.items():
        skops.io.dump(each, place / f"{name}.skops")
    return place


def test_scalers_and_encoders_beside_a_model_are_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make_pipeline(StandardScaler(), PCA(2)).fit(X)
    save(
        tmp_path,
        classifier=logistic().fit(X, Y),
        columns=["a", "b"],
        label_encoder=LabelEncoder().fit(["x", "y"]),
        scaler=StandardScaler().fit(X),
        steps=pipeline,
    )
    spec = find_model(tmp_path, {})
    assert spec is not None
    (note,) = spec.notes
    assert note.startswith("classifier.skops is served without columns.skops, label_encoder.skops, scaler.skops")
    assert [problem for problem in check_model(spec) if problem.level == "error"] == []
    monkeypatch.chdir(tmp_path)
    served = SklearnModel(spec.config)
    served.load()
    assert len(served.predict({"inputs": X[:3].tolist()})["predictions"]) == 3


def test_two_models_beside_a_scaler_are_named_without_it(tmp_path: Path) -> None:
    save(tmp_path, a=logistic().fit(X, Y), b=logistic().fit(X, Y), scaler=StandardScaler().fit(X))
    with pytest.raises(ConfigError, match=r"several models \(a\.skops, b\.skops\)"):
        find_model(tmp_path, {})


def test_scalers_alone_are_told_to_be_saved_with_their_model(tmp_path: Path) -> None:
    save(tmp_path, encoder=LabelEncoder().fit(["x", "y"]), scaler=StandardScaler().fit(X))
    with pytest.raises(
        ConfigError, match=r"no file here can predict \(encoder\.skops, scaler\.skops\).*in one Pipeline"
    ):
        find_model(tmp_path, {})


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_two_names_of_one_file_are_one_model(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    save(tmp_path, a=logistic().fit(X, Y))
    link(tmp_path / "b.skops", tmp_path / "a.skops")
    spec = find_model(tmp_path, {})
    assert spec is not None
    assert not spec.notes


def test_a_file_that_cannot_be_read_may_be_a_model(tmp_path: Path) -> None:
    save(tmp_path, a=logistic().fit(X, Y))
    (tmp_path / "b.skops").write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match=r"several models \(a\.skops, b\.skops\)"):
        find_model(tmp_path, {})


def test_what_only_prepares_is_told_by_its_name_without_importing_it() -> None:
    """Against the installed library: each transformer without predict, and none that has one."""
    for name, kind in all_estimators():
        node = {"__class__": name, "__module__": kind.__module__}
        told = is_preparing(node)
        if hasattr(kind, "predict"):
            assert not told, name
        elif hasattr(kind, "transform") and name != "FrozenEstimator":  # which is what it holds
            assert told, name
