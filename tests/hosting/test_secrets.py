"""Values of secrets: where they are looked for, and how large they may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.hosting.secrets import MAX_SIZE, SecretSources
from gateway.settings.schema import Settings
from gateway.spec import ModelSpec


def test_a_file_larger_than_any_secret_is_none_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.hosting.secrets.TRUSS_DIR", tmp_path)
    (tmp_path / "large").write_text("x" * (MAX_SIZE + 1))
    (tmp_path / "fits").write_text("x" * MAX_SIZE)
    spec = ModelSpec(name="m", target="m:M", root=tmp_path, secrets=("large", "fits"), format="python")
    sources = SecretSources(Settings)
    for _ in range(3):
        assert set(sources.for_model(spec)) == {"fits"}
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"{tmp_path}/large has more than {MAX_SIZE} bytes, and is no secret"
