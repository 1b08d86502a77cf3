"""Recognise a model of XGBoost by the name and the beginning of its file."""

from __future__ import annotations

import re

NAMED = (".ubj", ".xgb", ".bst")  # only XGBoost has files of these names
MAYBE = (".json", ".model", ".bin")
JSON = re.compile(rb'\A\{\s*"(learner|Config)"|\A\{"version":\s*\[\d')
UBJSON = re.compile(rb"(?s)\A\{[LlIiU].{1,8}(learner|version|Config)")
OLD = re.compile(rb"\A(binf|bs64)")


def is_model(name: str, begin: bytes) -> bool:
    """Return whether a file is a model of XGBoost; without a beginning, whether it may be one."""
    low = name.lower()
    if low.endswith(NAMED) or low == "xgboost-model":
        return True
    if not low.endswith(MAYBE):
        return False
    return not begin or any(kind.search(begin) for kind in (JSON, UBJSON, OLD))
