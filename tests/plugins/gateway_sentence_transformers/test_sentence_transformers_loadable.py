"""Folders of sentence-transformers that lack something: `gateway check` and the load say the same of them, and none
answers with a constant or with random numbers.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_sentence_transformers import check_model, find_model
from st_folders import WORDS, loaded

from gateway import ConfigError

Break = Callable[[Path], object]


@pytest.fixture
def copied(embedder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(embedder, tmp_path / "it")


def told(place: Path) -> list[str]:
    spec = find_model(place, {})
    assert spec is not None
    return [f"{problem.where}: {problem.what}" for problem in check_model(spec) if problem.level == "error"]


def remove(*names: str) -> Break:
    def do(place: Path) -> None:
        for name in names:
            shutil.rmtree(place / name) if (place / name).is_dir() else (place / name).unlink()

    return do


def write(name: str, content: object) -> Break:
    return lambda place: (place / name).write_text(content if isinstance(content, str) else json.dumps(content))


def change(name: str, how: Callable[[Any], object]) -> Break:
    def do(place: Path) -> None:
        data = json.loads((place / name).read_text())
        how(data)
        (place / name).write_text(json.dumps(data))

    return do


def several(*breaks: Break) -> Break:
    return lambda place: [each(place) for each in breaks]


def more_words(count: int) -> Break:
    """Weights of so many words, whatever the tokenizer knows."""

    def do(place: Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        tensors = load_file(place / "model.safetensors")
        name = "embeddings.word_embeddings.weight"
        tensors[name] = torch.zeros(count, tensors[name].shape[1])
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})

    return do


def cut(place: Path) -> None:
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50_000])


def special_only(tokenizer: Any) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: number for word, number in vocabulary.items() if word.startswith("[")}


NO_WEIGHTS = remove("model.safetensors")
NO_TOKENIZER = remove("tokenizer.json", "vocab.txt")
PEFT = {"peft_type": "LORA", "base_model_name_or_path": "somebody/base"}
DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
BROKEN: Mapping[str, tuple[Break, str]] = {
    "no tokenizer at all": (
        several(NO_TOKENIZER, remove("tokenizer_config.json")),
        r"it has no tokenizer \(tokenizer\.json, or what older kinds have\): get its files",
    ),
    "a tokenizer_config.json alone": (NO_TOKENIZER, "it has no tokenizer"),
    "an empty tokenizer.json": (
        write("tokenizer.json", ""),
        r"its tokenizer \(tokenizer\.json, vocab\.txt\) cannot be",
    ),
    "special tokens alone": (change("tokenizer.json", special_only), r"tokenizer\.json.* has no vocabulary"),
    "a vocab.txt of special tokens": (
        several(remove("tokenizer.json"), write("vocab.txt", "\n".join(WORDS[:5]))),
        r"\(vocab\.txt\) has no vocabulary",
    ),
    "another model's tokenizer": (
        several(change("config.json", lambda config: config.update(vocab_size=30_000)), more_words(30_000)),
        "its tokenizer has 59 tokens, but its weights have 30,000",
    ),
    "SentencePiece": (
        several(
            NO_TOKENIZER,
            write("spiece.model", "\n"),
            change("tokenizer_config.json", lambda config: config.update(tokenizer_class="T5Tokenizer")),
        ),
        r"spiece\.model is a tokenizer of SentencePiece; run: pip install sentencepiece protobuf",
    ),
    "weights that are cut": (cut, r"model\.safetensors has 50,000 bytes of \d+,\d+: it is incomplete"),
    "empty weights": (write("model.safetensors", ""), r"model\.safetensors is empty: get the file again"),
    "a pointer": (
        write("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer instead of the file: git lfs pull",
    ),
    "no weights": (NO_WEIGHTS, r"it has no weights: get model\.safetensors"),
    "a variant": (
        lambda place: (place / "model.safetensors").rename(place / "model.fp16.safetensors"),
        r"called model\.fp16\.safetensors, but model\.safetensors is expected: rename the file",
    ),
    "an index without its files": (
        several(NO_WEIGHTS, write("model.safetensors.index.json", {"weight_map": {"a": "model-1.safetensors"}})),
        r"model-1\.safetensors is missing, which model\.safetensors\.index\.json names",
    ),
    "a module that is not there": (
        remove("1_Pooling"),
        r"modules\.json names a module Pooling, but 1_Pooling/config\.json does not exist: get it",
    ),
    "a broken module": (write("1_Pooling/config.json", "{"), r"1_Pooling/config\.json of its module Pooling cannot be"),
    "no modules.json": (
        remove("modules.json"),
        r"config_sentence_transformers\.json exists without modules\.json, which defines its vectors: get it",
    ),
    "a pooling alone": (
        remove("modules.json", "config_sentence_transformers.json"),
        r"1_Pooling/config\.json exists without modules\.json, which defines its vectors: get it",
    ),
    "a pooling that nobody knows": (
        write("1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": "median"}),
        r"1_Pooling/config\.json of its module Pooling has the pooling_mode median, which is none of cls, lasttoken, ",
    ),
    "a default prompt that is none of the prompts": (
        change(
            "config_sentence_transformers.json",
            lambda config: config.update(prompts={"query": "q: "}, default_prompt_name="passage"),
        ),
        r"default_prompt_name of config_sentence_transformers\.json is passage, which is none of its prompts \(query\)",
    ),
    "a GGUF file in place of a checkpoint": (
        several(
            remove("config.json", "modules.json", "1_Pooling"),
            remove("config_sentence_transformers.json"),
            write("x.gguf", "GGUF"),
            write("config.yaml", "framework: sentence-transformers"),
        ),
        r"x\.gguf is a GGUF file, which sentence-transformers does not read: get",
    ),
    "no modules": (write("modules.json", []), r"modules\.json lists no modules"),
    "modules that are no list": (write("modules.json", {"a": 1}), r"modules\.json is not a list of modules"),
    "code of its own": (
        change("modules.json", lambda modules: modules[0].update(type="custom_st.Transformer")),
        r"its module custom_st\.Transformer is code .* trust_remote_code = true in gateway\.toml",
    ),
    "architecture of its own": (
        change("config.json", lambda config: config.update(model_type="my_bert", auto_map={"AutoModel": "mine.Bert"})),
        r"its architecture is code that comes with it .* \[models\.NAME\] trust_remote_code = true in gateway\.toml",
    ),
    "a Dense with a function of its own": (
        several(
            change("modules.json", lambda modules: modules.append(DENSE)),
            lambda place: (place / "2_Dense").mkdir(),
            write("2_Dense/config.json", {"in_features": 32, "out_features": 8, "activation_function": "my.Act"}),
        ),
        r"its module Dense computes with my\.Act, code that comes with it",
    ),
    "a Dense without weights": (
        several(
            change("modules.json", lambda modules: modules.append(DENSE)),
            lambda place: (place / "2_Dense").mkdir(),
            write("2_Dense/config.json", {"in_features": 32, "out_features": 8}),
        ),
        r"it has no weights: get model\.safetensors",
    ),
    "images without a processor": (
        change("config.json", lambda config: config.update(vision_config={})),
        r"it has no preprocessor_config\.json, which a model of images or sound is loaded with: get it",
    ),
    "no config.json": (remove("config.json"), r"config\.json: No such file or directory: get it"),
    "an adapter": (write("adapter_config.json", PEFT), "it is an adapter .* needs peft; run: pip install peft"),
    "an architecture that nobody knows": (
        change("config.json", lambda config: config.update(model_type="no_such_type")),
        "no_such_type",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_check_and_load_say_the_same_of_a_folder_that_lacks_something(
    kind: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks, says = BROKEN[kind]
    breaks(copied)
    with pytest.raises(ConfigError, match=says) as refused:
        loaded(copied, monkeypatch)
    assert "\n" not in str(refused.value)
    assert told(copied) == [str(refused.value)]


def test_weights_that_no_file_has_are_not_random_numbers(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(copied, lambda name: "layer.1." not in name or name.endswith("query.weight"))
    with pytest.raises(ConfigError, match=r"lacks 15 of the tensors of a BertModel, encoder\.layer\.1\."):
        loaded(copied, monkeypatch)


def keep(place: Path, wanted: Callable[[str], bool]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(place / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if wanted(name)}
    save_file(kept, place / "model.safetensors", metadata={"format": "pt"})


def test_weights_under_names_of_another_program_are_not_random_numbers(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    tensors = load_file(copied / "model.safetensors")
    torch.save({f"encoder_q.{name}": value for name, value in tensors.items()}, copied / "pytorch_model.bin")
    NO_WEIGHTS(copied)
    with pytest.raises(ConfigError, match=r"lacks \d+ of the tensors of a BertModel, embeddings\."):
        loaded(copied, monkeypatch)


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (
            change("config.json", lambda config: config.update(intermediate_size=128)),
            r"its weights have other sizes than config\.json says: get both again, from one place",
        ),
        (
            change("1_Pooling/config.json", lambda config: config.update(include_prompt=False, pooling_mode="none")),
            "sentence-transformers cannot load this checkpoint: .*none",
        ),
        (
            change("modules.json", lambda modules: modules.pop(1)),
            r"its modules compute no vector from a text \(KeyError: 'sentence_embedding'\)",
        ),
    ],
)
def test_what_only_a_load_can_see_fails_it_in_one_line(
    breaks: Break, says: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(copied)
    with pytest.raises(ConfigError, match=says) as refused:
        loaded(copied, monkeypatch)
    assert "\n" not in str(refused.value)


def test_a_network_of_texts_and_images_has_no_one_matrix_of_tokens(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertModel

    def refuse(self: Any) -> None:  # as CLIP does
        raise NotImplementedError("get_input_embeddings")

    monkeypatch.setattr(BertModel, "get_input_embeddings", refuse)
    loaded(copied, monkeypatch).unload()


def of_an_encoder(place: Path) -> None:
    """Nothing is left that sentence-transformers has saved; only config.yaml says what it is for."""
    remove("modules.json", "1_Pooling", "config_sentence_transformers.json")(place)
    (place / "config.yaml").write_text("framework: sentence-transformers\n")


UNHARMED: Mapping[str, Break] = {
    "as it was saved": lambda place: None,
    "a pooler that nobody reads is not there": lambda place: keep(place, lambda name: "pooler" not in name),
    "an older tokenizer": remove("tokenizer.json"),
    "a plain encoder, which the library makes a model of": of_an_encoder,
}


@pytest.mark.parametrize("kind", UNHARMED)
def test_a_folder_that_lacks_nothing_of_use_answers_as_the_library(
    kind: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    UNHARMED[kind](copied)
    assert told(copied) == []
    model = loaded(copied, monkeypatch)
    found = asyncio.run(model.embeddings({"input": ["cat", "dog"]}))["embeddings"]
    model.unload()
    assert np.allclose(found, SentenceTransformer(str(copied)).encode(["cat", "dog"]), atol=1e-4)
    assert not np.allclose(found[0], found[1], atol=1e-2)
