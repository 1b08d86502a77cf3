from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import cli


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs `gateway` in an empty directory, without settings of this machine."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))  # no other gateway is told of these keys

    def invoke(*arguments: str, **more: Any) -> Result:
        return CliRunner().invoke(cli, arguments, prog_name="gateway", **more)

    return invoke


@pytest.fixture
def models(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes files below models/, by their path."""

    def write(files: dict[str, str]) -> Path:
        for file, text in files.items():
            place = tmp_path / "models" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return tmp_path / "models"

    return write
