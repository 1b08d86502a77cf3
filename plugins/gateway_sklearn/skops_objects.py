"""Read what a .skops file contains from its schema, without creating objects: for `gateway check`.

Only classes of scikit-learn are reported as unable to predict; others are checked when the model loads.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gateway import parse_json, peek_archive

from .skops_types import LARGEST_SCHEMA, LARGEST_TABLE, MOST_VALUES, SCHEMA

SMALL_SCHEMA = 32 << 20  # bytes; a vectorizer with 100,000 words has half of it
VALUES = ("builtins", "numpy")  # modules of objects that are not estimators
# Modules of scikit-learn in which nothing predicts, and other classes that only transform columns.
PREPARING = tuple(
    f"sklearn.{name}"
    for name in (
        "preprocessing. impute. feature_extraction. decomposition. manifold. kernel_approximation random_projection "
        "compose._column_transformer feature_selection._from_model feature_selection._sequential "
        "feature_selection._univariate_selection feature_selection._variance_threshold"
    ).split()
)
PREPARING_TOO = frozenset(
    "BernoulliRBM FeatureAgglomeration FeatureUnion KNeighborsTransformer NeighborhoodComponentsAnalysis PLSSVD "
    "RadiusNeighborsTransformer RandomTreesEmbedding".split()
)
# Parameters that leave an estimator without predict.
SWITCHES = {
    "novelty": "with novelty=False it can only judge the data it was fitted on; fit it with novelty=True",
    "refit": "with refit=False it keeps no fitted estimator; fit it with refit=True",
}


def no_predict(file: Path, kind: str, off: str | None) -> str:
    """Say that the object in a file cannot predict, and because of which parameter in `SWITCHES`."""
    return f"{file.name} holds an object of type {kind}, which has no predict{f': {SWITCHES[off]}' if off else ''}"


def prepares(file: Path) -> bool:
    """Return whether the object in the file is a scaler, an encoder or a list of names, as often saved next to a model.

    Decided by the names of scikit-learn's modules, because the gateway cannot import them.
    """
    try:
        about = file.stat()
    except OSError:
        return False
    return _prepares(file, about.st_ino, about.st_size, about.st_mtime_ns)


@lru_cache(256)
def _prepares(file: Path, *_version: int) -> bool:
    node = _read(file, SMALL_SCHEMA)
    return node is not None and is_preparing(_last(node))


def is_preparing(node: Mapping[str, Any]) -> bool:
    """Return whether an object only prepares data, by its class and module."""
    name, module = str(node.get("__class__")), str(node.get("__module__"))
    is_own = module.startswith("sklearn.")
    return module in VALUES or module.startswith(PREPARING) or (is_own and name in PREPARING_TOO)


def useless(file: Path) -> str | None:
    """Return why the load will refuse the object in the file; None if it may predict, or cannot be read here."""
    if (node := _read(file, LARGEST_SCHEMA)) is None:
        return None
    name = str(node.get("__class__"))
    last = _last(node)
    off = _switched_off(last)
    if off or _cannot_predict(last):
        return no_predict(file, name, off)
    if _is_unfitted(last):
        return (
            f"{file.name} holds an estimator of type {last.get('__class__')} that was not fitted; fit it, then save it"
        )
    return None


def _read(file: Path, most: int) -> Mapping[str, Any] | None:
    """Return the object in the file as described by its schema; None if it cannot be read."""
    try:
        node = parse_json(peek_archive(file, SCHEMA, most, LARGEST_TABLE)[0], MOST_VALUES)
    except (OSError, ValueError, KeyError):
        return None
    return node if isinstance(node, Mapping) else None


def _last(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the estimator that a pipeline, a search or a frozen estimator uses to predict."""
    while True:
        values = _values(node)
        if node.get("__class__") == "Pipeline":
            steps = _content(values.get("steps")) or [None]
            inner = (_content(steps[-1]) or [None])[-1]
        elif "refit" in values and "cv" in values:  # a search; without refit it has no fitted estimator
            inner = values.get("best_estimator_")
        elif node.get("__class__") == "FrozenEstimator":
            inner = values.get("estimator")
        else:
            return node
        if not isinstance(inner, Mapping):
            return node
        node = inner


def _content(node: Any) -> list[Any]:
    """Return the nodes of a list or tuple; [] for anything else."""
    content = node.get("content") if isinstance(node, Mapping) else None
    return content if isinstance(content, list) else []


def _switched_off(node: Mapping[str, Any]) -> str | None:
    """Return the parameter because of which a scikit-learn estimator has no predict."""
    if not str(node.get("__module__")).startswith("sklearn."):
        return None
    values = _values(node)
    given = ((name, each) for name in SWITCHES if isinstance(each := values.get(name), Mapping))
    return next((name for name, each in given if each.get("content") == "false"), None)


def _values(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the nodes of an object's attributes by name."""
    content = node.get("content")
    inner = content.get("content") if isinstance(content, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _class(node: Mapping[str, Any]) -> type | None:
    module = str(node.get("__module__"))
    if not module.startswith("sklearn."):
        return None
    try:
        found = getattr(importlib.import_module(module), str(node.get("__class__")), None)
    except ImportError:  # from another version
        return None
    return found if isinstance(found, type) else None


def _cannot_predict(node: Mapping[str, Any]) -> bool:
    if not node or node.get("__module__") in VALUES:
        return True
    found = _class(node)
    return found is not None and not hasattr(found, "predict")


def _is_unfitted(node: Mapping[str, Any]) -> bool:
    """Return whether it is unfitted by scikit-learn's rule: names of learned attributes end with `_`."""
    from sklearn.base import BaseEstimator

    found, values = _class(node), _values(node)
    if found is None or not issubclass(found, BaseEstimator) or not values or hasattr(found, "__sklearn_is_fitted__"):
        return False
    try:
        needs_fit = found().__sklearn_tags__().requires_fit
    except Exception:  # it cannot be created without arguments
        return False
    return needs_fit and not any(name.endswith("_") and not name.startswith("__") for name in values)
