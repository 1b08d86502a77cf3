"""Which checkpoints are language models for a chat, and what is said of those that are more or less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateway_transformers.directories import say_incomplete

from gateway import ConfigError
from gateway.directories.discovery import Discovery, discover
from gateway.directories.unserved.architectures import KNOWN
from gateway.plugins import Plugins


def look(root: Path, architecture: str, **config: Any) -> Discovery:
    place = root / "m"
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps({"architectures": [architecture], **config}))
    (place / "model.safetensors").touch()
    return discover([root], Plugins.load())


@pytest.mark.parametrize("architecture", [ending for ending, _, _ in KNOWN if ending.endswith("ForCausalLM")])
def test_half_of_a_model_of_images_or_sound_holds_no_chat(architecture: str, tmp_path: Path) -> None:
    found = look(tmp_path, architecture)
    assert found.specs == ()
    (problem,) = found.problems
    assert problem.what.startswith(f"{architecture}, ") and "weights" not in problem.what


@pytest.mark.parametrize("key", ["vision_config", "audio_config", "image_token_id", "img_processor"])
def test_a_language_model_that_reads_more_than_texts_says_that_these_alone_are_served(key: str, tmp_path: Path) -> None:
    (spec,) = look(tmp_path, "SomeForCausalLM", **{key: {}}).specs
    (note,) = spec.notes
    assert key in note and "only text is served" in note


@pytest.mark.parametrize(
    "architecture", ["LlavaForConditionalGeneration", "Qwen2VLForConditionalGeneration", "ViTForImageClassification"]
)
def test_what_is_not_served_has_no_note_of_what_would_be(architecture: str, tmp_path: Path) -> None:
    framework(tmp_path)
    (spec,) = look(tmp_path, architecture, vision_config={}, patch_size=8).specs
    assert spec.notes == ()


def test_a_projector_alone_is_told_once(tmp_path: Path) -> None:
    place = framework(tmp_path)
    (place / "mmproj-m.gguf").write_bytes(b"GGUF")
    found = discover([tmp_path], Plugins.load())
    assert [spec.asides for spec in found.specs] == [()]


def framework(root: Path) -> Path:
    (root / "m").mkdir(exist_ok=True)
    (root / "m/config.yaml").write_text("framework: transformers\n")
    return root / "m"


def test_so_does_one_whose_kind_alone_tells_it(tmp_path: Path) -> None:
    (spec,) = look(tmp_path, "FuyuForCausalLM", model_type="fuyu").specs
    (note,) = spec.notes
    assert note == "its config.json has model_type fuyu: it also reads images or sound, but only text is served"


def test_a_language_model_of_texts_has_no_note(tmp_path: Path) -> None:
    (spec,) = look(tmp_path, "LlamaForCausalLM", model_type="llama").specs
    assert spec.notes == ()


def test_an_index_of_a_variant_is_told_to_be_misnamed(tmp_path: Path) -> None:
    for name in ("model.fp16-00001-of-00002", "model.fp16-00002-of-00002"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "model.safetensors.index.fp16.json").write_text("{}")
    with pytest.raises(ConfigError) as caught:
        say_incomplete(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: model.safetensors.index.json is missing: rename model.safetensors.index.fp16.json to it"
    )
