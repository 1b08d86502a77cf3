"""What models register with prometheus_client, read for our own scrape: bounded, checked, merged.

One model must not break the scrape of all, nor make it grow without end. Everything here is a pure function of texts
and takes its time, so it runs beside the loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..wording import with_article

MAX_LINES = 10_000  # of one replica: series, and what is said about them
MAX_LINE = 8192  # bytes; the parser copies what is left of a line for each of its labels
NOT_THEIRS = ("python_", "process_", "gateway_", "vllm:")  # collectors of the process, and names that are ours
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*").fullmatch
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*").fullmatch


def merge(texts: Iterable[tuple[Mapping[str, str], bytes]]) -> tuple[list[Any], list[str]]:
    """The families of all texts, each with its labels, and what was left out and why."""
    merged: dict[str, Any] = {}
    left_out: list[str] = []
    for labels, text in texts:
        try:
            found = _read(text)
        except Exception as error:  # the parser has many ways to stumble
            left_out.append(f"{labels['model']}: its metrics cannot be read: {error}"[:512])
            continue
        for family in found:
            try:
                samples = [_checked(sample, labels) for sample in family.samples]
                known = merged.get(family.name, family)
                if known.type != family.type:
                    raise ValueError(f"it is {with_article(known.type)} of another model")
            except (ValueError, OverflowError) as error:
                left_out.append(f"{labels['model']}: its metric {family.name[:128]!r} is left out: {error}")
                continue
            merged[family.name] = known
            known.samples = samples if known is family else known.samples + samples
    return list(merged.values()), left_out


def _checked(sample: Any, labels: Mapping[str, str]) -> Any:
    """One that can be written, with the labels of its model; the time is that of the scrape."""
    if not _NAME(sample.name) or not all(map(_LABEL, sample.labels)):
        raise ValueError("a name that is none")
    return sample._replace(labels={**sample.labels, **labels}, value=float(sample.value), timestamp=None, exemplar=None)


def _read(text: bytes) -> list[Any]:
    """The families of one replica that are its own.

    Raises:
        ValueError: they are too many, or no such text.
    """
    from prometheus_client.parser import text_string_to_metric_families

    lines = text.split(b"\n")
    if len(lines) > MAX_LINES:
        raise ValueError(f"{len(lines)} lines, at most {MAX_LINES} are taken")
    if len(longest := max(lines, key=len)) > MAX_LINE:
        raise ValueError(f"a line of {len(longest)} bytes, at most {MAX_LINE} are taken")
    families = text_string_to_metric_families(text.decode("utf-8", "replace"))
    return [family for family in families if not family.name.startswith(NOT_THEIRS)]
