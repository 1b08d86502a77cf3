"""What `gateway check` says of a checkpoint that transformers will refuse is what its load says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from gateway_transformers import check_model, find_model

from gateway import ConfigError

LAYER = "model.layers.0.mlp.up_proj"
GPTQ = {"bits": 4, "group_size": 128, "desc_act": False}
REFUSED: Mapping[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "awq": ({"quantization_config": {"quant_method": "awq", "bits": 4}}, (), r"cannot load this checkpoint: .*"),
    "gptq": ({"quantization_config": {"quant_method": "gptq", **GPTQ}}, (), "cannot load this checkpoint: .*optimum"),
    "aqlm": ({"quantization_config": {"quant_method": "aqlm"}}, (), "cannot load this checkpoint: .*aqlm"),
    "bnb": ({"quantization_config": {"load_in_4bit": True}}, (), "cannot load this checkpoint: .*bitsandbytes"),
    "compressed": (
        {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {}}},
        (),
        "cannot load this checkpoint: .*compressed.tensors",
    ),
    "exl2": (
        {"quantization_config": {"quant_method": "exl2", "bits": 4.0}},
        (f"{LAYER}.q_weight", f"{LAYER}.q_scale"),
        r"is quantized \(exl2\), and transformers does not read 2 of its tensors",
    ),
    "exl3": (
        {"quantization_config": {"quant_method": "exl3"}},
        (f"{LAYER}.trellis", f"{LAYER}.suh"),
        r"is quantized \(exl3\), and transformers does not read 1 of its tensors",
    ),
    "modelopt": (
        {"quantization_config": {"quant_method": "modelopt"}},
        (f"{LAYER}.weight_scale",),
        r"is quantized \(modelopt\), and transformers does not read 1 of its tensors",
    ),
    "mlx": (
        {"quantization": {"bits": 4}, "quantization_config": {"bits": 4}},
        (f"{LAYER}.scales", f"{LAYER}.biases"),
        r"is quantized \(config.json names no quant_method\), .* 1 of its tensors",
    ),
    "old mlx": (
        {"quantization": {"group_size": 64, "bits": 4}},
        (f"{LAYER}.scales", f"{LAYER}.biases"),
        r"is quantized \(config.json names no quant_method\), .* 1 of its tensors",
    ),
    "nameless": ({"quantization_config": {"bits": 4}}, (), "cannot load this checkpoint: .*quant_method"),
    "unknown": ({"model_type": "no_such_type"}, (), "cannot load this checkpoint: .*no_such_type"),
}


def told(path: Path) -> list[str]:
    spec = find_model(path, {})
    assert spec is not None
    return [problem.what for problem in check_model(spec) if problem.level == "error"]


def copied(checkpoint: Path, place: Path, more: Mapping[str, Any], tensors: tuple[str, ...] = ()) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | more))
    if tensors:
        weights = load_file(place / "model.safetensors")
        some = weights.pop(f"{LAYER}.weight")
        weights |= {name: some.clone() for name in tensors}
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    return place


@pytest.mark.parametrize("kind", REFUSED)
def test_check_and_load_say_the_same_of_what_cannot_be_loaded(
    kind: str, checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    more, tensors, says = REFUSED[kind]
    place = copied(checkpoint, tmp_path / "it", more, tensors)
    with pytest.raises(ConfigError, match=says) as refused:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("left", ["", "tokenizer_config.json"])
def test_a_checkpoint_without_a_tokenizer_is_told_before_its_load(
    left: str, checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    place = copied(checkpoint, tmp_path / "it", {})
    for file in place.glob("*token*"):
        if file.name != left:
            file.unlink()
    with pytest.raises(ConfigError, match="cannot load this checkpoint: it has no tokenizer") as refused:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]


def forget_words(place: Path) -> None:
    tokenizer = json.loads((place / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {}
    (place / "tokenizer.json").write_text(json.dumps(tokenizer))


def linked_to_nothing(place: Path) -> None:
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").symlink_to("gone")


def cut(place: Path) -> None:
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


BROKEN: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "no words": (
        forget_words,
        r"its tokenizer \(tokenizer\.json\) has no vocabulary, so all texts would be the same",
    ),
    "half a tokenizer": (
        lambda place: (place / "tokenizer.json").write_text("{"),
        r"its tokenizer \(tokenizer\.json\) cannot be read",
    ),
    "half of the settings of its tokenizer": (
        lambda place: (place / "tokenizer_config.json").write_text("{"),
        r"tokenizer_config\.json cannot be read \(.*\): get it again",
    ),
    "half of the settings of its answers": (
        lambda place: (place / "generation_config.json").write_text("{"),
        r"generation_config\.json cannot be read \(.*\): get it again",
    ),
    "Mistral's own format": (
        lambda place: (place / "model.safetensors").rename(place / "consolidated.safetensors"),
        r"its weights are only in Mistral's own format \(consolidated\.safetensors\): get model\.safetensors",
    ),
    "cut": (cut, r"model\.safetensors has \d+,\d+ bytes of \d+,\d+: it is incomplete"),
    "empty": (lambda place: (place / "model.safetensors").write_bytes(b""), r"model\.safetensors is empty"),
    "no tensors": (lambda place: (place / "model.safetensors").write_bytes(bytes(9)), r"model\.safetensors is damaged"),
    "a link to nothing": (
        linked_to_nothing,
        r"model\.safetensors is a link to gone, which does not exist: get it again",
    ),
    "another name": (
        lambda place: (place / "model.safetensors").rename(place / "weights.safetensors"),
        r"its weights are called weights\.safetensors, but model\.safetensors is expected: rename the file",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_check_and_load_say_the_same_of_files_that_are_not_whole(
    kind: str, checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    breaks, says = BROKEN[kind]
    place = copied(checkpoint, tmp_path / "it", {})
    breaks(place)
    with pytest.raises(ConfigError, match=f"cannot load this checkpoint: {says}") as refused:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]
    assert "\n" not in str(refused.value)


def test_a_kind_whose_attention_is_its_own_is_told_before_its_load(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., int], tmp_path: Path, serve: Callable[..., Any]
) -> None:
    make_model(tmp_path, "falcon", make_tokenizer(tmp_path), new_decoder_architecture=False)
    with pytest.raises(ConfigError, match="FalconForCausalLM cannot be batched here: its attention") as refused:
        serve(tmp_path)
    assert [f"{tmp_path}: {line}" for line in told(tmp_path)] == [str(refused.value)]


def test_weights_of_another_size_than_config_json_says_are_a_sentence(
    checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    place = copied(checkpoint, tmp_path / "it", {"intermediate_size": 256})
    with pytest.raises(ConfigError, match=r"its weights have other sizes than config\.json says"):
        serve(place)


def test_an_architecture_that_is_code_is_not_run_and_says_what_to_do(
    checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    more = {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine"}}
    place = copied(checkpoint, tmp_path / "it", more)
    (what,) = told(place)
    assert "its architecture is code that comes with it (auto_map in config.json)" in what
    with pytest.raises(ConfigError, match=r"write a model\.py whose class loads it"):
        serve(place)


def test_scales_that_config_json_does_not_speak_of_are_told(checkpoint: Path, tmp_path: Path) -> None:
    (what,) = told(copied(checkpoint, tmp_path / "it", {}, (f"{LAYER}.weight", f"{LAYER}.weight_scale")))
    assert "is quantized, and transformers does not read 1 of its tensors" in what


def test_a_quantizer_that_needs_a_gpu_is_a_sentence_and_no_traceback(
    checkpoint: Path, tmp_path: Path, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.quantizers import auto

    def refuse(*given: Any) -> None:
        raise RuntimeError("GPU is required to run this model")

    monkeypatch.setattr(auto, "get_hf_quantizer", refuse)
    place = copied(checkpoint, tmp_path / "it", {"quantization_config": {"quant_method": "awq", "bits": 4}})
    with pytest.raises(ConfigError, match="cannot load this checkpoint: GPU is required"):
        serve(place)


def test_an_adapter_with_the_config_json_of_its_base_is_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    place = copied(checkpoint, tmp_path / "it", {})
    (place / "adapter_config.json").write_text("{}")
    (place / "adapter_model.safetensors").touch()
    spec = find_model(place, {})
    assert spec is not None
    assert any("adapter" in note and "not applied" in note for note in spec.notes)
    (place / "model.safetensors").unlink()
    assert find_model(place, {}) is None


def test_a_whole_checkpoint_is_told_nothing(checkpoint: Path) -> None:
    assert told(checkpoint) == []


def skops_file(place: Path) -> None:
    import skops.io
    from sklearn.dummy import DummyClassifier

    skops.io.dump(DummyClassifier().fit([[0], [1]], [0, 1]), place / "model.skops")


def adapter(place: Path) -> None:
    (place / "adapter_config.json").write_text('{"peft_type": "P_TUNING", "task_type": "CAUSAL_LM"}')
    (place / "adapter_model.safetensors").touch()


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        (skops_file, r"model\.skops is a model of scikit-learn: write framework: sklearn into config\.yaml"),
        (adapter, "a P_TUNING adapter, which learned prompts instead of weights, so it cannot be merged"),
    ],
)
def test_what_is_no_checkpoint_is_told_by_what_is_there(
    fill: Callable[[Path], None], says: str, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    fill(tmp_path)
    (tmp_path / "config.yaml").write_text("framework: transformers\n")
    with pytest.raises(ConfigError, match=says) as refused:
        serve(tmp_path)
    assert [f"{tmp_path}: {line}" for line in told(tmp_path)] == [str(refused.value)]
    spec = find_model(tmp_path, {})
    assert spec is not None
    assert not any("adapter beside" in note for note in spec.notes)


@pytest.mark.parametrize("name", ["model.safetensors", "gptq_model-4bit-128g.safetensors"])
@pytest.mark.parametrize("about", ["quantize_config.json", "quant_config.json"])
def test_what_was_quantized_before_config_json_said_so_has_that_as_its_reason(
    about: str, name: str, tmp_path: Path
) -> None:
    place = checkpoint(tmp_path / "m", name, f"{LAYER}.qweight")
    (place / about).write_text(json.dumps(GPTQ))
    (reason,) = told(place)
    assert f"it is quantized ({about}), but its config.json has no quantization_config" in reason
    assert "rename" not in reason


def checkpoint(place: Path, name: str, tensor: str) -> Path:
    """A language model with one small matrix."""
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    header = json.dumps({tensor: {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (place / name).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return place


@pytest.mark.parametrize("has_index", [True, False])
def test_two_saves_in_one_folder_are_told_with_the_one_that_is_served(has_index: bool, tmp_path: Path) -> None:
    place = checkpoint(tmp_path / "m", "model.safetensors", f"{LAYER}.weight")
    spec = find_model(place, {})
    assert spec is not None and spec.notes == ()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        shutil.copy(place / "model.safetensors", place / name)
    if has_index:
        index = {"weight_map": {f"{LAYER}.weight": names[0], "lm_head.weight": names[1]}}
        (place / "model.safetensors.index.json").write_text(json.dumps(index))
    spec = find_model(place, {})
    assert spec is not None
    (note,) = spec.notes
    assert "two saves in one folder: model.safetensors is served" in note
    assert f"the parts next to it ({names[0]} and 1 more" in note and "delete the older one" in note
    assert ("model.safetensors.index.json" in note) == has_index


def test_the_library_reads_the_whole_file_of_two_saves(tmp_path: Path) -> None:
    """What the warning says is what transformers does."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=1, num_key_value_heads=1))
    model.save_pretrained(tmp_path)
    whole = model.lm_head.weight.detach().clone()
    model.lm_head.weight.data.zero_()
    model.save_pretrained(tmp_path / "parts", max_shard_size="1KB")
    for file in (tmp_path / "parts").glob("model*"):
        shutil.copy(file, tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert LlamaForCausalLM.from_pretrained(tmp_path).lm_head.weight.equal(whole)
