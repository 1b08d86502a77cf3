"""Tokenizers are looked at within bounds, and none of a model's code runs for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gateway_checkpoints import wordless

from gateway import ConfigError


def test_a_tokenizer_that_is_code_is_left_to_the_load(tmp_path: Path) -> None:
    classes = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(classes))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Own: pass\n")
    wordless.check(tmp_path, trusted=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "vocab.txt", "tokenizer.model", "tokenizer_config.json", "merges.txt"]
)
def test_a_tokenizer_of_any_size_is_not_read(file: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / file).touch()
    os.truncate(tmp_path / file, 1 << 40)
    for look in (wordless.check, wordless.say_large):
        with pytest.raises(ConfigError, match=rf"{file} has more than 134,217,728 bytes"):
            look(tmp_path)


@pytest.mark.parametrize("strategy", [{"Fixed": 100}, "BatchLongest"])
def test_no_text_is_filled_up_to_the_length_that_a_tokenizer_asks_for(
    strategy: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "e": 1, "?": 2}, unk_token="?"))
    padding = {"strategy": strategy, "direction": "Right", "pad_to_multiple_of": 100}
    padding |= {"pad_id": 2, "pad_type_id": 0, "pad_token": "?"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**json.loads(made.to_str()), "padding": padding}))
    asked: list[int] = []
    monkeypatch.setattr(wordless, "_say", lambda place, encode, *rest: asked.append(len(encode("a"))))
    wordless.check(tmp_path)
    assert asked == [1]
