from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.directories.discovery import discover
from gateway.directories.unserved.architectures import describe_architecture, peek_architecture
from gateway.plugins import Plugins

from .unserved_cases import WHOLE, architecture, make, told


@pytest.mark.parametrize(
    ("names", "objects", "says"),
    [
        (("pytorch_model.bin",), {"config": architecture("LlamaForCausalLM")}, "a pickle.*safetensors"),
        (("pytorch_model-00001-of-00002.bin",), {"config": architecture("LlamaForCausalLM")}, "a pickle"),
        (("tf_model.h5",), {"config": architecture("GPT2ForCausalLM")}, "TensorFlow"),
        (("flax_model.msgpack",), {"config": architecture("GPT2ForCausalLM")}, "Flax"),
        (("tokenizer.json",), {"config": architecture("LlamaForCausalLM")}, "without its weights"),
        (WHOLE, {"config": architecture("Gemma3ForConditionalGeneration")}, "a multimodal model"),
        (WHOLE, {"config": architecture("LlavaQwen", vision_config={})}, "a multimodal model"),
        (WHOLE, {"config": architecture("T5ForConditionalGeneration", is_encoder_decoder=True)}, "encoder and a dec"),
        (("pytorch_model.bin",), {"config": architecture("WhisperForConditionalGeneration")}, "a pickle.*safetensors"),
        (WHOLE, {"config": architecture("Speech2TextForSpeechSeq2Seq")}, "speech.*transcriptions"),
        (("pytorch_model.bin",), {"config": architecture("BertForSequenceClassification")}, "a pickle.*safetensors"),
        (("tf_model.h5",), {"config": architecture("BertForSequenceClassification")}, "not .* but those of TensorFlow"),
        (("tokenizer.json",), {"config": architecture("BertForSequenceClassification")}, "without its weights"),
        (WHOLE, {"config": architecture("LayoutLMForSequenceClassification", max_2d_position_embeddings=9)}, "pages"),
        (
            WHOLE,
            {"config": architecture("BertForTokenClassification", image_size=9)},
            "classifier of words with places",
        ),
        (WHOLE, {"config": architecture("LayoutLMForMaskedLM", max_2d_position_embeddings=9)}, "fills gaps"),
        (("pytorch_model.bin",), {"config": architecture("BertForMaskedLM")}, "a pickle.*safetensors"),
        (("tf_model.h5",), {"config": architecture("ViTForImageClassification")}, "not .* but those of TensorFlow"),
        (WHOLE, {"config": architecture("BertModel")}, "modules.json"),
        (WHOLE, {"config": architecture("BertModel")}, "framework: sentence-transformers"),
        (WHOLE, {"config": architecture("PatchTSTModel", prediction_length=24)}, "a network without a head"),
        (WHOLE, {"config": architecture("CLIPModel", vision_config={})}, "an encoder of images or sound.*embeddings"),
        (WHOLE, {"config": architecture("DreamModel")}, "a diffusion language model"),
        (WHOLE, {"config": architecture("LLaDAModelLM")}, "a diffusion language model"),
        (WHOLE, {"config": architecture("SDARForCausalLM")}, "a diffusion language model"),
        (WHOLE, {"config": architecture("Eagle3DraftModel")}, "a draft.*serve the model that it was made for"),
        (WHOLE, {"config": architecture("EagleModel")}, "a draft"),
        (WHOLE, {"config": architecture("LlamaForCausalLMEagle3")}, "a draft"),
        (WHOLE, {"config": architecture("MedusaModel")}, "a draft"),
        (WHOLE, {"config": architecture("LlamaForCausalLM", draft_vocab_size=9)}, "a draft"),
        *(
            (WHOLE, {"config": architecture(name)}, f"{name}, a draft model, which guesses tokens for a larger model")
            for name in ("MLPSpeculatorPreTrainedModel", "Eagle3Speculator", "PEagleDrafterModel", "DFlashDraftModel")
        ),
        *(
            (WHOLE, {"config": architecture(name)}, f"{name}, a draft model, which guesses tokens for a larger model")
            for name in ("LlamaEAGLEForCausalLM", "llama_eagle", "DeepSeekMTPModel", "Qwen3NextMTP", "GlmDrafter")
        ),
        (
            WHOLE,
            {"config": architecture("Gemma4AssistantForCausalLM", model_type="gemma4_assistant")},
            "Gemma4AssistantForCausalLM, a draft",
        ),
        (
            WHOLE,
            {"config": architecture("Eagle2_5_VLForConditionalGeneration", vision_config={})},
            "a multimodal model",
        ),
        (WHOLE, {"config": architecture("T5ForConditionalGeneration")}, "writes one text from another"),
        (WHOLE, {"config": architecture("MarianMTModel", is_encoder_decoder=True)}, "a translator"),
        (WHOLE, {"config": architecture("GPT2DoubleHeadsModel")}, "with a second head"),
        (WHOLE, {"config": architecture("GPT2LMHeadModel")}, "a language model.*framework: transformers"),
        (WHOLE, {"config": architecture("XLNetLMHeadModel")}, "no cache to share.*model.py.* chat_completions"),
        (("flax_model.msgpack",), {"config": architecture("GPT2LMHeadModel")}, "not .* but those of Flax"),
        (WHOLE, {"config": architecture("Strange")}, "Strange, an architecture that no plugin serves"),
        (WHOLE, {"config": {"architectures": "Strange"}}, "Strange"),
        (WHOLE, {"config": {"model_type": "llama"}}, "no architectures.*llama.*framework: transformers"),
        (WHOLE, {"config": {"architectures": []}}, "neither architectures nor a model_type.*the library"),
        (WHOLE, {"config": {}}, "neither architectures nor a model_type"),
        (WHOLE, {"config": "{"}, "config.json is not JSON"),
        (WHOLE, {"config": "[]"}, "does not contain a JSON object"),
        ((), {"modules": [], "config_sentence_transformers": {"model_type": "CrossEncoder"}}, "CrossEncoder.*rerank"),
        ((), {"modules": [], "config_sentence_transformers": {"model_type": "SparseEncoder"}}, "SparseEncoder"),
        (("tokenizer.json",), {"config": architecture("LlamaForCausalLM"), "x": {}}, "without its weights"),
        (
            ("tokenizer.json", ".cache/huggingface/download/model.safetensors.ab.incomplete"),
            {"config": architecture("LlamaForCausalLM")},
            "model.safetensors.ab.incomplete is not complete",
        ),
        (("tokenizer.json",), {"config": architecture("BertModel")}, "BertModel, without its weights"),
        (("tokenizer.json", "onnx/notes.txt"), {"config": architecture("BertModel")}, "without its weights"),
        (("model.ckpt",), {"config": architecture("BertModel")}, "an encoder, or a language model, without a head"),
        (("mmproj-x.gguf",), {"config": architecture("BertModel")}, "a projector"),
        (("model_state.pdparams",), {"config": architecture("LlamaForCausalLM")}, "those of Paddle"),
        (("model.onnx",), {"config": architecture("LlamaForCausalLM")}, "those of ONNX"),
        (("ctfidf_config.json", "topics.json", "ctfidf.safetensors"), {"config": {"top_n_words": 10}}, "BERTopic"),
        (WHOLE, {"config": architecture("VitsModel")}, "speaks.*docs/audio.md"),
        (WHOLE, {"config": architecture("BarkModel")}, "speaks.*docs/audio.md"),
        (WHOLE, {"config": architecture("Dinov2Model", image_size=518)}, "an encoder of images or sound"),
        (WHOLE, {"config": "\ufeff" + json.dumps(architecture("LlamaForCausalLM"))}, "is not JSON.*BOM"),
    ],
)
def test_a_checkpoint_that_nobody_serves_is_called_by_its_name(
    names: tuple[str, ...], objects: dict[str, Any], says: str, tmp_path: Path
) -> None:
    make(tmp_path / "it", *names, **objects)
    assert re.search(says, told(tmp_path / "it")), told(tmp_path / "it")
    (problem,) = [each for each in discover([tmp_path], Plugins.load()).problems if each.code == "unserved"]
    assert (problem.model, problem.level) == ("it", "warning")


@pytest.mark.parametrize(
    "name", ["BertForSequenceClassification", "OverdraftForSequenceClassification", "EagleForSequenceClassification"]
)
def test_a_classifier_of_texts_is_served_whatever_its_name(name: str, tmp_path: Path) -> None:
    found = describe_architecture(architecture(name))
    assert found is not None and found.judges and "classifiers" in found.fix
    make(tmp_path / "it", *WHOLE, config=architecture(name))
    (spec,) = discover([tmp_path], Plugins.load()).specs
    assert spec.format == "classifiers"


@pytest.mark.parametrize(
    ("config", "what", "target"),
    [
        (architecture("WavLMForSequenceClassification", conv_dim=[9]), "a classifier of sound", "sounds:Sounds"),
        (architecture("BertForTokenClassification"), "a classifier of words", "entities:Entities"),
        (architecture("BertForQuestionAnswering"), "a finder of answers in texts", "answers:Answers"),
        (architecture("BertForMaskedLM"), "a model that fills gaps in texts", "gaps:Gaps"),
        (architecture("ViTForImageClassification", image_size=9), "a classifier of images", "images:Images"),
        (
            architecture("WhisperForConditionalGeneration", num_mel_bins=80),
            "a model of speech",
            "checkpoint:Checkpoint",
        ),
    ],
)
def test_a_task_of_a_pipeline_is_served(config: dict[str, Any], what: str, target: str, tmp_path: Path) -> None:
    found = describe_architecture(config)
    plugin = "whisper" if what == "a model of speech" else "pipelines"
    assert found is not None and found.what == what and f"the plugin {plugin} serves it" in found.fix
    make(tmp_path / "it", *WHOLE, config=config)
    (spec,) = discover([tmp_path], Plugins.load()).specs
    assert (spec.format, spec.target) == (plugin, f"gateway_{plugin}.{target}")


def test_a_cross_encoder_is_a_classifier_of_pairs(tmp_path: Path) -> None:
    make(tmp_path / "it", "model.safetensors", config=architecture("BertForSequenceClassification", num_labels=1))
    make(tmp_path / "it", modules=[], config_sentence_transformers={"model_type": "CrossEncoder"})
    (spec,) = discover([tmp_path], Plugins.load()).specs
    assert (spec.format, spec.target.rpartition(":")[2]) == ("classifiers", "CrossEncoder")
    assert "the plugin classifiers serves it" in str(peek_architecture(tmp_path / "it"))


def test_the_checkpoints_of_a_training_are_models(tmp_path: Path) -> None:
    make(tmp_path / "run", "tokenizer.json", config=architecture("LlamaForCausalLM"))
    for name in ("checkpoint-1", "checkpoint-2"):
        make(tmp_path / "run" / name, *WHOLE, config=architecture("LlamaForCausalLM"))
    found = discover([tmp_path], Plugins.load())
    assert [spec.name for spec in found.specs] == ["run/checkpoint-1", "run/checkpoint-2"]
    assert found.problems == ()


def test_a_truss_without_a_class_says_what_its_weights_are(tmp_path: Path) -> None:
    make(tmp_path / "it", *WHOLE, config=architecture("BertModel"))
    (tmp_path / "it" / "config.yaml").write_text("model_name: It\n")
    (problem,) = discover([tmp_path], Plugins.load()).problems
    assert "No module class file found" in problem.what
    assert "its weights are BertModel" in problem.what


@pytest.mark.parametrize("name", ["DraftingForCausalLM", "EagletForCausalLM", "AssistantForCausalLM"])
def test_a_word_that_only_begins_like_draft_makes_none(name: str) -> None:
    found = describe_architecture({"architectures": [name]})
    assert found is not None
    assert found.writes


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "model2vec", "architectures": ["StaticModel"], "apply_pca": 256, "apply_zipf": True},
        {"tokenizer_name": "a/b", "apply_pca": 256, "apply_zipf": True, "hidden_dim": 256, "normalize": True},
        {"normalize": True, "max_length": 512, "embedding_dtype": "float32"},
    ],
)
def test_a_table_of_model2vec_is_told_what_makes_it_a_model_of_sentence_transformers(
    config: dict[str, Any], tmp_path: Path
) -> None:
    line = told(make(tmp_path, "model.safetensors", "tokenizer.json", config=config))
    assert "(model2vec) without modules.json (get its modules.json, or save it again with model2vec" in line


def test_a_colbert_of_pylate_is_told_with_its_library(tmp_path: Path) -> None:
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    place = make(tmp_path / "it", *WHOLE, config=architecture("BertModel"), modules=modules)
    found = discover([tmp_path], Plugins.load())
    assert found.specs == ()
    (problem,) = found.problems
    assert "many vectors of a text" in problem.what and "with pylate and has a method rerank" in problem.fix
    assert told(place).startswith("a ColBERT, ")
