"""The probabilities of classes that a graph computes, for decisions.

Converters of scikit-learn and of boosted trees write a list of maps from label to probability, or a matrix that they
call `probabilities`, without the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway_tensors.types import Value

from gateway import ConfigError

NAMES = ("probabilities", "output_probability", "probability", "class_probabilities")


class Chances(NamedTuple):
    output: str  # that has the probabilities
    labels: Sequence[Any] | None  # of the columns of a matrix; None for maps, which have them


def find_chances(outputs: Sequence[Value], options: Mapping[str, Any]) -> Chances | None:
    """Return which output has probabilities; None if none has.

    Raises:
        ConfigError: the option `classes` has another number of labels.
    """
    for each in outputs:
        kind = each.type
        if kind.kind == "sequence" and kind.inner is not None and kind.inner.kind == "map":
            return Chances(each.name, None)
        dims = kind.dims or ()
        if each.name in NAMES and kind.element in ("float", "float32", "double", "float64") and len(dims) == 2:
            return Chances(each.name, _labels(dims[1], options.get("classes")))
    return None


def _labels(width: Any, given: Any) -> Sequence[Any]:
    if given is None:
        return range(width) if isinstance(width, int) else ()
    count = width if isinstance(width, int) else len(given) if isinstance(given, list) else -1
    if not isinstance(given, list) or len(given) != count or len(set(map(str, given))) != count:
        raise ConfigError(f"config.yaml: options: classes has to be a list of {max(count, 0)} different labels")
    return given


def chances_of(found: Chances, value: Any) -> list[dict[str, float]]:
    """Return the probabilities by label for each row that a graph has computed."""
    if found.labels is None:
        return [{str(label): float(chance) for label, chance in row.items()} for row in value]
    rows = value.tolist()
    labels = found.labels or range(len(rows[0]) if rows else 0)
    return [dict(zip((_name(label) for label in labels), row, strict=True)) for row in rows]


def _name(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)
