"""Read and check a model of LightGBM from its file, before the library does: it trusts what is in a file.

Version 4.7 finds each tree by the sizes at the beginning of the file, also behind its end: of 160 files that were cut
or changed in three places, it ended the process for 56. Here the file is read as the library reads it, and every size
and index is compared with what it counts. Thresholds and values of leaves may be any numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway_tabular.files import read_whole

from gateway import ConfigError

MOST_COLUMNS = 1_000_000
SAVE = 'booster.save_model("model.txt")'
NUMBER = rb"-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf|nan)"
NUMBERS = re.compile(rb"(?:%b(?: +%b)*)? *" % (NUMBER, NUMBER)).fullmatch
WHOLE = re.compile(rb"(?:-?\d{1,10}(?: +-?\d{1,10})*)? *").fullmatch
TREES, END = b"\nTree=0\n", b"end of trees\n"
# The lines of a tree; the library reads up to the first empty one, and ends if it has not found what it needs.
LINES = re.compile(rb"(?:[a-z_]+=[^=\n]*\n)+\n*").fullmatch
OF_INNER = "split_gain threshold internal_value internal_weight internal_count".split()
OF_LEAVES = "leaf_value leaf_weight leaf_count".split()
NEEDED = ("threshold", "leaf_value")
PARAMETER = re.compile(rb"^\[categorical_feature: ([\d,]*)\]$", re.MULTILINE)
PANDAS = b"\npandas_categorical:"
# What the library knows; another word would end it.
OBJECTIVES = frozenset(
    "regression regression_l1 huber fair poisson quantile mape gamma tweedie binary multiclass multiclassova "
    "cross_entropy cross_entropy_lambda lambdarank rank_xendcg custom".split()
)


@dataclass(frozen=True, slots=True)
class Model:
    """What a file says about a model."""

    objective: str  # "" for one of the author's own
    names: tuple[str, ...]
    outputs: int  # numbers for each row
    is_categorical: frozenset[int]  # columns
    known: Mapping[int, frozenset[int]]  # the numbers of categories that a column of categories was trained with
    pandas: tuple[tuple[Any, ...], ...]  # categories of pandas, for each column that had some
    rounds: int
    is_linear: bool  # leaves compute
    nodes: int

    @property
    def has_names(self) -> bool:
        return any(name != f"Column_{place}" for place, name in enumerate(self.names))


def read_model(file: Path) -> Model:
    """Return what a file says about its model. Raises `ConfigError` as `read_checked` does."""
    return read_checked(file)[0]


def read_checked(file: Path) -> tuple[Model, str]:
    """Return what a file says about its model, and the part that the library is to read.

    That is all up to the last tree. Behind it are the parameters of the training, which have no effect on predictions,
    but end the process if they are damaged.

    Raises:
        ConfigError: it is no model, or damaged.
    """
    data = read_whole(file)
    try:
        model = _model(data)
        return model, data[: data.rfind(b"\n" + END) + 1 + len(END)].decode()
    except (ValueError, KeyError, RecursionError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"{file} is not a model of LightGBM, or is damaged ({reason}): get it again, or save it with {SAVE}"
        ) from error


def _model(data: bytes) -> Model:
    if not data.startswith(b"tree\n"):
        raise ValueError(
            "its lines end as on Windows" if data.startswith(b"tree\r\n") else "it does not begin with tree"
        )
    start, end = data.find(TREES) + 1, data.rfind(b"\n" + END) + 1
    if not end:
        raise ValueError("it ends too early")
    start = start or end
    header = _pairs(data[:start])
    width = _one(header, "max_feature_idx") + 1
    if not 0 < width <= MOST_COLUMNS:
        raise ValueError(f"it has {width} columns")
    names = header["feature_names"].decode().split(" ")
    infos = header["feature_infos"].split(b" ")
    if len(names) != width or len(infos) != width or len(set(names)) != width:
        raise ValueError(f"it has {width} columns, but {len(set(names))} names and {len(infos)} ranges")
    classes, outputs = _one(header, "num_class"), _one(header, "num_tree_per_iteration")
    objective = _objective(header.get("objective", b""), classes, outputs)
    sizes = _whole(header, "tree_sizes")
    if not 0 < outputs <= max(classes, 1) or len(sizes) % outputs:
        raise ValueError(f"it has {len(sizes)} trees for {outputs} outputs and {classes} classes")
    nodes, is_linear = _check_trees(data, start, end, sizes, width)
    categorical, pandas = _categories(data[end:], width)
    known = {place: _known(infos[place]) for place in categorical}
    return Model(
        objective,
        tuple(names),
        outputs,
        frozenset(categorical),
        known,
        pandas,
        len(sizes) // outputs,
        is_linear,
        nodes,
    )


def _pairs(data: bytes) -> dict[str, bytes]:
    """Return the values of lines `name=value`, and "" for lines that are a word."""
    found: dict[str, bytes] = {}
    for line in data.split(b"\n"):
        name, _, value = line.partition(b"=")
        if name and name.decode() in found:
            raise ValueError(f"{name[:64].decode()!r} is there twice")
        found[name.decode()] = value
    return found


def _one(pairs: Mapping[str, bytes], name: str) -> int:
    found = _whole(pairs, name)
    if len(found) != 1:
        raise ValueError(f"{name} is not a number")
    return found[0]


def _whole(pairs: Mapping[str, bytes], name: str) -> list[int]:
    if not WHOLE(pairs[name]):
        raise ValueError(f"{name} does not have whole numbers")
    return list(map(int, pairs[name].split()))


def _count(pairs: Mapping[str, bytes], name: str) -> int:
    """Return how many numbers there are."""
    if not NUMBERS(pairs[name]):
        raise ValueError(f"{name} does not have numbers")
    return len(pairs[name].split())


def _objective(text: bytes, classes: int, outputs: int) -> str:
    name, *parameters = text.decode().split(" ")
    if name and name not in OBJECTIVES:
        raise ValueError(f"its objective is {name[:64]!r}")
    given = dict(part.partition(":")[::2] for part in parameters)
    if name.startswith("multiclass") and (given.get("num_class") != str(classes) or outputs != classes):
        raise ValueError("it has another number of classes than its objective")
    if name and not name.startswith("multiclass") and outputs != 1:
        raise ValueError(f"it has {outputs} outputs")
    if any(not NUMBERS(value.encode()) for value in given.values()):
        raise ValueError("a parameter of its objective is no number")
    return "" if name == "custom" else name


def _check_trees(data: bytes, start: int, end: int, sizes: list[int], width: int) -> tuple[int, bool]:
    """Check all trees. Returns the number of their nodes, and whether leaves compute."""
    nodes, is_linear = 0, False
    for place, size in enumerate(sizes):
        begin = b"Tree=%d\n" % place
        tree = data[start : start + size]
        start += size
        if size < 0 or not tree.startswith(begin):
            raise ValueError(f"tree {place} is not where it should be")
        if not LINES(tree, len(begin)):
            raise ValueError(f"tree {place}: a line is not a name and a value")
        found = _pairs(tree[len(begin) :].rstrip(b"\n"))
        try:
            nodes += _check_tree(found, width)
        except KeyError as error:
            raise ValueError(f"tree {place}: there is no {error}") from error
        except ValueError as error:
            raise ValueError(f"tree {place}: {error}") from error
        is_linear = is_linear or found.get("is_linear") == b"1"
    if data[start:end].strip(b"\n"):
        raise ValueError("there is something behind its last tree")
    return nodes, is_linear


def _check_tree(tree: Mapping[str, bytes], width: int) -> int:
    leaves, kinds = _one(tree, "num_leaves"), _one(tree, "num_cat")
    inner = leaves - 1
    if leaves < 1 or kinds < 0:
        raise ValueError(f"it has {leaves} leaves")
    is_linear = _one(tree, "is_linear") if "is_linear" in tree else 0  # since version 3.2
    if is_linear not in (0, 1) or _count(tree, "shrinkage") != 1:
        raise ValueError("is_linear or shrinkage is wrong")
    if leaves == 1:
        if _count(tree, "leaf_value") != 1:
            raise ValueError("its leaf has no value")
    else:
        left, right = _whole(tree, "left_child"), _whole(tree, "right_child")
        splits, decisions = _whole(tree, "split_feature"), _whole(tree, "decision_type")
        if not len(left) == len(right) == len(splits) == len(decisions) == inner:
            raise ValueError(f"it does not have the {leaves} leaves that it says")
        for names, count in ((OF_INNER, inner), (OF_LEAVES, leaves)):
            present = [name for name in names if name in tree or name in NEEDED]
            if any(_count(tree, name) != count for name in present):
                raise ValueError(f"it does not have the {leaves} leaves that it says")
        # A child is a later node, or ~ of a leaf. Each is there once, so every way down ends.
        if sorted(left + right) != [*range(-leaves, 0), *range(1, inner)]:
            raise ValueError("a node or a leaf is below two others, or below none")
        if any(0 <= child <= place for place in range(inner) for child in (left[place], right[place])):
            raise ValueError("a node is below a later one")
        if not 0 <= min(splits) <= max(splits) < width:
            raise ValueError("a node reads a column that does not exist")
        if not 0 <= min(decisions) <= max(decisions) < 16:
            raise ValueError("a node decides in an unknown way")
        _check_categories(tree, kinds, decisions)
    if is_linear:
        _check_linear(tree, leaves, width)
    return leaves + inner


def _check_categories(tree: Mapping[str, bytes], kinds: int, decisions: list[int]) -> None:
    """Check nodes that decide by category: their threshold is the number of a part of one array."""
    thresholds = tree["threshold"].split()
    parts = [thresholds[place] for place, decision in enumerate(decisions) if decision & 1]
    if any(not part.isdigit() or int(part) >= kinds for part in parts):
        raise ValueError("a node has categories that do not exist")
    if kinds:
        ends = _whole(tree, "cat_boundaries")
        if len(ends) != kinds + 1 or ends[0] != 0 or ends != sorted(ends) or ends[-1] != _count(tree, "cat_threshold"):
            raise ValueError("its categories are incomplete")
        if any(not 0 <= value < 1 << 32 for value in _whole(tree, "cat_threshold")):
            raise ValueError("it has a category out of range")


def _check_linear(tree: Mapping[str, bytes], leaves: int, width: int) -> None:
    counts, columns = _whole(tree, "num_features"), _whole(tree, "leaf_features")
    if _count(tree, "leaf_const") != leaves or len(counts) != leaves or min(counts) < 0:
        raise ValueError("its leaves are incomplete")
    if not sum(counts) == len(columns) == _count(tree, "leaf_coeff"):
        raise ValueError("its leaves are incomplete")
    if columns and not 0 <= min(columns) <= max(columns) < width:
        raise ValueError("a leaf reads a column that does not exist")


def _categories(data: bytes, width: int) -> tuple[tuple[int, ...], tuple[tuple[Any, ...], ...]]:
    """Return the columns of categories, and the categories of pandas, from the end of a file."""
    match = PARAMETER.search(data)
    columns = tuple(sorted(int(part) for part in match[1].split(b",") if part)) if match else ()
    if columns and columns[-1] >= width:
        raise ValueError("it has categories of a column that does not exist")
    if (place := data.rfind(PANDAS)) < 0:
        return columns, ()
    found = json.loads(data[place + len(PANDAS) :]) or []
    if not isinstance(found, list) or not all(isinstance(each, list) for each in found):
        raise ValueError("its categories of pandas are no lists")
    if any(isinstance(value, (list, dict)) for each in found for value in each):
        raise ValueError("a category of pandas is no value")
    return columns, tuple(map(tuple, found))


def _known(info: bytes) -> frozenset[int]:
    return frozenset(int(part) for part in info.split(b":") if part.isdigit())
