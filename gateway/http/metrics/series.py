"""What models register with prometheus_client, read for our own scrape: bounded, checked, merged.

One model must not break the scrape of all, nor make it grow without end. Everything here is a pure function of texts
and takes its time, so it runs beside the loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...wording import counted
from .family_checks import checked, claims

MAX_LINES = 10_000  # of one replica: series, and what is said about them
MAX_LINE = 8192  # bytes; the parser copies what is left of a line for each of its labels
NOT_THEIRS = ("python_", "process_", "gateway_", "vllm:")  # collectors of the process, and names that are ours
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*").fullmatch
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*").fullmatch
_CREATED = "_created"  # when a counter began, which the text format can only say in a gauge of its own


def merge(texts: Sequence[tuple[Mapping[str, str], bytes]]) -> tuple[list[Any], dict[int, str]]:
    """Return the families of all texts, each with its labels, and what was left out: a line by number of the text."""
    merged: dict[str, Any] = {}
    owners: dict[str, str] = {}  # the family that has a name, by all names that a reader takes for its own
    left_out: dict[int, str] = {}
    for number, (labels, text) in enumerate(texts):
        model = labels["model"]
        try:
            found = _read(text)
        except Exception as error:  # the parser has many ways to stumble
            left_out[number] = f"{model}: its metrics cannot be read: {error}"[:512]
            continue
        faults = []
        for family in found:
            try:
                _add(family, labels, merged, owners)
            except (ValueError, OverflowError) as error:
                faults.append(f"{family.name[:128]!r}: {error}"[:384])
        if faults:
            others = f", and {len(faults) - 1} more for such reasons" if len(faults) > 1 else ""
            what = counted(len(faults), "metric")
            left_out[number] = f"{model}: {what} of this replica left out of /metrics: {faults[0]}{others}"
    return list(merged.values()), left_out


def _add(family: Any, labels: Mapping[str, str], merged: dict[str, Any], owners: dict[str, str]) -> None:
    """Add what one replica registered under one name.

    Raises:
        ValueError: a strict reader would refuse it, and everything else in the scrape with it.
    """
    if not _NAME(family.name):
        raise ValueError("a name that is none")
    names = claims(family.name, family.type)
    for name in names:
        if name.startswith(NOT_THEIRS):
            raise ValueError(f"{name} is a name of the gateway")
        if (owner := owners.get(name, family.name)) != family.name:
            raise ValueError(f"{name} belongs to the metric {owner}")
    known = merged.get(family.name, family)
    if known.type != family.type:
        raise ValueError(f"it is of type {known.type} in another model")
    samples = checked(family, [_labelled(sample, labels) for sample in family.samples])
    owners.update(dict.fromkeys(names, family.name))
    merged[family.name] = known
    known.samples = samples if known is family else known.samples + samples


def _labelled(sample: Any, labels: Mapping[str, str]) -> Any:
    """Return one that can be written, with the labels of its model; the time is that of the scrape."""
    if not all(map(_LABEL, sample.labels)):
        raise ValueError("a label whose name is none")
    return sample._replace(labels={**sample.labels, **labels}, value=float(sample.value), timestamp=None, exemplar=None)


def _read(text: bytes) -> list[Any]:
    """Return the families of one replica that are its own.

    Raises:
        ValueError: they are too many, or no such text.
    """
    from prometheus_client.parser import text_string_to_metric_families

    lines = text.split(b"\n")
    if len(lines) > MAX_LINES:
        raise ValueError(f"{len(lines)} lines, at most {MAX_LINES} are taken")
    if len(longest := max(lines, key=len)) > MAX_LINE:
        raise ValueError(f"a line of {len(longest)} bytes, at most {MAX_LINE} are taken")
    return list(_own(text_string_to_metric_families(text.decode("utf-8", "replace"))))


def _own(families: Iterable[Any]) -> Iterator[Any]:
    """Yield each family once; what has no type comes from the parser line by line."""
    found: dict[str, Any] = {}
    for family in families:
        if family.name.startswith(NOT_THEIRS):
            continue
        if (known := found.setdefault(family.name, family)) is not family and known.type == family.type:
            known.samples.extend(family.samples)
        elif known is not family:
            yield family  # of another type: it is left out
    for name, family in found.items():
        begun = found.get(name.removesuffix(_CREATED)) if name.endswith(_CREATED) else None
        if begun is None or begun.type not in ("counter", "summary", "histogram"):
            yield family
