"""Read what the transformers library knows about a model type from its files, without importing it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def has_module(kind: object) -> bool:
    """Return whether the library has a directory for a `model_type`. Types without one may still be known."""
    is_name = isinstance(kind, str) and re.fullmatch(r"[\w-]+", kind)
    return bool(is_name and (_library() / str(kind).replace("-", "_")).is_dir())


def code_of(config: Mapping[str, Any]) -> str:
    """Return the library's code for a model type as text; "" if it has no such file."""
    if not has_module(config.get("model_type")):
        return ""
    kind = str(config["model_type"]).replace("-", "_")
    try:
        return (_library() / kind / f"modeling_{kind}.py").read_text("utf-8")
    except (OSError, ValueError):
        return ""


def _library() -> Path:
    """Return the library's directory of model types, without importing the library."""
    spec = find_spec("transformers")
    return Path(spec.origin if spec and spec.origin else "nowhere").with_name("models")
