"""A checkpoint does not become a language model by its config.yaml: `gateway check` and the load say what it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_checkpoints import library
from gateway_transformers import check_model, find_model
from gateway_transformers.architectures import _reason, say_no_language_model

from gateway import ConfigError
from gateway.directories.unserved.architectures import OLDER, describe_architecture

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 256,
}
SMALL_BART = {
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 64),
}
SMALL_T5 = {"d_model": 64, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 16}


def told(path: Path) -> list[str]:
    spec = find_model(path, {})
    assert spec is not None
    return [problem.what for problem in check_model(spec) if problem.level == "error"]


@pytest.fixture
def make(make_tokenizer: Callable[..., int], tmp_path: Path) -> Callable[..., Path]:
    """A random model of a kind, as the library saves it for a task, with a config.yaml that names the plugin."""

    def of(task: str, kind: str, **settings: Any) -> Path:
        import torch
        import transformers

        size = make_tokenizer(tmp_path)
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, vocab_size=size, **{**SIZES, **settings})
        getattr(transformers, task).from_config(config).save_pretrained(tmp_path)
        (tmp_path / "config.yaml").write_text("framework: transformers\n")
        return tmp_path

    return of


def change(place: Path, **more: Any) -> None:
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | more))


@pytest.mark.parametrize(
    ("task", "kind", "settings", "says"),
    [
        ("AutoModelForMaskedLM", "bert", {}, r"BertForMaskedLM, a model that fills gaps.*sentence-transformers"),
        ("AutoModelForMaskedLM", "roberta", {"num_hidden_layers": 1}, "RobertaForMaskedLM, a model that fills gaps"),
        ("AutoModelForPreTraining", "bert", {}, "BertForPreTraining, a model to be trained further"),
        ("AutoModel", "bert", {}, r"BertModel, .*without a head.*modules\.json"),
        ("AutoModel", "qwen2", {"tie_word_embeddings": True}, "Qwen2Model, .*without a head"),
        ("AutoModelForSequenceClassification", "qwen2", {"tie_word_embeddings": True}, "a classifier of texts.*rerank"),
        ("AutoModelForTokenClassification", "qwen2", {"tie_word_embeddings": True}, "a classifier of words"),
        ("AutoModelForQuestionAnswering", "qwen2", {"tie_word_embeddings": True}, "a finder of answers"),
        ("AutoModelForSeq2SeqLM", "bart", SMALL_BART, "BartForConditionalGeneration, .*an encoder and a decoder"),
        ("AutoModelForSeq2SeqLM", "t5", SMALL_T5, "T5ForConditionalGeneration, .*an encoder and a decoder"),
    ],
)
def test_what_is_no_language_model_is_called_by_its_name_and_not_served(
    task: str,
    kind: str,
    settings: dict[str, Any],
    says: str,
    make: Callable[..., Path],
    serve: Callable[..., Any],
) -> None:
    place = make(task, kind, **settings)
    with pytest.raises(ConfigError, match=says) as refused:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]


def test_an_encoder_that_was_never_made_a_decoder_does_not_write(
    make: Callable[..., Path], serve: Callable[..., Any]
) -> None:
    place = make("AutoModelForCausalLM", "bert", is_decoder=False)
    with pytest.raises(ConfigError, match="BertLMHeadModel is an encoder, whose tokens attend to later ones") as no:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(no.value)]


def test_half_of_an_encoder_and_a_decoder_does_not_write(make: Callable[..., Path], serve: Callable[..., Any]) -> None:
    place = make("AutoModelForSeq2SeqLM", "bart", **SMALL_BART)
    change(place, architectures=None)
    with pytest.raises(ConfigError, match="is_encoder_decoder") as refused:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]


def test_of_the_older_names_those_are_told_to_be_served_that_the_engine_takes() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as MAPPED

    kinds = {name: kind for kind, name in MAPPED.items() if str(name).endswith(OLDER) and library.has_module(kind)}
    configs = [{"architectures": [name], "model_type": kind} for name, kind in kinds.items()]
    told = {config["model_type"]: describe_architecture(config) for config in configs}
    takes = {config["model_type"]: _reason(library.code_of(config), config) is None for config in configs}
    assert {kind: found is not None and found.writes for kind, found in told.items()} == takes
    assert set(takes.values()) == {True, False}


@pytest.mark.parametrize(
    ("kind", "settings", "architectures"),
    [
        ("bert", {"is_decoder": True}, ["BertLMHeadModel"]),
        ("gpt2", {}, ["GPT2LMHeadModel"]),
        ("llama", {}, None),
        ("llama", {}, ["LLaMAForCausalLM"]),
        ("llama", {}, ["OfAnotherForCausalLM"]),
        ("bert-generation", {"is_decoder": True}, ["BertGenerationDecoder"]),
    ],
)
def test_a_language_model_by_whatever_name_is_served(
    kind: str,
    settings: dict[str, Any],
    architectures: list[str] | None,
    make: Callable[..., Path],
    serve: Callable[..., Any],
) -> None:
    place = make("AutoModelForCausalLM", kind, **settings)
    change(place, architectures=architectures)
    assert told(place) == []
    assert serve(place).is_healthy()


# ── kinds that our cache cannot serve ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        ("gemma2", {"head_dim": 16}, "its attention uses softcap"),
        ("vaultgemma", {"head_dim": 16}, "its attention uses softcap"),
        ("gpt_oss", {"head_dim": 16, "num_local_experts": 4}, "its attention uses s_aux"),
        ("stablelm", {}, "its layers do not pass the arguments that our cache needs"),
        ("nemotron", {}, "its layers do not pass the arguments that our cache needs"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, r"layers with a state of their own \(conv\)"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "its attention does not pass through our cache"),
        ("doge", {}, "a mask that it computes itself"),
        ("diffllama", {}, "its answers change with our cache"),
        ("bart", SMALL_BART, "its answers change with our cache"),
        ("pegasus", SMALL_BART, "its answers change with our cache"),
        ("mbart", SMALL_BART, "its answers change with our cache"),
        ("blenderbot-small", SMALL_BART, "its answers change with our cache"),
    ],
)
def test_a_kind_that_cannot_be_batched_is_told_before_its_load(
    kind: str, settings: dict[str, Any], says: str, make: Callable[..., Path], serve: Callable[..., Any]
) -> None:
    place = make("AutoModelForCausalLM", kind, **settings)
    with pytest.raises(ConfigError, match=f"cannot be batched here: .*{says}") as refused:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gemma2", {"head_dim": 16, "attn_logit_softcapping": None}),
        ("gemma", {"head_dim": 16}),
        ("phi", {}),
        ("gpt_neox", {}),
        ("olmo2", {}),
    ],
)
def test_check_is_silent_of_a_kind_that_is_served(
    kind: str, settings: dict[str, Any], make: Callable[..., Path], serve: Callable[..., Any]
) -> None:
    place = make("AutoModelForCausalLM", kind, **settings)
    assert told(place) == []
    assert serve(place).is_healthy()


# ── tensors by the names of a base model ─────────────────────────────────────────────────────────────────────────────


def without_prefix(place: Path, prefix: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(place / "model.safetensors")
    bare = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
    save_file(bare, place / "model.safetensors", metadata={"format": "pt"})


def test_half_of_a_model_of_speech_is_none_of_words(tmp_path: Path) -> None:
    config = {"architectures": ["WhisperForCausalLM"], "model_type": "whisper"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="WhisperForCausalLM, the half of a model of speech that writes"):
        say_no_language_model(tmp_path)


def test_the_tensors_of_a_base_model_are_named_by_one_of_them(make: Callable[..., Path]) -> None:
    """As safetensors has a name of its own in the same table, which is that of no tensor."""
    place = make("AutoModelForCausalLM", "llama")
    without_prefix(place, "model.")
    (line,) = told(place)
    assert "its tensors (embed_tokens.weight and others)" in line


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_base_model_that_calls_itself_a_language_model_is_not_served(
    is_tied: bool, kind: str, make: Callable[..., Path], serve: Callable[..., Any]
) -> None:
    place = make("AutoModelForCausalLM", kind, tie_word_embeddings=is_tied)
    (place / "config.yaml").unlink()
    without_prefix(place, "model.")
    with pytest.raises(ConfigError, match=r"those of a base model.*without a head.*modules\.json") as refused:
        serve(place)
    assert [f"{place}: {line}" for line in told(place)] == [str(refused.value)]


def test_a_base_model_whose_modules_are_there_is_not_told_to_get_them(make: Callable[..., Path]) -> None:
    place = make("AutoModelForCausalLM", "qwen2")
    without_prefix(place, "model.")
    (place / "modules.json").write_text("[]")
    (line,) = told(place)
    assert line.endswith("for embeddings write framework: sentence-transformers into config.yaml")


def test_a_pickle_of_a_base_model_is_not_served(make: Callable[..., Path], serve: Callable[..., Any]) -> None:
    import torch
    from safetensors.torch import load_file

    place = make("AutoModelForCausalLM", "qwen2", tie_word_embeddings=True)
    without_prefix(place, "model.")
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="those of a base model"):
        serve(place)


def test_a_model_whose_head_is_the_matrix_of_its_words_is_served(
    make: Callable[..., Path], serve: Callable[..., Any]
) -> None:
    place = make("AutoModelForCausalLM", "qwen2", tie_word_embeddings=True)
    assert told(place) == []
    assert serve(place).is_healthy()


def test_the_old_language_models_without_a_prefix_are_served(
    make: Callable[..., Path], serve: Callable[..., Any]
) -> None:
    place = make("AutoModelForCausalLM", "gpt2")
    without_prefix(place, "transformer.")
    assert told(place) == []
    assert serve(place).is_healthy()


def test_weights_that_no_file_has_are_not_random_numbers(
    checkpoint: Path, tmp_path: Path, serve: Callable[..., Any]
) -> None:
    from safetensors.torch import load_file, save_file

    place = shutil.copytree(checkpoint, tmp_path / "it")
    tensors = load_file(place / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 of the tensors of a LlamaForCausalLM, lm_head\.weight"):
        serve(place)
