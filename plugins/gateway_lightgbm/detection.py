"""Recognise a model of LightGBM by the name and the beginning of its file."""

from __future__ import annotations

import re

NAMED = (".lgb", ".lgbm")  # only LightGBM has files of these names
MAYBE = (".txt", ".model", ".bst")
BEGIN = re.compile(rb"\Atree\r?\nversion=v\d")


def is_model(name: str, begin: bytes) -> bool:
    """Return whether a file is a model of LightGBM; without a beginning, whether it may be one."""
    low = name.lower()
    if low.endswith(NAMED):
        return True
    return low.endswith(MAYBE) and (not begin or BEGIN.search(begin) is not None)
