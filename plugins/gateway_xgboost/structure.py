"""Read and check a model of XGBoost from its file, before the library does: it trusts what is in a file.

Of 150 files with three changed bytes each, version 3.2 ended the process for 28, most of them by an index out of range.
Here every index is compared with what it counts, so that a damaged file is an error that says so. Only values of
thresholds and leaves are not checked: any number may be right.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway_tabular.files import read_whole

from gateway import ConfigError

from . import ubj

MOST_COLUMNS = 1_000_000
NONE = 2147483647  # the parent of a root
TEXTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"(\s*+:)?')  # of JSON; the names of fields have the group
SAVE = 'booster.save_model("model.ubj")'
# One array each has a value for each node of a tree.
OF_FLOATS = "split_conditions loss_changes sum_hessian".split()
OF_NODES = ("left_children", "right_children", "parents", "split_indices", "default_left", *OF_FLOATS)


@dataclass(frozen=True, slots=True)
class Model:
    """What a file says about a model."""

    objective: str
    booster: str  # gbtree, dart or gblinear
    width: int  # columns
    names: tuple[str, ...]
    types: tuple[str, ...]  # of columns: float, int, i (true or false), q (a number), c (a category)
    categories: Mapping[int, tuple[Any, ...]]  # the categories of columns, if the file has them
    outputs: int  # numbers for each row
    classes: int  # of a classifier; 0 for other models
    best: int | None  # the last round to use, after early stopping
    rounds: int
    version: tuple[int, ...]
    nodes: int
    has_wide_leaves: bool  # each leaf has a value for every output (multi_output_tree)


def read_model(file: Path) -> Model:
    """Return what a file says about its model.

    Raises:
        ConfigError: it is no model, or damaged.
    """
    data = read_whole(file)
    if data[:4] == b"binf" or data[:4] == b"bs64":
        what = "is in XGBoost's old binary format, which version 3.1 and later do not read"
        raise ConfigError(f"{file} {what}: open it with XGBoost before 3.1, and save it with {SAVE}")
    try:
        return _model(_document(data))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ConfigError(
            f"{file} is not a model of XGBoost, or is damaged ({reason}): get it again, or save it with {SAVE}"
        ) from error


def _document(data: bytes) -> Any:
    if not data:
        raise ValueError("it is empty")
    is_json = data[:1] == b"{" and data[1:2] not in (b"L", b"i", b"U", b"I", b"l")
    if not is_json:
        return ubj.parse(data)
    document = json.loads(data, object_pairs_hook=_each_once)
    # The library takes the name of a field as it is written, and would not see the one that was checked.
    if b"\\" in data and any(found[1] is not None and b"\\" in found[0] for found in TEXTS.finditer(data)):
        raise ValueError("the name of a field is written with an escape")
    return document


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"{next(name for name, count in counts.items() if count > 1)[:64]!r} is there twice")
    return found


def _model(document: Any) -> Model:
    learner = document["learner"]
    parameters, booster = learner["learner_model_param"], learner["gradient_booster"]
    width, classes, targets = (int(parameters.get(name, 0)) for name in ("num_feature", "num_class", "num_target"))
    if not 0 < width <= MOST_COLUMNS or not 0 <= classes < MOST_COLUMNS or not 0 <= targets < MOST_COLUMNS:
        raise ValueError(f"it has {width} columns, {classes} classes and {targets} targets")
    kind, objective = str(booster["name"]), str(learner["objective"]["name"])
    outputs = max(1, classes, targets)
    names, types = (tuple(map(str, learner.get(name) or ())) for name in ("feature_names", "feature_types"))
    for each in (names, types):
        if each and len(each) != width:
            raise ValueError(f"it has {width} columns, but the names or types of {len(each)}")
    if len(set(names)) != len(names):
        raise ValueError("two columns have one name")
    best = learner.get("attributes", {}).get("best_iteration")
    categories: dict[int, tuple[Any, ...]] = {}
    if kind == "gblinear":
        nodes, rounds, is_wide = 0, 0, False
        if _array(booster["model"]["weights"]).size != (width + 1) * outputs:
            raise ValueError("it has another number of weights than columns")
    elif kind in ("gbtree", "dart"):
        trees = (booster["gbtree"] if kind == "dart" else booster)["model"]
        nodes, rounds, is_wide = _check_trees(trees, width, outputs)
        if kind == "dart" and _array(booster["weight_drop"]).size != len(trees["trees"]):
            raise ValueError("it has another number of weights than trees")
        categories = _categories(trees.get("cats") or {}, width)
    else:
        raise ValueError(f"its booster is {kind[:64]!r}")
    is_binary = objective == "binary:logistic" and outputs == 1
    return Model(
        objective,
        kind,
        width,
        names,
        types,
        categories,
        outputs,
        classes if objective.startswith("multi:") else 2 if is_binary or objective == "binary:hinge" else 0,
        int(best) if best is not None and 0 <= int(best) < rounds else None,
        rounds,
        tuple(map(int, _array(document["version"]))),
        nodes,
        is_wide,
    )


def _array(value: Any, dtype: str = "f8") -> Any:
    """Return an array of numbers. Raises `ValueError` for anything else."""
    import numpy

    if isinstance(value, ubj.Packed):
        return numpy.frombuffer(value.data, value.dtype).astype(dtype)
    if not isinstance(value, list):
        raise ValueError("an array is missing")
    return numpy.array(value, dtype).reshape(len(value))


def _check_trees(model: Mapping[str, Any], width: int, outputs: int) -> tuple[int, int, bool]:
    """Check all trees. Returns the number of their nodes and of rounds, and whether leaves have several values."""
    trees, groups = model["trees"], _array(model["tree_info"], "i8")
    parameters = model["gbtree_model_param"]
    if int(parameters["num_trees"]) != len(trees) or groups.size != len(trees):
        raise ValueError(f"it has {len(trees)} trees instead of {parameters['num_trees']}")
    if groups.size and not 0 <= groups.min() <= groups.max() < outputs:
        raise ValueError("a tree is for an output that the model does not have")
    if [tree["id"] for tree in trees] != list(range(len(trees))):  # the library puts each into the place of its id
        raise ValueError("the ids of its trees are not their places")
    each_round = max(1, int(parameters.get("num_parallel_tree") or 1)) * max(1, len(set(groups.tolist())))
    rounds = -(-len(trees) // each_round)
    if (starts := model.get("iteration_indptr")) is not None:
        starts = _array(starts, "i8")
        if starts.size == 0 or starts[0] != 0 or starts[-1] != len(trees) or (starts[1:] < starts[:-1]).any():
            raise ValueError("its rounds do not have its trees")
        rounds = starts.size - 1
    nodes = 0
    for place, tree in enumerate(trees):
        try:
            nodes += _check_tree(tree, width, outputs)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"tree {place}: {error}") from error
    is_wide = any(int(tree["tree_param"].get("size_leaf_vector") or 1) > 1 for tree in trees)
    return nodes, rounds, is_wide


def _check_tree(tree: Mapping[str, Any], width: int, outputs: int) -> int:
    import numpy

    parameters = tree["tree_param"]
    nodes, leaf = int(parameters["num_nodes"]), int(parameters.get("size_leaf_vector") or 1)
    if leaf > 1 and leaf != outputs:
        raise ValueError(f"its leaves have {leaf} values")
    if int(parameters.get("num_feature") or width) != width:
        raise ValueError(f"it has {parameters['num_feature']} columns")
    found = {name: _array(tree[name], "f8" if name in OF_FLOATS else "i8") for name in OF_NODES}
    weights = _array(tree["base_weights"])
    if nodes < 1 or weights.size != nodes * leaf or any(each.size != nodes for each in found.values()):
        raise ValueError(f"it does not have the {nodes} nodes that it says")
    left, right, parents = found["left_children"], found["right_children"], found["parents"]
    inner, leaves = numpy.flatnonzero(left != -1), numpy.flatnonzero(left == -1)
    if leaf == 1 and (right[leaves] != -1).any():
        raise ValueError("a node has one child")
    if leaf > 1:  # the place of its values
        size = _array(tree["leaf_weights"]).size
        if not 0 <= right[leaves].min() <= right[leaves].max() < size // leaf:
            raise ValueError("the values of a leaf are missing")
    # No node is below two others or itself, so every way down ends.
    children = numpy.concatenate([left[inner], right[inner]])
    is_tree = not children.size or (children.min() > 0 and children.max() < nodes)
    if not is_tree or parents[0] not in (-1, NONE) or (parents[children] != numpy.concatenate([inner, inner])).any():
        raise ValueError("a node is below another than its parent")
    if len(set(children.tolist())) != children.size:
        raise ValueError("a node is below two others")
    splits = found["split_indices"][inner]
    if splits.size and not 0 <= splits.min() <= splits.max() < width:
        raise ValueError("a node reads a column that does not exist")
    _check_categories(tree, nodes, inner)
    return nodes


def _check_categories(tree: Mapping[str, Any], nodes: int, inner: Any) -> None:
    """Check the categories of a tree: for each node that asks for them, a part of one array."""
    kinds = _array(tree.get("split_type") or [0] * nodes, "i8")
    of, starts, sizes = (_array(tree.get(f"categories_{name}") or [], "i8") for name in ("nodes", "segments", "sizes"))
    values = _array(tree.get("categories") or [], "i8")
    if kinds.size != nodes or not set(kinds.tolist()) <= {0, 1}:
        raise ValueError("a node has an unknown kind of split")
    asking = [node for node in inner.tolist() if kinds[node] == 1]
    if asking != of.tolist() or not of.size == starts.size == sizes.size:
        raise ValueError("its categories belong to other nodes")
    if of.size and (min(starts.min(), sizes.min()) < 0 or (starts + sizes).max() > values.size):
        raise ValueError("its categories are incomplete")
    if values.size and not 0 <= values.min() <= values.max() < 1 << 24:
        raise ValueError("it has a category out of range")


def _categories(cats: Mapping[str, Any], width: int) -> dict[int, tuple[Any, ...]]:
    """Return the names of categories by column: texts, or whole numbers."""
    found: dict[int, tuple[Any, ...]] = {}
    encoded = cats.get("enc") or []
    if encoded and len(encoded) != width:
        raise ValueError("it has the categories of another number of columns")
    for column, each in enumerate(encoded):
        values = _array(each["values"], "i8")
        if "offsets" in each:
            ends = _array(each["offsets"], "i8").tolist()
            if ends and (ends[0] != 0 or ends[-1] != values.size or sorted(ends) != ends):
                raise ValueError("the names of its categories are incomplete")
            names: list[Any] = _texts(bytes(value & 255 for value in values.tolist()), ends)
        else:
            names = values.tolist()
        if names:
            found[column] = tuple(names)
    return found


def _texts(data: bytes, ends: list[int]) -> list[str | None]:
    """Return the texts in an array of Arrow; None for one that is not whole.

    From pandas, XGBoost 3.2 counts characters but copies as many bytes, so that names which are not ASCII are in the
    wrong places, and the end is missing. All that is there is found again by counting characters here too.
    """
    places = list(pairwise(ends))
    try:
        return [data[start:end].decode() for start, end in places]
    except UnicodeDecodeError:
        text = data.decode(errors="ignore")
    return [text[start:end] if end <= len(text) else None for start, end in places]
