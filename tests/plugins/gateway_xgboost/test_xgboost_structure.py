"""What is read from files of XGBoost before the library sees them, and files that would end its process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from fakes import PATIENT
from gateway_xgboost import ubj
from gateway_xgboost.structure import read_model
from hypothesis import given
from hypothesis import strategies as st

from gateway import ConfigError

RANDOM = np.random.default_rng(3)
TABLE = RANDOM.normal(size=(200, 3))
FRAME = pd.DataFrame({"a": pd.Categorical(RANDOM.choice(list("xyz"), 200)), "b": TABLE[:, 1], "c": TABLE[:, 2]})


def trained(table: Any = TABLE, label: Any = TABLE[:, 0], rounds: int = 4, **settings: Any) -> Any:
    return xgboost.train(
        {"nthread": 1, "max_depth": 3, **settings}, xgboost.DMatrix(table, label=label, enable_categorical=True), rounds
    )


BOOSTERS = {
    "trees": trained(objective="binary:logistic", label=TABLE[:, 0] > 0),
    "categories": trained(FRAME, FRAME["a"].cat.codes, max_cat_to_onehot=1),
    "dart": trained(booster="dart", rate_drop=0.5),
    "linear": trained(booster="gblinear"),
    "wide leaves": trained(label=TABLE, multi_strategy="multi_output_tree"),
}


def told(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_model(file)
    return str(caught.value)


def changed(booster: Any, file: Path, **changes: Any) -> Path:
    """A file in which values of the first tree are others."""
    document = json.loads(booster.save_raw("json"))
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    for name, value in changes.items():
        tree[name] = value(list(tree[name])) if callable(value) else value
    file.write_text(json.dumps(document))
    return file


def put(place: int, value: Any) -> Any:
    return lambda values: [*values[:place], value, *values[place + 1 :]]


@pytest.mark.parametrize("kind", BOOSTERS)
def test_both_formats_say_the_same(kind: str, tmp_path: Path) -> None:
    booster = BOOSTERS[kind]
    for suffix in ("ubj", "json"):
        booster.save_model(tmp_path / f"a.{suffix}")
    one, other = (read_model(tmp_path / f"a.{suffix}") for suffix in ("ubj", "json"))
    assert one == other
    assert (one.width, one.rounds) == (3, 0 if kind == "linear" else 4)
    assert one.nodes == sum(tree.count("\n") for tree in booster.get_dump()) * (kind != "linear") or kind == "linear"
    assert one.categories == ({0: ("x", "y", "z")} if kind == "categories" else {})
    assert one.has_wide_leaves == (kind == "wide leaves")


def test_every_value_of_ubjson_is_what_json_has(tmp_path: Path) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, ubj.Packed):
            return pytest.approx(np.frombuffer(value.data, value.dtype).tolist(), rel=1e-6)
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], float):
            return pytest.approx(value, rel=1e-6)
        return [plain(each) for each in value] if isinstance(value, list) else value

    for booster in BOOSTERS.values():
        assert json.loads(booster.save_raw("json")) == plain(ubj.parse(bytes(booster.save_raw("ubj"))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"left_children": put(0, 0)}, "tree 0: a node is below another than its parent"),
        ({"left_children": put(0, 99)}, "tree 0: a node is below another than its parent"),
        ({"left_children": put(0, -1)}, "tree 0: a node has one child"),
        ({"right_children": put(0, 1)}, "tree 0: a node is below two others"),
        ({"right_children": put(0, 0)}, "tree 0: a node is below another than its parent"),
        ({"split_indices": put(0, 3)}, "tree 0: a node reads a column that does not exist"),
        ({"split_indices": put(0, -1)}, "tree 0: a node reads a column that does not exist"),
        ({"base_weights": []}, "tree 0: it does not have the .* nodes that it says"),
        ({"parents": put(0, 1)}, "tree 0: a node is below another than its parent"),
        ({"parents": put(1, 2)}, "tree 0: a node is below another than its parent"),
        ({"parents": [1]}, "tree 0: it does not have the .* nodes that it says"),
        ({"default_left": "x"}, "tree 0: an array is missing"),
        ({"split_type": put(0, 7)}, "tree 0: a node has an unknown kind of split"),
        ({"split_type": put(0, 1)}, "tree 0: its categories belong to other nodes"),
        ({"tree_param": {}}, "tree 0: 'num_nodes'"),
        ({"tree_param": {"num_nodes": "9" * 5000}}, "tree 0:"),
    ],
)
def test_an_index_that_leads_nowhere_is_told(changes: Any, message: str, tmp_path: Path) -> None:
    file = changed(BOOSTERS["trees"], tmp_path / "model.json")
    read_model(file)
    assert re.search(message, told(changed(BOOSTERS["trees"], file, **changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories_segments": put(0, 99)}, "its categories are incomplete"),
        ({"categories_sizes": put(0, -1)}, "its categories are incomplete"),
        ({"categories_nodes": put(0, 99)}, "its categories belong to other nodes"),
        ({"categories": put(0, -1)}, "it has a category out of range"),
    ],
)
def test_categories_that_lead_nowhere_are_told(changes: Any, message: str, tmp_path: Path) -> None:
    assert message in told(changed(BOOSTERS["categories"], tmp_path / "model.json", **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda learner: learner["learner_model_param"].update(num_feature="99999999"), "it has 99999999 columns"),
        (lambda learner: learner["learner_model_param"].update(num_feature="4"), "it has 3 columns"),
        (lambda learner: learner.update(feature_names=["a"]), "it has 3 columns, but the names or types of 1"),
        (lambda learner: learner.update(feature_names=["a", "a", "b"]), "two columns have one name"),
        (lambda learner: learner["gradient_booster"].update(name="other"), "its booster is 'other'"),
        (lambda learner: learner["gradient_booster"]["model"].update(tree_info=[9] * 4), "a tree is for an output"),
        (lambda learner: learner["gradient_booster"]["model"].update(tree_info=[0]), "instead of 4"),
        (lambda learner: learner["gradient_booster"]["model"].update(iteration_indptr=[0, 9]), "its rounds do not"),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_told(change: Any, message: str, tmp_path: Path) -> None:
    document = json.loads(BOOSTERS["trees"].save_raw("json"))
    change(document["learner"])
    (tmp_path / "model.json").write_text(json.dumps(document))
    assert message in told(tmp_path / "model.json")


@PATIENT
@given(
    st.binary(max_size=80)
    | st.lists(
        st.sampled_from(
            [
                b"{",
                b"}",
                b"[",
                b"]",
                b"$",
                b"#",
                b"L",
                b"S",
                b"i",
                b"l",
                b"\x02",
                b"a",
                b"\0" * 7 + b"\x01",
                b"\xff" * 8,
            ]
        ),
        max_size=30,
    ).map(b"".join)
)
def test_any_bytes_are_ubjson_or_one_error(data: bytes) -> None:
    try:
        ubj.parse(data)
    except ValueError:
        pass


@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_the_ids_of_trees_are_their_places(suffix: str, tmp_path: Path) -> None:
    booster = trained()
    document = json.loads(booster.save_raw("json"))
    trees = document["learner"]["gradient_booster"]["model"]["trees"]
    trees[0]["id"], trees[1]["id"] = 1, 0
    (tmp_path / "a.json").write_text(json.dumps(document))
    swapped = xgboost.Booster(model_file=tmp_path / "a.json")  # the library puts them into their places
    assert swapped.get_dump() != booster.get_dump()
    if suffix == "ubj":
        booster.save_model(file := tmp_path / "a.ubj")
        data = file.read_bytes()
        assert b"\x02idi\x01" in data
        file.write_bytes(data.replace(b"\x02idi\x01", b"\x02idi\x03", 1))
    assert "the ids of its trees are not their places" in told(tmp_path / f"a.{suffix}")


def test_a_field_that_the_library_would_read_otherwise_is_told(tmp_path: Path) -> None:
    text = trained().save_raw("json").decode()
    (tmp_path / "a.json").write_text(text.replace('"version":', '"\\u0076ersion":'))
    assert "the name of a field is written with an escape" in told(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(text.replace('"version":', '"version":[1,0,0],"version":'))
    assert "'version' is there twice" in told(tmp_path / "a.json")


def test_values_may_be_written_with_escapes(tmp_path: Path) -> None:
    table = xgboost.DMatrix(TABLE, label=TABLE[:, 0], feature_names=['a "b": c', "\\", "ü\n:"])
    booster = xgboost.train({"nthread": 1}, table, 2)
    booster.save_model(tmp_path / "a.json")
    assert read_model(tmp_path / "a.json").names == ('a "b": c', "\\", "ü\n:")


def test_lengths_in_a_file_are_not_believed() -> None:
    for begin in (b"[#L", b"[$d#L", b"S L".replace(b" ", b""), b"[$L#L"):
        for size in (b"\x7f" + b"\xff" * 7, b"\xff" * 8):
            with pytest.raises(ValueError):
                ubj.parse(begin + size)
    with pytest.raises(ValueError, match="nested too deeply"):
        ubj.parse(b"[" * 100_000)


# Whatever passes is given to the library, in a process whose end would be seen.
TRIAL = """
import random, sys
from pathlib import Path
import numpy, xgboost
from gateway import ConfigError
from gateway_xgboost.structure import read_model
whole, place, tries = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3])
chance = random.Random(5)
table = numpy.random.default_rng(0).normal(size=(50, 3)).astype("f4")
told = 0
for number in range(tries):
    data = bytearray(whole)
    if number % 4 == 0:
        del data[chance.randrange(len(data)):]
    elif number % 4 == 1:
        at = chance.randrange(len(data))
        data[at:at + 8] = chance.choice([b"\\xff", b"\\0", b"\\x7f"]) * 8
    else:
        for _ in range(chance.choice([1, 3, 10])):
            data[chance.randrange(len(data))] = chance.randrange(256)
    place.write_bytes(data)
    try:
        about = read_model(place)
    except ConfigError:
        told += 1
        continue
    try:
        booster = xgboost.Booster({"nthread": 1}, model_file=str(place))
        rows = xgboost.DMatrix(table[:, :about.width], feature_types=booster.feature_types, enable_categorical=True)
        booster.predict(rows, validate_features=False)
        booster.predict(rows, validate_features=False, pred_contribs=not about.has_wide_leaves)
    except (xgboost.core.XGBoostError, ValueError):
        pass
print(told)
"""


def survives(kind: str, suffix: str, tries: int, tmp_path: Path) -> None:
    whole, place = tmp_path / f"whole.{suffix}", tmp_path / f"model.{suffix}"
    BOOSTERS[kind].save_model(whole)
    command = [sys.executable, "-c", TRIAL, str(whole), str(place), str(tries)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-500:]}"
    assert int(done.stdout) > tries / 2


def test_no_damaged_file_ends_the_process(tmp_path: Path) -> None:
    survives("trees", "ubj", 60, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["ubj", "json"])
@pytest.mark.parametrize("kind", [kind for kind in BOOSTERS if kind != "linear"])
def test_none_of_many_damaged_files_ends_the_process(kind: str, suffix: str, tmp_path: Path) -> None:
    survives(kind, suffix, 500, tmp_path)
