"""Whether a family of metrics can be in a scrape: the rules of OpenMetrics, by which a strict reader refuses all of it.

The rules are those of prometheus_client's own reader of OpenMetrics. They hold for one replica's part of a family; that
families do not take each other's names is for `series.py`, which asks here for the names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# How samples of a family may end, by its type, and the other names that are taken with it.
_SAMPLES = {
    "counter": ("_total",),
    "gauge": ("",),
    "unknown": ("",),
    "summary": ("", "_count", "_sum"),
    "histogram": ("_bucket", "_count", "_sum"),
}
_ALSO = {"counter": ("", "_created"), "summary": ("_created",), "histogram": ("", "_created")}
_NOT_NEGATIVE = ("_total", "_count", "_sum", "_bucket")
_WHOLE = ("_count", "_bucket")
_INFINITE = "+Inf"  # how that limit is written


def claims(name: str, kind: str) -> list[str]:
    """Return all names that no other family may have beside this one."""
    return [name + suffix for suffix in (*_SAMPLES.get(kind, ()), *_ALSO.get(kind, ()))]


def checked(family: Any, samples: Sequence[Any]) -> list[Any]:
    """Return the samples in the order in which a reader wants them: those with the same labels together.

    Raises:
        ValueError: a strict reader would refuse the family.
    """
    name, kind = family.name, family.type
    if kind not in _SAMPLES:
        raise ValueError(f"the text format has no type {kind}")
    groups: dict[tuple[tuple[str, str], ...], dict[tuple[str, str], Any]] = {}
    for sample in samples:
        suffix = sample.name[len(name) :]
        if suffix not in _SAMPLES[kind] or not sample.name.startswith(name):
            raise ValueError(f"{sample.name[:128]!r} is no name for a sample of type {kind}")
        if suffix in _NOT_NEGATIVE and not sample.value >= 0:
            raise ValueError(f"a {suffix[1:]} below 0, or no number")
        if suffix in _WHOLE and not sample.value.is_integer():
            raise ValueError(f"a {suffix[1:]} that is no whole number")
        limit, labels = "", sample.labels
        if kind == "histogram" and suffix == "_bucket":
            limit, labels, sample = _bucket(sample)
        elif kind == "summary" and suffix == "":
            limit, labels = _quantile(sample)
        group = groups.setdefault(tuple(sorted(labels.items())), {})
        if (suffix, limit) in group:
            raise ValueError("one of its series is there twice")
        group[suffix, limit] = sample
    if kind == "histogram":
        for group in groups.values():
            _check_histogram(group)
    return [sample for group in groups.values() for sample in group.values()]


def _bucket(sample: Any) -> tuple[str, dict[str, str], Any]:
    """Return the limit of a bucket, its other labels, and the bucket with its limit as it is written."""
    labels = dict(sample.labels)
    limit = labels.pop("le", "nan")
    if math.isnan(float(limit)):
        raise ValueError("a bucket without a limit")
    if float(limit) == math.inf:
        limit, sample = _INFINITE, sample._replace(labels={**sample.labels, "le": _INFINITE})
    return limit, labels, sample


def _quantile(sample: Any) -> tuple[str, dict[str, str]]:
    labels = dict(sample.labels)
    quantile = labels.pop("quantile", "nan")
    if not 0 <= float(quantile) <= 1:
        raise ValueError("a quantile that is not between 0 and 1")
    if sample.value < 0:
        raise ValueError("the value of a quantile below 0")
    return quantile, labels


def _check_histogram(group: dict[tuple[str, str], Any]) -> None:
    limits = [float(limit) for suffix, limit in group if suffix == "_bucket"]
    values = [sample.value for (suffix, _), sample in group.items() if suffix == "_bucket"]
    if not limits or limits != sorted(set(limits)) or limits[-1] != math.inf:
        raise ValueError("its buckets do not rise to +Inf")
    if values != sorted(values):
        raise ValueError("a bucket holds less than the one before it")
    count, total = group.get(("_count", "")), group.get(("_sum", ""))
    if (count is None) != (total is None) or (count is not None and count.value != values[-1]):
        raise ValueError("its count or its sum is missing, or is not that of its buckets")
    if total is not None and limits[0] < 0:
        raise ValueError("a sum beside buckets below 0")
