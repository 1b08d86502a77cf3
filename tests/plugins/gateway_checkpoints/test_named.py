"""What the settings of a checkpoint name is in its directory, and is not code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gateway_checkpoints import loadable, named, wordless
from gateway_sentence_transformers.loadable import say_unloadable

from gateway import ConfigError

FILES = {
    "a tokenizer for newer versions": ("tokenizer_config.json", '{"fast_tokenizer_files": ["OUT/tokenizer.5.0.json"]}'),
    "a vocabulary": ("tokenizer_config.json", '{"vocab_file": "OUT/vocab"}'),
    "a tokenizer in a GGUF file": ("tokenizer_config.json", '{"gguf_file": "OUT/x.gguf"}'),
    "a file of classes": ("preprocessor_config.json", '{"repo_path": "a/b", "class_info_file": "OUT/x.json"}'),
    "a tokenizer of sound": (
        "processor_config.json",
        '{"audio_tokenizer": {"audio_tokenizer_name_or_path": "OUT/codec"}}',
    ),
    "a network of timm": ("config.json", '{"vision_config": {"model_args": {}, "architecture": "local-dir:OUT"}}'),
    "the base of an adapter": ("adapter_config.json", '{"base_model_name_or_path": "OUT/base"}'),
    "the tokenizer of an adapter": ("adapter_config.json", '{"tokenizer_name_or_path": "OUT/base"}'),
}
OUT = {"..": "a/../../elsewhere", "absolute": "/elsewhere", "windows": "C:\\\\elsewhere"}


@pytest.mark.parametrize("way", OUT)
@pytest.mark.parametrize("kind", FILES)
def test_no_file_that_a_library_opens_by_its_name_is_elsewhere(kind: str, way: str, tmp_path: Path) -> None:
    file, text = FILES[kind]
    (tmp_path / file).write_text(text.replace("OUT", OUT[way]))
    with pytest.raises(ConfigError, match="leads out of the directory"):
        named.say_names(tmp_path)


@pytest.mark.parametrize("kind", FILES)
def test_one_inside_may_be_named(kind: str, tmp_path: Path) -> None:
    file, text = FILES[kind]
    (tmp_path / file).write_text(text.replace("OUT", "inside"))
    named.say_names(tmp_path)


def test_the_base_of_an_adapter_names_no_file_elsewhere_either(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"fast_tokenizer_files": ["../../tokenizer.5.0.json"]}')
    with pytest.raises(ConfigError, match="leads out of the directory"):
        named.say_names(tmp_path)


def test_what_other_machines_left_in_a_file_is_not_opened_and_says_nothing(tmp_path: Path) -> None:
    left = {
        "tokenizer_file": "/root/tokenizer.json",
        "special_tokens_map_file": "/root/x.json",
        "name_or_path": "/root",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**left, "vocab_file": None}))
    (tmp_path / "config.json").write_text('{"_name_or_path": "/root/model", "output_dir": "/root"}')
    named.say_names(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", '{"attn_implementation": "some/kernel"}'),
        ("config.json", '{"text_config": {"_attn_implementation": {"": "some/kernel@main:layer"}}}'),
        ("config.json", '{"experts_implementation": "some/kernel"}'),
        ("adapter_config.json", '{"megatron_config": {"a": 1}, "megatron_core": "some.module"}'),
        ("adapter_config.json", '{"tokenizer_kwargs": {"a": 1}}'),
    ],
)
def test_no_code_is_named_unless_it_is_trusted(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match="code: remove it"):
        named.say_names(tmp_path)
    named.say_names(tmp_path, trusted=True)


def test_an_implementation_of_the_library_is_no_code(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"attn_implementation": "sdpa", "_attn_implementation": {"": "eager"}}')
    named.say_names(tmp_path)


def test_every_load_and_check_looks_at_names(checkpoint: Path, embedder: Path, tmp_path: Path) -> None:
    from shutil import copytree

    for number, (source, looks) in enumerate(
        [(checkpoint, loadable.say_unloadable), (checkpoint, _tokenizer), (embedder, say_unloadable)]
    ):
        place = copytree(source, tmp_path / str(number))
        (place / "tokenizer_config.json").write_text('{"fast_tokenizer_files": ["../tokenizer.5.0.json"]}')
        with pytest.raises(ConfigError, match="leads out of the directory"):
            looks(place)


def _tokenizer(place: Path) -> None:
    (place / "tokenizer.json").unlink()
    wordless.check(place)


def test_an_adapter_is_looked_at_before_its_base(embedder: Path, tmp_path: Path) -> None:
    from shutil import copytree

    place = copytree(embedder, tmp_path / "it")
    (place / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(ConfigError, match="leads out of the directory"):
        say_unloadable(place)
