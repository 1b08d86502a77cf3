"""What the names of tensors say of a checkpoint is said by `gateway check` and by the load, before a tensor is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gateway_transformers
import pytest
from gateway_checkpoints.tensor_names import say_names
from gateway_sentence_transformers import loadable
from gateway_transformers import tensor_doubts

from gateway import ConfigError

Tensors = dict[str, Any]
QUERY = "model.layers.0.self_attn.q_proj"
LACKS = "the checkpoint lacks {} of the tensors of a LlamaForCausalLM, {}"


def told(path: Path) -> list[str]:
    spec = gateway_transformers.find_model(path, {})
    assert spec is not None
    return [problem.what for problem in gateway_transformers.check_model(spec) if problem.level == "error"]


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: each for name, each in tensors.items()}


def without_layer(number: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: each for name, each in tensors.items() if f".layers.{number}." not in name}


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {each: value for each, value in tensors.items() if each != name}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new, 1): each for name, each in tensors.items()}


def adapted(tensors: Tensors, *, extra: str = "lora_A.weight") -> Tensors:
    """As a model of PEFT has them before its adapter was merged."""
    some = tensors[f"{QUERY}.weight"]
    named = {name.replace(".q_proj.", ".q_proj.base_layer."): each for name, each in tensors.items()}
    return prefixed("base_model.model.")({**named, f"{QUERY}.{extra}": some.clone()})


def beside(tensors: Tensors, name: str) -> Tensors:
    return {**tensors, name: tensors[f"{QUERY}.weight"].clone()}


def only(tensors: Tensors, name: str) -> Tensors:
    return {name: tensors[f"{QUERY}.weight"].clone()}


REFUSED: Mapping[str, tuple[Callable[[Tensors], Tensors], dict[str, Any], str]] = {
    "torch.compile": (prefixed("_orig_mod."), {}, r"have _orig_mod\. .*torch\.compile put there.*_orig_mod\.save_pre"),
    "one part compiled": (
        lambda tensors: {name.replace("model.", "model._orig_mod.", 1): each for name, each in tensors.items()},
        {},
        r"model\._orig_mod\..* have _orig_mod\. .*torch\.compile",
    ),
    "DataParallel": (prefixed("module."), {}, r"have module\. .*DistributedDataParallel.*model\.module\.save_pretrain"),
    "both": (prefixed("module._orig_mod."), {}, r"have _orig_mod\. and module\. .*torch\.compile and DataParallel"),
    "FSDP": (prefixed("_fsdp_wrapped_module."), {}, r"which FSDP put there.*its full state dict"),
    "Lightning": (prefixed("model."), {}, r"\(model\.lm_head\.weight and others\) have model\. .*a module that held"),
    "Lightning by another name": (prefixed("net."), {}, r"have net\. .*a module that held"),
    "PEFT": (
        adapted,
        {},
        r"lora_A\.weight .*an adapter of PEFT that was not merged: model\.merge_and_unload\(\), then",
    ),
    "PEFT, its base alone": (
        lambda tensors: {name.replace(".q_proj.", ".q_proj.base_layer."): each for name, each in tensors.items()},
        {},
        r"q_proj\.base_layer\.weight and others\) .*was not merged",
    ),
    "IA3": (lambda tensors: adapted(tensors, extra="ia3_l.default"), {}, "was not merged"),
    "LoRA beside the weights": (
        lambda tensors: beside(tensors, f"{QUERY}.lora_B.weight"),
        {},
        "not merged: model.merge_and_unload",
    ),
    "an adapter alone": (
        lambda tensors: only(tensors, f"base_model.model.{QUERY}.lora_A.weight"),
        {},
        "those of an adapter .*merge it into its base",
    ),
    "learned prompts": (
        lambda tensors: beside(tensors, "prompt_encoder.default.embedding.weight"),
        {},
        "prompts that were learned .*cannot be merged.*model.py whose class loads",
    ),
    "fewer layers in config.json": (
        lambda tensors: tensors,
        {"num_hidden_layers": 1},
        r"its weights have 2 layers \(model\.layers\.1\), and config\.json says 1: the rest would be left out",
    ),
    "more layers in config.json": (
        lambda tensors: tensors,
        {"num_hidden_layers": 5},
        r"it lacks 3 of the 5 layers that config\.json says \(model\.layers\.2\)",
    ),
    "far more layers than there can be": (
        lambda tensors: tensors,
        {"num_hidden_layers": 10**12},
        r"says that it has 1,000,000,000,000 layers",
    ),
    "a layer that is missing": (without_layer(0), {}, r"it lacks 1 of the 2 layers .*\(model\.layers\.0\)"),
    "no head": (without("lm_head.weight"), {"tie_word_embeddings": False}, LACKS.format(1, r"lm_head\.weight")),
    "half a layer": (without("model.layers.1.mlp.up_proj.weight"), {}, LACKS.format(1, "model.layers.1.mlp.up_proj")),
    "other words": (renamed("q_proj", "wq"), {}, LACKS.format(2, "model.layers.0.self_attn.q_proj.weight")),
    "of another library": (renamed("model.", "transformer."), {}, LACKS.format(20, "model.embed_tokens.weight")),
    "of a model of images": (prefixed("language_model."), {}, LACKS.format(21, "lm_head.weight")),
    "a bias that nobody reads": (
        lambda tensors: {**tensors, f"{QUERY}.bias": tensors["model.norm.weight"].clone()},
        {},
        rf"a LlamaForCausalLM has no place for 1 of the tensors of its layers, {QUERY}\.bias among them",
    ),
    "a bias that is wanted": (
        lambda tensors: tensors,
        {"attention_bias": True},
        LACKS.format(8, "model.layers.0.self"),
    ),
    "layers of another width": (lambda tensors: tensors, {"intermediate_size": 96}, "have other sizes than config"),
    "another vocabulary": (lambda tensors: tensors, {"vocab_size": 300}, "its weights have other sizes than config"),
    "another width": (lambda tensors: tensors, {"hidden_size": 72}, "its weights have other sizes than config"),
}


def changed(checkpoint: Path, place: Path, change: Callable[[Tensors], Tensors], config: Mapping[str, Any]) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, place)
    tensors = change(load_file(place / "model.safetensors"))
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    old = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**old, **config}))
    return place


@pytest.mark.parametrize("kind", REFUSED)
def test_check_and_load_say_the_same_of_tensors_that_are_called_otherwise(
    kind: str, checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    change, config, says = REFUSED[kind]
    place = changed(checkpoint, tmp_path / "it", change, config)
    with pytest.raises(ConfigError, match=says) as refused:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]


def test_the_tensors_of_a_checkpoint_in_parts_are_those_of_the_files_that_its_index_names(
    checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    from safetensors.torch import load_file, save_file

    place = changed(checkpoint, tmp_path / "it", lambda tensors: tensors, {"num_hidden_layers": 1})
    tensors = load_file(place / "model.safetensors")
    halves: list[Tensors] = [{}, {}]
    for number, (name, each) in enumerate(tensors.items()):
        halves[number % 2][name] = each
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, half in zip(files, halves, strict=True):
        save_file(half, place / file, metadata={"format": "pt"})
    (place / "model.safetensors").unlink()
    index = {name: file for file, half in zip(files, halves, strict=True) for name in half}
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    save_file({"other.lora_A.weight": tensors["lm_head.weight"]}, place / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match="its weights have 2 layers") as refused:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]


def test_the_names_in_a_pickle_are_read_without_running_it(
    checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    import torch
    from safetensors.torch import load_file

    place = shutil.copytree(checkpoint, tmp_path / "it")
    torch.save(prefixed("module.")(load_file(place / "model.safetensors")), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    (place / "config.yaml").write_text("framework: transformers\n")
    with pytest.raises(ConfigError, match=r"have module\. .*DataParallel"):
        serve(place)


@pytest.mark.parametrize("number", [2, 61])
def test_a_layer_that_the_library_leaves_out_knowingly_is_no_layer_too_many(
    number: int, checkpoint: Path, tmp_path: Path
) -> None:
    """Layers that guess words ahead come behind the last: config.json counts them, or the library's code names them."""
    kind = {"model_type": "deepseek_v3", **({"num_nextn_predict_layers": 1} if number == 2 else {})}
    place = changed(
        checkpoint, tmp_path / "it", lambda tensors: beside(tensors, f"model.layers.{number}.eh_proj.weight"), kind
    )
    say_names(place, json.loads((place / "config.json").read_text()))


@pytest.mark.parametrize(("prefix", "says"), [("module.", "DataParallel"), ("0.auto_model.", "a SentenceTransformer")])
def test_a_folder_of_sentence_transformers_is_told_the_same(prefix: str, says: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertModel(BertConfig(vocab_size=99, **sizes)).save_pretrained(tmp_path)
    (tmp_path / "config_sentence_transformers.json").write_text("{}")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    loadable.say_unloadable(tmp_path)
    tensors = prefixed(prefix)(load_file(tmp_path / "model.safetensors"))
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=says):
        loadable.say_unloadable(tmp_path)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gpt2", "phi", "olmo2"])
def test_of_a_checkpoint_that_leaves_no_doubt_nothing_is_asked(
    kind: str,
    make_model: Callable[..., Any],
    make_tokenizer: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import transformers

    make_model(tmp_path, kind, make_tokenizer(tmp_path))

    def ask(*args: Any, **options: Any) -> Any:
        raise AssertionError("the library was asked")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", ask)
    tensor_doubts.check(tmp_path)


def test_what_the_library_left_out_of_old_checkpoints_is_none_of_the_layers(
    checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    """Masks and frequencies that it saved once, and layers that guess words ahead."""
    import torch

    names = ("model.layers.0.attn.masked_bias", "model.layers.0.attn.bias", "model.layers.1.rotary_emb.inv_freq")
    more = {name: torch.ones(4) for name in (*names, "mtp.layers.0.norm.weight")}
    place = changed(checkpoint, tmp_path / "it", lambda tensors: {**tensors, **more}, {})
    assert told(place) == []
    assert serve(place).is_healthy()
