"""Tokenizers are looked at within bounds, and none of a model's code runs for it."""

from __future__ import annotations

import json
from pathlib import Path

import gateway_wordless
import pytest

from gateway import ConfigError


def test_a_tokenizer_that_is_code_is_left_to_the_load(tmp_path: Path) -> None:
    classes = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(classes))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Own: pass\n")
    gateway_wordless.check(tmp_path, trusted=True)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_of_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_wordless, "LARGEST", 10)
    (tmp_path / "tokenizer.json").write_text("{}" + " " * 10)
    with pytest.raises(ConfigError, match="more than 10 bytes"):
        gateway_wordless.check(tmp_path)
