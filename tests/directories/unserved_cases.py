"""Directories without a byte of weights, and the line about one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.directories.unserved.unserved import find_unserved


def make(path: Path, *names: str, **objects: Any) -> Path:
    """A directory with empty files of these names, and a JSON file for each object."""
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    for name, value in objects.items():
        (path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def told(path: Path) -> str:
    found = find_unserved(path)
    assert found is not None
    assert found.fix
    return f"{found.what} ({found.fix})"


def architecture(name: str, **more: Any) -> dict[str, Any]:
    return {"architectures": [name], **more}


WHOLE = ("model.safetensors", "tokenizer.json")
