"""What the settings of a checkpoint name is in its directory, and is not code."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree, rmtree

import pytest
from gateway_checkpoints import loadable, named, wordless
from gateway_sentence_transformers.loadable import say_unloadable
from gateway_sentence_transformers.model import SentenceTransformerModel
from gateway_transformers.model import LanguageModel

from gateway import ConfigError

FILES = {
    "a tokenizer for newer versions": ("tokenizer_config.json", '{"fast_tokenizer_files": ["OUT/tokenizer.5.0.json"]}'),
    "a vocabulary": ("tokenizer_config.json", '{"vocab_file": "OUT/vocab"}'),
    "a vocabulary under another name": ("tokenizer_config.json", '{"vocab": "OUT/vocab"}'),
    "a model of SentencePiece": ("tokenizer_config.json", '{"source_spm": "OUT/source.spm"}'),
    "a dictionary of words": ("tokenizer_config.json", '{"sudachi_kwargs": {"sudachi_resource_dir": "OUT"}}'),
    "a map of bytes": ("byte_maps.json", '{"decompose_map": "OUT/map.json", "merge_map": {}}'),
    "a vocabulary of a further tokenizer": ("decoder_tokenizer/tokenizer_config.json", '{"vocab_file": "OUT/vocab"}'),
    "a tokenizer in a GGUF file": ("tokenizer_config.json", '{"gguf_file": "OUT/x.gguf"}'),
    "a file of classes": ("preprocessor_config.json", '{"repo_path": "a/b", "class_info_file": "OUT/x.json"}'),
    "a tokenizer of sound": (
        "processor_config.json",
        '{"audio_tokenizer": {"audio_tokenizer_name_or_path": "OUT/codec"}}',
    ),
    "a network of timm": ("config.json", '{"vision_config": {"model_args": {}, "architecture": "local-dir:OUT"}}'),
    "the base of an adapter": ("adapter_config.json", '{"base_model_name_or_path": "OUT/base"}'),
    "the start of an adapter": ("adapter_config.json", '{"corda_config": {"cache_file": "OUT/cache.pt"}}'),
    "the parts of a base": ("model.safetensors.index.json", '{"weight_map": {"a": "OUT/a.safetensors"}}'),
    "the tokenizer of an adapter": ("adapter_config.json", '{"tokenizer_name_or_path": "OUT/base"}'),
}
FILE_NAMES = re.compile(r"(?i)vocab_files_names(?:: [^=]+)? = \{([^}]*)\}")
OUT = {"..": "a/../../elsewhere", "absolute": "/elsewhere", "windows": "C:\\\\elsewhere"}


@pytest.mark.parametrize("way", OUT)
@pytest.mark.parametrize("kind", FILES)
def test_no_file_that_a_library_opens_by_its_name_is_elsewhere(kind: str, way: str, tmp_path: Path) -> None:
    write(tmp_path, kind, OUT[way])
    with pytest.raises(ConfigError, match="leads out of the directory"):
        named.say_names(tmp_path)


@pytest.mark.parametrize("kind", FILES)
def test_one_inside_may_be_named(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind, "inside")
    named.say_names(tmp_path)


def write(place: Path, kind: str, out: str) -> None:
    file, text = FILES[kind]
    if "parts" in kind:
        (place / "adapter_config.json").write_text("{}")
    (place / file).parent.mkdir(exist_ok=True)
    (place / file).write_text(text.replace("OUT", out))


@pytest.mark.parametrize(("option", "leads_out"), [("-d /dic", True), ("-r../x", True), ("-d", False), (None, False)])
def test_options_of_a_program_name_no_file_elsewhere(option: str | None, leads_out: bool, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mecab_kwargs": {"mecab_option": option}}))
    if not leads_out:
        named.say_names(tmp_path)
        return
    with pytest.raises(ConfigError, match="leads out of the directory"):
        named.say_names(tmp_path)


def test_the_keys_that_transformers_opens_are_known() -> None:
    """Those of files that a tokenizer of the installed version consists of."""
    library = Path(find_spec("transformers").submodule_search_locations[0])  # type: ignore[union-attr, index]
    sources = [*library.glob("tokenization_*.py"), *library.glob("models/*/tokenization_*.py")]
    tables = [table for file in sources for table in FILE_NAMES.findall(file.read_text())]
    keys = {key for table in tables for key in re.findall(r'"(\w+)":', table)}
    assert {"vocab_file", "vocab", "source_spm"} <= keys
    assert [key for key in keys if not key.endswith(named.ENDS) and key not in named.OPENED] == []


@pytest.mark.parametrize("key", ["vocab_file", "vocab", "tokenizer_file", "name_or_path"])
def test_a_map_of_special_tokens_names_no_file(key: str, tmp_path: Path) -> None:
    tokens = {"bos_token": {"content": "/"}, "eos_token": "..", "extra_special_tokens": {"end_of_file": "/"}}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({**tokens, "vocab_file": None}))
    named.say_names(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({**tokens, key: "inside"}))
    with pytest.raises(ConfigError, match=f"sets {key}, which is a file and no token"):
        named.say_names(tmp_path, trusted=True)


def test_no_other_config_is_read_than_the_one_that_is_checked(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"configuration_files": ["config.4.0.0.json"]}')
    with pytest.raises(ConfigError, match="one of them instead"):
        named.say_names(tmp_path, trusted=True)


def test_no_input_of_a_tokenizer_is_a_file_elsewhere(tmp_path: Path) -> None:
    """The library passes them to its constructor by their place, where one is the file of the vocabulary."""
    (tmp_path / "tokenizer_config.json").write_text('{"init_inputs": []}')
    named.say_names(tmp_path)
    for inputs in (["/elsewhere"], ["../vocab.txt"], [["/elsewhere"]]):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"init_inputs": inputs}))
        with pytest.raises(ConfigError, match="init_inputs"):
            named.say_names(tmp_path, trusted=True)


@pytest.mark.parametrize("text", ['{"attribute_map": {}}', '{"vision_config": [{"attribute_map": {"a": "b"}}]}'])
def test_no_setting_has_another_name(text: str, tmp_path: Path) -> None:
    """By which a library would read what was not checked."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="attribute_map, which gives settings other names"):
        named.say_names(tmp_path, trusted=True)


FILES_OF_SETTINGS = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "adapter_config.json",
    *named.PROCESSORS,
    "decoder_tokenizer/config.json",
    "decoder_tokenizer/tokenizer_config.json",
]


@pytest.mark.parametrize("file", FILES_OF_SETTINGS)
@pytest.mark.parametrize("text", ['{"__doc__": "x"}', '{"x": 1, "text_config": [{"__dict__": {"x": 2}}]}'])
def test_no_setting_replaces_what_python_keeps_in_objects(file: str, text: str, tmp_path: Path) -> None:
    """The libraries set attributes by the keys: those of a `__dict__` were not checked by their names."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match=f"{Path(file).name} sets __(doc|dict)__, which is no setting"):
        named.say_names(tmp_path, trusted=True)


def test_a_label_may_begin_like_an_attribute_of_python(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"label2id": {"__label__good": 0}, "id2label": {"0": "__label__good"}}')
    named.say_names(tmp_path)


@pytest.mark.parametrize(
    "text", ['{"peft_type": "XLORA", "adapters": {"0": "lora"}}', '{"peft_type": "SHADOW", "shadow_model": "a/b"}']
)
def test_an_adapter_names_no_other_models_than_its_base(text: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ConfigError, match="these are not checked"):
        named.say_names(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"shadow_model": "mirror", "adapters": null, "adapter_path": "/a"}')
    named.say_names(tmp_path)


@pytest.mark.parametrize(
    "file", ["tokenizer_config.json", "special_tokens_map.json", "processor_config.json", "adapter_config.json"]
)
def test_settings_that_are_too_large_to_be_checked_are_refused(file: str, tmp_path: Path) -> None:
    """A library would read them."""
    (tmp_path / file).write_text(f'{{"vocab_file": "/elsewhere", "a": [{"0," * 1_000_000}0]}}')
    with pytest.raises(ConfigError, match="cannot be read"):
        named.say_names(tmp_path)


def test_the_base_of_an_adapter_names_no_file_elsewhere_either(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"fast_tokenizer_files": ["../../tokenizer.5.0.json"]}')
    with pytest.raises(ConfigError, match="leads out of the directory"):
        named.say_names(tmp_path)


def test_so_it_is_with_the_base_of_a_base_and_where_peft_looks_for_it(tmp_path: Path) -> None:
    place = tmp_path / "module"
    (tmp_path / "lower").mkdir()
    for folder, base in ((place, "base"), (tmp_path / "base", "lower")):
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (tmp_path / "lower" / "tokenizer_config.json").write_text('{"vocab_file": "../../vocab"}')
    named.say_names(place)  # which is not the working directory
    with pytest.raises(ConfigError, match="leads out of the directory"):
        named.say_names(place, beside=tmp_path)
    (tmp_path / "lower" / "tokenizer_config.json").unlink()
    (tmp_path / "lower" / "config.json").write_text('{"transformers_weights": "/elsewhere"}')
    with pytest.raises(ConfigError, match="leads out of the directory"):
        named.say_names(place, beside=tmp_path)


def test_an_adapter_that_is_its_own_base_is_checked_a_few_times(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "."}')
    named.say_names(tmp_path, beside=tmp_path)


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
    for number, (source, looks) in enumerate(
        [(checkpoint, loadable.say_unloadable), (checkpoint, _tokenizer), (embedder, say_unloadable)]
    ):
        place = copytree(source, tmp_path / str(number))
        (place / "tokenizer_config.json").write_text('{"fast_tokenizer_files": ["../tokenizer.5.0.json"]}')
        with pytest.raises(ConfigError, match="leads out of the directory"):
            looks(place)


def test_every_load_checks_the_base_where_peft_looks_for_it(
    checkpoint: Path, embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the working directory, which is that of the model: the weights may be elsewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"vocab_file": "../vocab"}')
    monkeypatch.setattr("gateway_sentence_transformers.loadable.find_spec", lambda name: True)
    for source, load in ((checkpoint, LanguageModel({}, tmp_path).load), (embedder, SentenceTransformerModel({}).load)):
        place = copytree(source, tmp_path / "weights")
        (place / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
        monkeypatch.setattr(f"{load.__module__}.weights_path", lambda config, root, place=place: place)
        with pytest.raises(ConfigError, match="leads out of the directory"):
            load()
        rmtree(place)


def _tokenizer(place: Path) -> None:
    (place / "tokenizer.json").unlink()
    wordless.check(place)


def test_an_adapter_is_looked_at_before_its_base(embedder: Path, tmp_path: Path) -> None:
    place = copytree(embedder, tmp_path / "it")
    (place / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(ConfigError, match="leads out of the directory"):
        say_unloadable(place)
