"""What is read from files of LightGBM before the library sees them, and files that would end its process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from gateway_lightgbm.structure import read_checked, read_model

from gateway import ConfigError

RANDOM = np.random.default_rng(3)
TABLE = RANDOM.normal(size=(200, 3))
FRAME = pd.DataFrame({"a": pd.Categorical(RANDOM.choice(list("xyz"), 200)), "b": TABLE[:, 1], "c": TABLE[:, 2]})


def trained(table: Any = TABLE, label: Any = TABLE[:, 0], **settings: Any) -> str:
    given = {"num_threads": 1, "verbose": -1, "num_leaves": 5, "min_data_in_leaf": 5, **settings}
    return lightgbm.train(given, lightgbm.Dataset(table, label), 4).model_to_string()


TEXTS = {
    "trees": trained(objective="binary", label=TABLE[:, 0] > 0),
    "classes": trained(objective="multiclass", num_class=3, label=RANDOM.integers(0, 3, 200)),
    "categories": trained(FRAME, FRAME["a"].cat.codes, max_cat_to_onehot=1, min_data_per_group=1),
    "computing": trained(linear_tree=True),
    "one leaf": trained(min_data_in_leaf=200),
}


def told(file: Path, text: str) -> str:
    file.write_bytes(text.encode())
    with pytest.raises(ConfigError) as caught:
        read_model(file)
    return str(caught.value)


def put(text: str, line: str, value: str, *, tree: int = 0) -> str:
    """A text in which a line of a tree is another; the sizes of trees fit it."""
    begin = text.index(f"\nTree={tree}\n") + 1
    start = text.index(f"\n{line}=", begin) + 1
    end = text.index("\n", start)
    new = f"{line}={value}"
    sizes = re.search(r"tree_sizes=(.*)\n", text)
    assert sizes is not None
    numbers = sizes[1].split()
    numbers[tree] = str(int(numbers[tree]) + len(new) - (end - start))
    return (text[:start] + new + text[end:]).replace(sizes[0], f"tree_sizes={' '.join(numbers)}\n")


def line(text: str, name: str, tree: int = 0) -> list[str]:
    found = re.search(rf"^{name}=(.*)$", text[text.index(f"\nTree={tree}\n") :], re.MULTILINE)
    assert found is not None
    return found[1].split()


def changed(text: str, name: str, place: int, value: str, tree: int = 0) -> str:
    values = line(text, name, tree)
    values[place] = value
    return put(text, name, " ".join(values), tree=tree)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_whole_file_says_what_it_is(kind: str, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text(TEXTS[kind])
    model, text = read_checked(tmp_path / "m.txt")
    assert (len(model.names), model.rounds, model.outputs) == (
        3,
        1 if kind == "one leaf" else 4,
        3 if kind == "classes" else 1,
    )
    assert model.is_linear == (kind == "computing")
    assert (model.is_categorical, model.pandas) == (
        (frozenset([0]), (("x", "y", "z"),)) if kind == "categories" else (frozenset(), ())
    )
    whole, cut = lightgbm.Booster(model_str=TEXTS[kind]), lightgbm.Booster(model_str=text)
    assert cut.predict(TABLE).tolist() == whole.predict(TABLE).tolist()


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("left_child", 0, "0", "a node or a leaf is below two others, or below none"),
        ("left_child", 0, "99", "a node or a leaf is below two others, or below none"),
        ("right_child", 0, "-99", "a node or a leaf is below two others, or below none"),
        ("split_feature", 0, "3", "a node reads a column that does not exist"),
        ("split_feature", 0, "-1", "a node reads a column that does not exist"),
        ("decision_type", 0, "99", "a node decides in an unknown way"),
        ("decision_type", 0, "3", "a node has categories that do not exist"),
        ("threshold", 0, "1 2", "it does not have the 5 leaves that it says"),
        ("threshold", 0, "0x1", "threshold does not have numbers"),
        ("leaf_value", 0, "1_0", "leaf_value does not have numbers"),
        ("leaf_value", 0, "", "leaf_value does not have numbers"),
        ("num_leaves", 0, "6", "it does not have the 6 leaves that it says"),
        ("num_leaves", 0, "99999999999", "num_leaves does not have whole numbers"),
        ("num_cat", 0, "1", "there is no 'cat_boundaries'"),
        ("is_linear", 0, "1", "there is no 'num_features'"),
        ("shrinkage", 0, "", "shrinkage is wrong"),
    ],
)  # fmt: skip
def test_an_index_that_leads_nowhere_is_told(name: str, place: int, value: str, message: str, tmp_path: Path) -> None:
    for tree in (0, 2):
        text = told(tmp_path / "m.txt", changed(TEXTS["trees"], name, place, value, tree))
        assert re.search(rf"tree {tree}: .*{message}|{message}", text), text


def test_a_node_is_never_below_a_later_one(tmp_path: Path) -> None:
    text = TEXTS["trees"]
    inner = len(line(text, "left_child"))
    turned = put(text, "left_child", " ".join(str(-1 - place) for place in range(inner)))
    turned = put(turned, "right_child", " ".join(["-5", "2", "3", "1"][:inner]))
    assert "a node is below a later one" in told(tmp_path / "m.txt", turned)


@pytest.mark.parametrize(
    ("kind", "name", "place", "value", "message"),
    [
        ("categories", "cat_boundaries", -1, "99", "its categories are incomplete"),
        ("categories", "cat_boundaries", 0, "1", "its categories are incomplete"),
        ("categories", "threshold", 0, "99", "a node has categories that do not exist"),
        ("categories", "cat_threshold", 0, "-1", "it has a category out of range"),
        ("computing", "leaf_features", -1, "3", "a leaf reads a column that does not exist"),
        ("computing", "num_features", 0, "9", "its leaves are incomplete"),
        ("computing", "leaf_const", 0, "1 1", "its leaves are incomplete"),
    ],
)
def test_parts_that_lead_nowhere_are_told(
    kind: str, name: str, place: int, value: str, message: str, tmp_path: Path
) -> None:
    text = TEXTS[kind]
    tree = next(tree for tree in range(4) if f"\n{name}=" in text and line(text, name, tree))
    if name in ("leaf_features", "num_features"):
        tree = next(tree for tree in range(4) if line(text, "leaf_features", tree))
    assert message in told(tmp_path / "m.txt", changed(text, name, place, value, tree))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tree\nversion", "tree\r\nversion", "its lines end as on Windows"),
        ("tree\nversion", "forest\nversion", "it does not begin with tree"),
        ("end of trees", "end of tree", "it ends too early"),
        ("max_feature_idx=2", "max_feature_idx=3", "it has 4 columns, but 3 names and 3 ranges"),
        ("max_feature_idx=2", "max_feature_idx=99999999", "it has 100000000 columns"),
        ("Column_1", "Column_0", "it has 3 columns, but 2 names"),
        ("num_class=1", "num_class=one", "num_class does not have whole numbers"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=3", "it has 3 outputs"),
        ("objective=binary sigmoid:1", "objective=guess", "its objective is 'guess'"),
        ("objective=binary sigmoid:1", "objective=binary sigmoid:x", "a parameter of its objective is no number"),
        ("objective=binary sigmoid:1", "objective=multiclass num_class:3", "another number of classes"),
        ("num_tree_per_iteration=3", "num_tree_per_iteration=1", "another number of classes"),
        ("label_index=0", "num_class=2", "'num_class' is there twice"),
        ("tree_sizes=", "tree_sizes=9", "tree 0: a line is not a name and a value"),
        ("tree_sizes=", "tree_sizes=-9", "tree 0 is not where it should be"),
        ("Tree=1", "Tree=2", "tree 1 is not where it should be"),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_told(old: str, new: str, message: str, tmp_path: Path) -> None:
    kind = "classes" if old.endswith("iteration=3") else "trees"
    assert message in told(tmp_path / "m.txt", TEXTS[kind].replace(old, new, 1))


def test_a_tree_ends_at_an_empty_line(tmp_path: Path) -> None:
    """The library reads no further, and ends the process if it has not found what it needs."""
    text = TEXTS["trees"].replace("\nleaf_value=", "\n\neaf_value=", 1)
    assert "tree 0: a line is not a name and a value" in told(tmp_path / "m.txt", text)
    text = TEXTS["trees"].replace("\nleaf_value=", "\n\nleaf_value=", 1).replace("\n\n\nTree=1", "\n\nTree=1", 1)
    assert "tree 0: a line is not a name and a value" in told(tmp_path / "m.txt", text)


def test_what_stands_behind_the_trees_is_left_out(tmp_path: Path) -> None:
    """The library would end for a damaged parameter."""
    (tmp_path / "m.txt").write_text(TEXTS["trees"].replace("[num_leaves: 5]", "[num_le\0ves; 5]"))
    assert "num_le\0ves" not in read_checked(tmp_path / "m.txt")[1]


# Whatever passes is given to the library, in a process whose end would be seen.
TRIAL = """
import random, sys
from pathlib import Path
import lightgbm, numpy
from gateway import ConfigError
from gateway_lightgbm.structure import read_checked
whole, place, tries = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3])
chance = random.Random(5)
table = numpy.abs(numpy.random.default_rng(0).normal(size=(50, 3)))
told = 0
for number in range(tries):
    data = bytearray(whole)
    end = data.find(b"end of trees") if number % 2 else len(data)
    if number % 4 == 0:
        del data[chance.randrange(len(data)):]
    elif number % 4 == 1:
        data[chance.randrange(end)] = chance.choice(b"0123456789 -.:\\n=")
    else:
        for _ in range(3):
            at = next(at for at in range(chance.randrange(end - 200), end) if 48 <= data[at] <= 57)
            data[at] = chance.choice(b"0123456789" if number % 4 == 2 else b"9-. ")
    place.write_bytes(data)
    try:
        about, text = read_checked(place)
    except ConfigError:
        told += 1
        continue
    try:
        booster = lightgbm.Booster(model_str=text)
        booster.predict(table, num_threads=1)
        if not about.is_linear:
            booster.predict(table, num_threads=1, pred_contrib=True)
    except (lightgbm.basic.LightGBMError, ValueError):
        pass
print(f"told: {told}")
"""


def survives(kind: str, tries: int, tmp_path: Path) -> None:
    whole, place = tmp_path / "whole.txt", tmp_path / "model.txt"
    whole.write_text(TEXTS[kind])
    command = [sys.executable, "-c", TRIAL, str(whole), str(place), str(tries)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-500:]}"
    assert int(done.stdout.rpartition("told: ")[2]) > tries / 4


def test_no_damaged_file_ends_the_process(tmp_path: Path) -> None:
    survives("trees", 60, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TEXTS)
def test_none_of_many_damaged_files_ends_the_process(kind: str, tmp_path: Path) -> None:
    survives(kind, 500, tmp_path)
