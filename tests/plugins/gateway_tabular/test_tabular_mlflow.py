"""Directories as MLflow writes them are served by the plugin of the library, without MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gateway_catboost
import gateway_lightgbm
import gateway_onnx
import gateway_sklearn
import gateway_xgboost
import joblib
import pytest
import yaml
from closeness import assert_near
from gateway_catboost.model import CatBoostModel
from gateway_lightgbm.model import LightGBMModel
from gateway_sklearn.model import SklearnModel
from gateway_xgboost.model import XGBoostModel
from mlflow_cases import FRAME, NAMES, bodies, mlmodel
from sklearn.linear_model import LogisticRegression
from tabular_cases import KINDS, NUMBERS, TABLE, WIDTH, as_csv, refusal, serving

from gateway import ConfigError
from gateway.directories.discovery import discover
from gateway.plugins import Plugins

PLUGINS = (gateway_xgboost, gateway_lightgbm, gateway_catboost, gateway_onnx, gateway_sklearn)


def of_xgboost(place: Path) -> tuple[Any, Any, list[Any]]:
    import xgboost

    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(TABLE, label=NUMBERS), 3)  # it has no names
    booster.save_model(place / "model.ubj")
    mlmodel(place, "xgboost", {"data": "model.ubj", "model_class": "xgboost.core.Booster", "model_format": "ubj"})
    return gateway_xgboost, XGBoostModel, booster.predict(xgboost.DMatrix(TABLE)).tolist()


def of_lightgbm(place: Path) -> tuple[Any, Any, list[Any]]:
    import lightgbm

    given = {"objective": "regression", "num_threads": 1, "verbosity": -1}
    booster = lightgbm.train(given, lightgbm.Dataset(FRAME, NUMBERS), 3)
    booster.save_model(place / "model.lgb")
    mlmodel(place, "lightgbm", {"data": "model.lgb", "lgb_version": "4.7.0"})
    return gateway_lightgbm, LightGBMModel, booster.predict(FRAME).tolist()


def of_catboost(place: Path) -> tuple[Any, Any, list[Any]]:
    import catboost

    given = {"iterations": 3, "verbose": False, "thread_count": 1, "allow_writing_files": False}
    model = catboost.CatBoostRegressor(**given).fit(FRAME, NUMBERS)
    model.save_model(str(place / "model.cb"), format="cbm")
    mlmodel(place, "catboost", {"data": "model.cb", "model_type": "CatBoostRegressor", "save_format": "cbm"})
    return gateway_catboost, CatBoostModel, model.predict(FRAME).tolist()


def of_skops(place: Path) -> tuple[Any, Any, list[Any]]:
    import skops.io

    estimator = LogisticRegression().fit(FRAME, KINDS)
    skops.io.dump(estimator, place / "model.skops")
    mlmodel(place, "sklearn", {"pickled_model": "model.skops", "serialization_format": "skops"})
    return gateway_sklearn, SklearnModel, estimator.predict(FRAME).tolist()


def of_pickle(place: Path) -> tuple[Any, Any, list[Any]]:
    estimator = LogisticRegression().fit(TABLE, KINDS)  # it has no names
    joblib.dump(estimator, place / "model.pkl")
    mlmodel(place, "sklearn", {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"})
    return gateway_sklearn, SklearnModel, estimator.predict(TABLE).tolist()


@pytest.mark.parametrize("make", [of_xgboost, of_lightgbm, of_catboost, of_skops, of_pickle])
def test_every_form_of_mlflow_is_answered_as_by_the_library(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, model_class, wanted = make(tmp_path)
    allowed = {"allow_pickle": make is of_pickle}
    assert [each for each in PLUGINS if each.find_model(tmp_path, allowed) is not None] == [plugin]
    model = serving(plugin, model_class, monkeypatch)(tmp_path, **allowed)
    for body in bodies():
        assert_near(model.predict(body)["predictions"], wanted, 1e-9)
    assert_near(as_csv(model, FRAME.to_csv(index=False).encode())["predictions"], wanted, 1e-9)
    assert "lacks e" in refusal(model, {"dataframe_records": [dict.fromkeys(NAMES[:4], 1.0)]})
    assert set(model.input_schema["examples"][0]["inputs"][0]) == set(NAMES)


# ── what is not served ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pickle_is_refused_unless_the_operator_allows_it(tmp_path: Path) -> None:
    of_pickle(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.pkl is a pickle, .* allow_pickle = true in gateway\.toml"):
        gateway_sklearn.find_model(tmp_path, {})


def test_the_pickle_of_a_classifier_of_lightgbm_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightgbm

    estimator = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbosity=-1).fit(FRAME, KINDS)
    joblib.dump(estimator, tmp_path / "model.pkl")
    mlmodel(tmp_path, "lightgbm", {"data": "model.pkl", "model_class": "lightgbm.sklearn.LGBMClassifier"})
    assert gateway_lightgbm.find_model(tmp_path, {}) is None
    with pytest.raises(ConfigError, match="is a pickle"):
        gateway_sklearn.find_model(tmp_path, {})
    model = serving(gateway_sklearn, SklearnModel, monkeypatch)(tmp_path, allow_pickle=True)
    assert_near(model.predict(bodies()[0])["probabilities"], estimator.predict_proba(FRAME), 1e-9)


def test_a_classifier_of_lightgbm_in_skops_needs_its_types_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightgbm
    import skops.io

    estimator = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbosity=-1).fit(FRAME, KINDS)
    skops.io.dump(estimator, tmp_path / "model.skops")
    about = {"data": "model.skops", "model_class": "lightgbm.sklearn.LGBMClassifier", "serialization_format": "skops"}
    mlmodel(tmp_path, "lightgbm", about)
    spec = gateway_sklearn.find_model(tmp_path, {})
    assert spec is not None
    [problem] = gateway_sklearn.check_model(spec)
    assert "trusted_types" in problem.what and "lightgbm.sklearn.LGBMClassifier" in problem.what
    trusted = skops.io.get_untrusted_types(file=tmp_path / "model.skops")
    model = serving(gateway_sklearn, SklearnModel, monkeypatch)(tmp_path, options={"trusted_types": trusted})
    assert_near(model.predict(bodies()[0])["probabilities"], estimator.predict_proba(FRAME), 1e-9)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("flavors: {xgboost: {data: gone.ubj}}", "MLmodel names gone.ubj, which is missing"),
        ("flavors: {xgboost: {data: ../model.ubj}}", "which leads out of the directory"),
        ("flavors: {xgboost: {data: 5}}", "names no file for its flavor xgboost"),
        ("flavors: {xgboost: {}}", "names no file for its flavor xgboost"),
    ],
)
def test_a_flavor_without_its_file_is_a_problem_that_says_so(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "model.ubj").touch()
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "MLmodel").write_text(text)
    with pytest.raises(ConfigError, match=told):
        gateway_xgboost.find_model(tmp_path / "it", {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "flavors: 5",
        "flavors: {python_function: {loader_module: mlflow.pyfunc.model}}",
        "flavors: {xgboost: 1}",
        "flavors: !!python/object/apply:os.mkdir [exploded]",
        "&a [*a]",
        "x: " + "[" * 100_000,
    ],
)
def test_a_directory_without_a_flavor_that_is_known_is_not_served(text: str, tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "MLmodel").write_text(text)
    (tmp_path / "it" / "python_model.pkl").touch()
    found = discover([tmp_path], Plugins.load())
    assert list(found.specs) == []
    assert ["MLflow" in problem.what for problem in found.problems] == [True]


def test_a_signature_that_cannot_be_read_fails_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, model_class, _ = of_xgboost(tmp_path)
    about = yaml.safe_load((tmp_path / "MLmodel").read_text())
    for inputs in ("{", "5", '[{"name": "a"}]', "[5]"):
        about["signature"]["inputs"] = inputs
        (tmp_path / "MLmodel").write_text(yaml.safe_dump(about))
        with pytest.raises(ConfigError, match="has a signature that cannot be read"):
            serving(plugin, model_class, monkeypatch)(tmp_path)
    about["signature"]["inputs"] = json.dumps(
        [{"type": "tensor", "tensor-spec": {"dtype": "f8", "shape": [-1, WIDTH]}}]
    )
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(about))
    model = serving(plugin, model_class, monkeypatch)(tmp_path)
    assert "this model's columns have none" in refusal(model, bodies()[1])
