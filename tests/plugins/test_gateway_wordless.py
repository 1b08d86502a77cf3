"""Tokenizers are looked at within bounds, and none of a model's code runs for it."""

from __future__ import annotations

import json
import os
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


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "vocab.txt", "tokenizer.model", "tokenizer_config.json", "merges.txt"]
)
def test_a_tokenizer_of_any_size_is_not_read(file: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / file).touch()
    os.truncate(tmp_path / file, 1 << 40)
    for look in (gateway_wordless.check, gateway_wordless.say_large):
        with pytest.raises(ConfigError, match=rf"{file} has more than 134,217,728 bytes"):
            look(tmp_path)
