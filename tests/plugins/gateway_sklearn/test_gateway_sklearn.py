from __future__ import annotations

import io
import json
import os
import pickle
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from closeness import assert_near
from gateway_sklearn import find_model, skops_types
from gateway_sklearn.model import SklearnModel
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from gateway import BadRequest, ConfigError
from gateway.cli import cli
from gateway.directories.discovery import discover
from gateway.files import downloads
from gateway.plugins import Plugins

MODELS = Path(__file__).parents[3] / "models"
IRIS = [5.1, 3.5, 1.4, 0.2]  # the first flower, a setosa


def save(directory: Path, model: Any, name: str = "model.skops") -> Path:
    import skops.io

    directory.mkdir(parents=True, exist_ok=True)
    skops.io.dump(model, directory / name)
    return directory


def iris(**options: Any) -> Any:
    flowers, kinds = load_iris(return_X_y=True)
    return make_pipeline(StandardScaler(), LogisticRegression(**options)).fit(flowers, kinds)


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SklearnModel]:
    """Saves an estimator, finds it as discovery would, and loads it as a worker would."""

    def serve(model: Any, **overrides: Any) -> SklearnModel:
        return load(save(tmp_path / "a-model", model), **overrides)

    def load(directory: Path, **overrides: Any) -> SklearnModel:
        spec = find_model(directory, overrides)
        assert spec is not None
        monkeypatch.chdir(directory)
        served = SklearnModel(config=spec.config)
        served.load()
        return served

    serve.directory = load  # type: ignore[attr-defined]
    return serve


# ── whose directory it is ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["model.skops", "iris.skops"])
def test_a_directory_with_one_skops_file_is_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    spec = find_model(tmp_path, {})
    assert spec is not None
    assert (spec.target, spec.format, spec.needs) == (
        "gateway_sklearn.model:SklearnModel",
        "sklearn",
        ("sklearn", "skops"),
    )
    assert spec.limits.slots == 4


def test_a_directory_without_a_model_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "table.pkl").touch()
    assert find_model(tmp_path, {}) is None


@pytest.mark.parametrize("code", ["model.py", "model/model.py"])
def test_a_directory_with_code_of_its_own_is_not_ours(tmp_path: Path, code: str) -> None:
    (tmp_path / "model.skops").touch()
    (tmp_path / code).parent.mkdir(exist_ok=True)
    (tmp_path / code).touch()
    assert find_model(tmp_path, {}) is None


def test_a_hidden_file_is_not_the_model(tmp_path: Path) -> None:
    """SHA256SUMS need not list it."""
    (tmp_path / ".one.skops").touch()
    assert find_model(tmp_path, {}) is None
    (tmp_path / "two.skops").touch()
    assert find_model(tmp_path, {}) is not None


def test_patterns_choose_the_file_of_a_snapshot_that_holds_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "0a1b"
    place.mkdir()
    for name in ("one.skops", "two.skops", "three.skops"):
        (place / name).touch()
    monkeypatch.setattr(downloads, "find_snapshot", lambda entry, *name, own: place)
    monkeypatch.setattr(downloads, "snapshot_folders", lambda name, own: [place])
    root = tmp_path / "it"
    root.mkdir()
    config = "framework: sklearn\nweights: [{source: 'hf://somebody/them'%s}]"
    (root / "config.yaml").write_text(config % "")
    with pytest.raises(ConfigError, match=r"several models .* in config\.yaml allow_patterns: \[one\.skops\]"):
        find_model(root, {})
    (root / "config.yaml").write_text(config % ", allow_patterns: ['two*']")
    assert find_model(root, {}).notes == ()


def test_of_several_files_the_one_named_model_counts(tmp_path: Path) -> None:
    (tmp_path / "one.skops").touch()
    (tmp_path / "two.skops").touch()
    with pytest.raises(ConfigError, match=r"several models \(one\.skops, two\.skops\)"):
        find_model(tmp_path, {})
    (tmp_path / "model.skops").touch()
    assert find_model(tmp_path, {}) is not None


@pytest.mark.parametrize(
    "name",
    [
        *("scaler.pkl", "label_encoder.joblib", "vectorizer.skops", "mean.npy", "std.npy", "params.npz", "scaler.json"),
        *("preprocessor.onnx", "pre_processing.onnx", "feature-encoder.h5", "threshold.json", "norm_scale.yaml"),
    ],
)
def test_what_lies_beside_a_model_is_not_left_out_without_a_word(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m"
    save(path, iris())
    assert find_model(path, {}).notes == ()
    (path / name).touch()
    (note,) = find_model(path, {}).notes
    assert f"model.skops is served without {name}" in note
    assert "as one Pipeline" in note and "a separate model needs its own directory" in note
    told = discover([tmp_path], Plugins.load())
    assert [problem for problem in told.problems if problem.code == "passed_over"] == []


@pytest.mark.parametrize("name", ["README.json", "metadata.json", "meaning.json", "cnn.onnx", "escalation.yaml"])
def test_what_has_no_name_of_a_step_is_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m"
    save(path, iris())
    (path / name).touch()
    assert find_model(path, {}).notes == ()


def test_weights_may_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "iris").mkdir()
    (tmp_path / "best.skops").touch()
    (tmp_path / "iris" / "config.yaml").write_text("weights: [{source: 'file://../best.skops'}]")
    assert find_model(tmp_path / "iris", {}) is not None


def test_framework_in_the_config_beats_detection(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("framework: sklearn")
    with pytest.raises(ConfigError, match=r"no model\.skops; save the model with skops\.io\.dump"):
        find_model(tmp_path, {})
    (tmp_path / "model.skops").touch()
    (tmp_path / "config.yaml").write_text("framework: xgboost")
    assert find_model(tmp_path, {}) is None


# ── what may be opened ───────────────────────────────────────────────────────────────────────────────────────────────


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.pickle"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    (tmp_path / "config.yaml").write_text("allow_pickle: true\noptions: {allow_pickle: true}")  # not its own to allow
    with pytest.raises(ConfigError, match="is a pickle") as caught:
        find_model(tmp_path, {})
    assert "skops.io.dump" in str(caught.value)
    assert "[models.NAME] allow_pickle = true" in str(caught.value)
    with pytest.raises(ConfigError, match="is a pickle"):
        SklearnModel(config={}).load()
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_that_the_operator_allows_is_served(tmp_path: Path, serve: Any) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(iris()))
    assert serve.directory(tmp_path, allow_pickle=True).predict({"inputs": [IRIS]})["predictions"] == [0]


def test_a_file_that_needs_its_notebook_says_so_and_a_broken_one_that_it_is(tmp_path: Path, serve: Any) -> None:
    (tmp_path / "model.pkl").write_bytes(b"c__main__\nclean\n.")  # a function of the script that saved it
    with pytest.raises(ConfigError, match=r"needs code of the script or notebook .*clean.*: put that into a module"):
        serve.directory(tmp_path, allow_pickle=True)
    for content in (b"not a pickle", b"", pickle.dumps(iris())[:99], b"csklearn.base\nGoneSince\n."):
        (tmp_path / "model.pkl").write_bytes(content)
        with pytest.raises(ConfigError, match=r"model\.pkl cannot be read .* broken, or was saved with other versions"):
            serve.directory(tmp_path, allow_pickle=True)
    (tmp_path / "model.pkl").write_bytes(b"cnot_installed\nModel\n.")
    with pytest.raises(ModuleNotFoundError):  # whoever loads models knows what to do about it
        serve.directory(tmp_path, allow_pickle=True)


def test_types_that_skops_does_not_know_are_refused_by_name(serve: Any) -> None:
    forest = RandomForestClassifier(n_estimators=2, random_state=0).fit(*load_iris(return_X_y=True))
    with pytest.raises(ConfigError, match=r"sklearn\.tree\._tree\.Tree") as caught:
        serve(forest)
    setting = re.search(r"\[models\.NAME\.options\] trusted_types = (\[.*\])", str(caught.value))
    assert setting is not None
    model = serve(forest, options={"trusted_types": yaml.safe_load(setting[1])})
    assert model.predict({"inputs": [IRIS]})["predictions"] == [0]


def test_check_names_the_types_that_must_be_trusted(tmp_path: Path) -> None:
    forest = RandomForestClassifier(n_estimators=2, random_state=0).fit(*load_iris(return_X_y=True))
    save(tmp_path / "models" / "forest", forest)
    save(tmp_path / "models" / "iris", iris())
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "model.skops").write_bytes(b"\0no zip file")
    (tmp_path / "models" / "gone").mkdir()
    (tmp_path / "models" / "gone" / "model.skops").symlink_to("nothing")
    shown = CliRunner().invoke(cli, ["check", "--json", str(tmp_path / "models")])
    found = {each["model"]: each for each in json.loads(shown.stdout)}
    assert {(name, each["level"], each["code"]) for name, each in found.items()} == {
        ("forest", "error", "untrusted_types"),
        ("broken", "error", "untrusted_types"),
        ("gone", "error", "untrusted_types"),
    }
    assert "sklearn.tree._tree.Tree" in found["forest"]["what"]
    assert "[models.forest.options] trusted_types" in found["forest"]["what"]
    assert "not a skops file, or is broken" in found["broken"]["what"]
    assert "model.skops does not exist, or is a dangling link: get it again" in found["gone"]["what"]


def test_types_are_named_without_unpacking_any_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import skops.io

    seen = []
    names = skops.io.get_untrusted_types
    monkeypatch.setattr(skops.io, "get_untrusted_types", lambda **given: seen.append(given) or names(**given))
    file = save(tmp_path, KNeighborsClassifier().fit(*load_iris(return_X_y=True))) / "model.skops"
    assert skops_types.untrusted_types(file) == names(file=file)
    [given] = seen
    with ZipFile(io.BytesIO(given["data"])) as shown, ZipFile(file) as whole:
        assert {each.filename for each in shown.infolist()} == {each.filename for each in whole.infolist()}
        assert [each.filename for each in shown.infolist() if each.file_size] == ["schema.json"]


def test_an_id_never_stands_for_more_than_is_written_there() -> None:
    schema = {"content": [{"__id__": 1, "content": [1, 2]}, {"__id__": 1, "content": [1, 2]}, {"__id__": 1}]}
    _, is_odd = skops_types._looked_through(schema)
    assert is_odd
    found = [value for value in schema["content"] if "__id__" in value]
    assert all(value == found[0] for value in found)
    assert skops_types._looked_through(schema) == ({}, False)


@pytest.mark.parametrize(
    "name, most, told",
    [
        ("LARGEST_SCHEMA", 100, "schema.json in it has more than 100 bytes"),
        ("LARGEST_TABLE", 100, "its table of contents has more than 100 bytes"),
        ("MOST_VALUES", 100, "it has more than 100 values"),
        ("ALWAYS", -1 << 40, "would unpack to"),
    ],
)
def test_a_file_that_would_take_far_more_than_its_size_is_refused_by_check_and_load(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch, name: str, most: int, told: str
) -> None:
    save(tmp_path / "models" / "iris", iris())
    monkeypatch.setattr(skops_types, name, most)
    shown = CliRunner().invoke(cli, ["check", "--json", str(tmp_path / "models")])
    [problem] = json.loads(shown.stdout)
    assert told in problem["what"] and problem["level"] == "error"
    with pytest.raises(ConfigError, match=told):
        serve.directory(tmp_path / "models" / "iris")


@pytest.mark.parametrize("depth", [400, 10_000])
def test_a_schema_that_is_nested_too_deeply_is_a_broken_file(tmp_path: Path, depth: int) -> None:
    with ZipFile(save(tmp_path, [], "list.skops") / "list.skops") as archive:
        schema = archive.read("schema.json").decode()
    (tmp_path / "models" / "deep").mkdir(parents=True)
    begin, end = schema.split("[]")
    with ZipFile(tmp_path / "models" / "deep" / "model.skops", "w") as archive:
        archive.writestr("schema.json", f"{begin}[" * depth + schema + f"]{end}" * depth)
    with pytest.raises(ValueError, match="nested too deeply"):
        skops_types.untrusted_types(tmp_path / "models" / "deep" / "model.skops")
    shown = CliRunner().invoke(cli, ["check", "--json", str(tmp_path / "models")])
    [problem] = json.loads(shown.stdout)
    assert problem["level"] == "error"


@pytest.mark.parametrize("name", ["team/forest", "forest-1.2", "team/forest-1.2"])
def test_the_line_that_check_prints_is_one_that_settings_take(tmp_path: Path, name: str) -> None:
    save(tmp_path / "models" / name, RandomForestClassifier(n_estimators=2).fit(*load_iris(return_X_y=True)))
    shown = CliRunner().invoke(cli, ["check", "--json", str(tmp_path / "models")])
    [what] = [problem["what"] for problem in json.loads(shown.stdout)]
    table, setting = re.search(r"(\[.*?\]) (trusted_types = \[.*?\])", what).groups()  # type: ignore[union-attr]
    options = tomllib.loads(f"{table}\n{setting}")["models"][name]["options"]
    assert options == {"trusted_types": ["sklearn.tree._tree.Tree"]}


def test_a_model_directory_cannot_trust_its_own_types(tmp_path: Path, serve: Any) -> None:
    forest = RandomForestClassifier(n_estimators=2).fit(*load_iris(return_X_y=True))
    types = "[sklearn.tree._tree.Tree]"
    save(tmp_path, forest)
    (tmp_path / "config.yaml").write_text(f"trusted_types: {types}\noptions: {{trusted_types: {types}}}")
    with pytest.raises(ConfigError, match="does not know to be safe"):
        serve.directory(tmp_path)


def test_a_model_without_predict_fails_its_load(serve: Any) -> None:
    with pytest.raises(ConfigError, match="holds an object of type StandardScaler, which has no predict"):
        serve(StandardScaler().fit([[0.0], [1.0]]))


# ── what goes in and out ─────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_become_predictions_probabilities_and_classes(serve: Any) -> None:
    estimator = iris()
    answer = serve(estimator).predict({"inputs": [IRIS, [6.0, 3.0, 5.0, 2.0]]})
    assert answer["predictions"] == [0, 2]
    assert answer["classes"] == [0, 1, 2]
    assert_near(answer["probabilities"], estimator.predict_proba([IRIS, [6.0, 3.0, 5.0, 2.0]]), 1e-9)
    assert all(type(value) is int for value in answer["predictions"])


@pytest.mark.parametrize("body", [{"instances": [IRIS]}, {"inputs": IRIS}, {"inputs": np.array([IRIS])}, [IRIS], IRIS])
def test_other_spellings_of_one_row(serve: Any, body: dict[str, Any]) -> None:
    assert serve(iris()).predict(body)["predictions"] == [0]


def test_a_regression_has_predictions_alone(serve: Any) -> None:
    model = serve(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0]))
    assert model.predict({"inputs": [[2.0]]}) == {"predictions": [pytest.approx(5.0)]}


def test_a_text_model_takes_texts(serve: Any) -> None:
    texts = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good film", "bad film"], ["yes", "no"])
    model = serve(texts)
    assert model.predict({"inputs": ["a good one", "a bad one"]})["predictions"] == ["yes", "no"]
    assert model.predict({"inputs": "a good one"})["predictions"] == ["yes"]
    with pytest.raises(BadRequest, match=r"inputs\[1\] is a number, this model takes texts"):
        model.predict({"inputs": ["good", 5]})


def test_categories_stay_what_they_are(serve: Any) -> None:
    table = np.array([["5", "red"], ["6", "blue"]], dtype=object)
    model = serve(make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(table, [0, 1]))
    assert model.predict({"inputs": [["6", "blue"], ["5", "red"]]})["predictions"] == [1, 0]


def test_several_outputs_have_a_list_of_each(serve: Any) -> None:
    from sklearn.multioutput import MultiOutputClassifier

    both = MultiOutputClassifier(LogisticRegression()).fit([[0.0], [1.0]], [[0, 1], [1, 0]])
    answer = serve(both).predict({"inputs": [[0.0]]})
    assert answer["predictions"] == [[0, 1]]
    assert [len(part) for part in answer["probabilities"]] == [1, 1]
    assert answer["classes"] == [[0, 1], [0, 1]]


@pytest.fixture
def by_name(serve: Any) -> SklearnModel:
    """Fitted on columns with names, which scikit-learn takes from a table; here they are put in."""
    estimator = LogisticRegression().fit([[0.0, 5.0], [1.0, 5.0]], [0, 1])
    estimator.feature_names_in_ = np.array(["width", "height"], dtype=object)
    return serve(estimator)  # type: ignore[no-any-return]


def test_rows_may_name_their_columns_in_any_order(by_name: SklearnModel) -> None:
    assert by_name.predict({"inputs": [{"height": 5, "width": 1}]})["predictions"] == [1]
    assert by_name.predict({"inputs": {"height": 5, "width": 0}})["predictions"] == [0]
    assert by_name.predict({"inputs": [[1, 5]]})["predictions"] == [1]


def test_tables_may_come_as_pandas_writes_them(serve: Any, by_name: SklearnModel) -> None:
    split = {"columns": ["height", "width"], "index": [7, 8], "data": [[5, 1], [5, 0]]}
    assert by_name.predict({"dataframe_split": split})["predictions"] == [1, 0]
    assert by_name.predict({"dataframe_split": {"data": [[1, 5]]}})["predictions"] == [1]
    assert by_name.predict({"dataframe_records": [{"height": 5, "width": 1}]})["predictions"] == [1]
    with pytest.raises(BadRequest, match=r"dataframe_split\.data\[0\] lacks width"):
        by_name.predict({"dataframe_split": {"columns": ["height"], "data": [[5]]}})
    with pytest.raises(BadRequest, match=r"dataframe_split\.data\[0\] is not a row of 2 values but 1 values"):
        by_name.predict({"dataframe_split": {"columns": ["height", "width"], "data": [[5]]}})
    plain = serve(iris())
    assert plain.predict({"dataframe_split": {"columns": list("abcd"), "data": [IRIS]}})["predictions"] == [0]
    for split in (None, {}, [], 5, {"columns": ["a"]}):
        with pytest.raises(BadRequest):
            plain.predict({"dataframe_split": split})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"width": 1}, r"inputs\[0\] lacks height \(this model takes 2: width, height\)"),
        ({"width": 1, "height": 1, "depth": 1}, r"inputs\[0\] has unknown depth \(this model takes 2: width, height\)"),
        ([1], r"inputs\[0\] has 1 values, this model takes 2: width, height"),
    ],
)
def test_wrong_names_are_told(by_name: SklearnModel, row: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        by_name.predict({"inputs": [row]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, r'nothing to predict: send \{"inputs": \[\[…\], …\]\} with 4 values in each row'),
        ({"input": [IRIS]}, r"nothing to predict \(it has input\)"),
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": "text"}, "inputs is a text: send"),
        ({"inputs": [IRIS, [1, 2, 3]]}, r"inputs\[1\] has 3 values, this model takes 4"),
        ({"inputs": [IRIS], "instances": [IRIS]}, "inputs and instances both hold rows"),
        ({"inputs": [IRIS], "instance": 1}, "the field 'instance' is not known"),
        ({"inputs": [IRIS], "by_name": 1}, "by_name is a number: send true or false"),
        ({"inputs": [IRIS], "explain": True}, "scikit-learn's models give no contributions of columns"),
        ({"inputs": [IRIS, 7]}, r"inputs\[1\] is a number, not a row"),
        ({"inputs": [{"a": 1}]}, r"inputs\[0\] has names, but this model.s columns have none"),
        ({"inputs": [IRIS, [1, "x", 3, 4]]}, r"inputs\[1\]\[1\] is a text: send a number"),
        ({"inputs": [[1, [2], 3, 4]]}, r"inputs\[0\]\[1\] is a list: send a number"),
        ({"inputs": [[1, None, 3, 4]]}, r"inputs\[0\]\[1\] is null or NaN, and this model needs every value"),
        ({"inputs": [[1, 1e999, 3, 4]]}, "the model refused these inputs: Input X contains infinity"),
    ],
)
def test_wrong_inputs_are_told_where_and_what_to_do(serve: Any, body: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        serve(iris()).predict(body)
    assert caught.value.param in ("inputs", "instances", "instance", "by_name", "explain")


def test_missing_values_reach_a_model_that_takes_them(serve: Any) -> None:
    from sklearn.impute import SimpleImputer

    filling = make_pipeline(SimpleImputer(), LinearRegression()).fit([[0.0], [2.0]], [0.0, 2.0])
    model = serve(filling, options={"trusted_types": ["numpy.dtype"]})
    assert model.predict({"inputs": [[None]]})["predictions"] == [pytest.approx(1.0)]


# ── the schema ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_schema_says_how_long_a_row_is_and_which_classes_there_are(serve: Any) -> None:
    model = serve(iris())
    (row,) = model.input_schema["properties"]["inputs"]["anyOf"][0]["items"]["anyOf"]
    assert row == {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
    assert model.output_schema["properties"]["predictions"]["items"] == {"enum": [0, 1, 2]}
    assert model.output_schema["required"] == ["predictions", "probabilities", "classes"]


def test_the_schema_names_the_columns(by_name: SklearnModel) -> None:
    assert by_name.input_schema is not None
    first = by_name.input_schema["properties"]["inputs"]["anyOf"][0]["items"]["anyOf"][0]
    assert first["required"] == ["width", "height"]


def test_the_example_of_the_schema_can_be_predicted(serve: Any, by_name: SklearnModel) -> None:
    for model in (by_name, serve(iris())):
        assert len(model.predict(model.input_schema["examples"][0])["predictions"]) == 1


# ── the demo ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_digits_demo_reads_its_examples(serve: Any) -> None:
    model = serve.directory(MODELS / "digits")
    examples = yaml.safe_load((MODELS / "digits" / "examples.yaml").read_text())
    answers = {example["name"]: model.predict(example["input"])["predictions"] for example in examples}
    assert answers == {"a three": [3], "a zero and a four": [0, 4]}


def test_the_digits_demo_trains_again_as_it_is_committed(tmp_path: Path, serve: Any, capsys: Any) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("train", MODELS / "digits" / "train.py")
    assert spec is not None
    assert spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    train.HERE = tmp_path
    train.main()
    assert "0.972" in capsys.readouterr().out
    old, new = serve.directory(MODELS / "digits"), serve.directory(tmp_path)
    # lbfgs stops after the same steps: 1e-9 more in each pixel gives 2e-9, one percent of another penalty 3e-3
    assert_near(new.model.steps[-1][1].coef_, old.model.steps[-1][1].coef_)


@pytest.mark.parametrize("unit", ["ns", "us", "D"])
def test_dates_as_classes_stay_dates(serve: Any, tmp_path: Path, unit: str) -> None:
    days = np.array(["2020-01-01", "2021-06-02"] * 3, dtype=f"datetime64[{unit}]")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(KNeighborsClassifier(1).fit([[0.0], [1.0]] * 3, days)))
    answer = serve.directory(tmp_path, allow_pickle=True).predict({"inputs": [[1.0]]})
    assert [str(each)[:10] for each in answer["predictions"]] == ["2021-06-02"]
    assert [str(each)[:10] for each in answer["classes"]] == ["2020-01-01", "2021-06-02"]


def test_a_column_of_dates_is_read_as_dates(serve: Any, tmp_path: Path) -> None:
    """Texts would be unknown categories, which an encoder may pass over without a word."""
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    model.fit(np.array([["2020-01-01"], ["2021-06-02"]] * 3, dtype="datetime64[D]"), ["old", "new"] * 3)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    served = serve.directory(tmp_path, allow_pickle=True)
    assert served.predict({"inputs": [["2020-01-01"], ["2021-06-02"]]})["predictions"] == ["old", "new"]
    with pytest.raises(BadRequest, match="datetime"):
        served.predict({"inputs": [["someday"]]})


@pytest.mark.parametrize("name", ["model.pkl", "model.skops", "model.joblib"])
def test_a_page_in_the_place_of_the_model_is_called_so_and_nobody_is_asked_to_trust_it(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("<!DOCTYPE html>\n<html>")
    with pytest.raises(ConfigError, match=rf"{name} is an HTML or XML page"):
        find_model(tmp_path, {})
