"""One-file parts of image pipelines are called what they are, and told what would serve them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.directories.unserved.unserved import find_unserved

# The tensors of one file each, as ComfyUI and others keep them, and how the line about it begins.
FILES = {
    "flux": (["double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"], "a diffusion model"),
    "flux with a prefix": (["model.diffusion_model.double_blocks.0.img_attn.proj.weight"], "a diffusion model"),
    "wan": (["blocks.0.cross_attn.k.weight", "patch_embedding.weight"], "a diffusion model"),
    "sd3": (["joint_blocks.0.context_block.attn.proj.weight"], "a diffusion model"),
    "unet": (["input_blocks.0.0.weight", "time_embed.0.weight"], "a diffusion model"),
    "unet of diffusers": (["down_blocks.0.attentions.0.proj_in.weight"], "a diffusion model"),
    "qwen-image": (["transformer_blocks.0.attn.add_k_proj.weight"], "a diffusion model"),
    "stable diffusion": (
        [
            "cond_stage_model.x",
            "first_stage_model.decoder.conv_in.weight",
            "model.diffusion_model.input_blocks.0.0.weight",
        ],
        "an image model in one file",
    ),
    "vae": (["decoder.conv_in.weight", "encoder.conv_in.weight"], "the VAE"),
    "vae of wan": (["conv1.weight", "decoder.middle.0.residual.0.gamma"], "the VAE"),
    "t5": (["encoder.block.0.layer.0.SelfAttention.k.weight", "shared.weight"], "a text encoder"),
    "clip": (["text_model.encoder.layers.0.mlp.fc1.weight"], "a text encoder"),
    "clip vision": (["vision_model.encoder.layers.0.mlp.fc1.weight"], "an encoder of images"),
    "controlnet": (["control_model.input_blocks.0.0.weight"], "a ControlNet"),
    "controlnet of diffusers": (["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.x"], "a ControlNet"),
    "t2i": (["adapter.body.0.weight"], "a T2I adapter"),
    "ip adapter": (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
    "embedding": (["emb_params"], "a textual inversion"),
    "embedding of sdxl": (["clip_g", "clip_l"], "a textual inversion"),
    "animatediff": (["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"], "a motion module"),
    "upscaler": (["model.1.sub.0.RDB1.conv1.0.weight"], "an upscaler"),
    "lora of flux": (
        ["diffusion_model.double_blocks.0.img_attn.proj.lora_A.weight"],
        "a LoRA adapter of an image model",
    ),
    "lora of kohya": (["lora_unet_down_blocks_0.lora_down.weight"], "a LoRA adapter of an image model"),
    "lycoris": (["lycoris_blocks_0.lokr_w1"], "a LoRA adapter of an image model"),
    "lora of texts": (["base_model.model.layers.0.q_proj.lora_A.weight"], "a LoRA adapter, not a whole model"),
    "a language model": (["model.layers.0.self_attn.q_proj.weight"], "weights without a config.json"),
    "anything": (["encoder.0.weight", "decoder.0.weight", "fc.bias"], "weights without a config.json"),
}


def safetensors(path: Path, names: list[str]) -> None:
    table = {
        name: {"dtype": "F16", "shape": [1], "data_offsets": [2 * at, 2 * at + 2]} for at, name in enumerate(names)
    }
    head = json.dumps(table).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(2 * len(names)))


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["some.safetensors", "some.sft"])
def test_a_file_is_known_by_the_names_of_its_tensors(kind: str, name: str, tmp_path: Path) -> None:
    tensors, says = FILES[kind]
    safetensors(tmp_path / name, tensors)
    found = find_unserved(tmp_path)
    assert found is not None and found.what.startswith(says)
    assert (found.fix == "get the other files of the checkpoint") is says.startswith("weights without")


@pytest.mark.parametrize(
    ("directory", "says"),
    [
        ("upscale_models", "an upscaler"),
        ("controlnet", "a ControlNet"),
        ("clip_vision", "an encoder of images"),
        ("diffusion_models", "a diffusion model"),
        ("text_encoders", "a text encoder"),
        ("loras", "a LoRA adapter of an image model"),
        ("vae_approx", "a small decoder"),
        ("hypernetworks", "a hypernetwork"),
        ("unet", "PyTorch weights"),  # which others call theirs too
    ],
)
def test_a_pickle_is_known_by_the_name_of_its_directory(directory: str, says: str, tmp_path: Path) -> None:
    (tmp_path / directory).mkdir()
    (tmp_path / directory / "some.pth").write_bytes(b"PK\x03\x04")
    found = find_unserved(tmp_path / directory)
    assert found is not None and found.what.startswith(says) and "(some.pth)" in found.what


def test_the_line_says_with_which_classes_a_part_is_served(tmp_path: Path) -> None:
    fixes = {}
    for kind in ("flux", "controlnet", "ip adapter", "embedding", "upscaler", "lora of flux"):
        safetensors(tmp_path / kind / "it.safetensors", FILES[kind][0])
        fixes[kind] = (find_unserved(tmp_path / kind) or pytest.fail(kind)).fix
    assert "from_single_file" in fixes["flux"] and "docs/images.md" in fixes["flux"]
    assert "ControlNetModel" in fixes["controlnet"]
    assert "load_ip_adapter" in fixes["ip adapter"]
    assert "load_textual_inversion" in fixes["embedding"]
    assert "spandrel" in fixes["upscaler"]
    assert "load_lora_weights" in fixes["lora of flux"]
