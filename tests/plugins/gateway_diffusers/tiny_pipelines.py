"""A tiny pipeline of Stable Diffusion with weights by a seed: real in all but what it paints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gateway_diffusers
import pytest
import torch
from gateway_diffusers.model import ImagePipeline

torch.set_num_threads(1)


def save(place: Path) -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    blocks = {"block_out_channels": (32, 64), "layers_per_block": 1}
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=8,
        **blocks,
    )
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        **blocks,
    )
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=16)
    for name in ("vocab.json", "merges.txt"):
        (place / name).unlink()
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    limits = {"max_position_embeddings": 16, "vocab_size": len(names), "bos_token_id": 0, "eos_token_id": 1}
    text = CLIPTextModel(CLIPTextConfig(**sizes, **limits, pad_token_id=1))
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
    )
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = StableDiffusionPipeline(vae, text, tokenizer, unet, scheduler, **parts)
    pipeline.save_pretrained(place)
    return place


class Request:
    """What the model asks of a request: whether its client has left, from which step on."""

    def __init__(self, leaves_after: int | None = None) -> None:
        self.state, self._left, self.asked = self, leaves_after, 0

    def watch_disconnect(self) -> Any:
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def is_set(self) -> bool:
        self.asked += 1
        return self._left is not None and self.asked >= self._left


def problems(place: Path) -> list[str]:
    try:
        spec = gateway_diffusers.find_model(place, {})
    except Exception as error:
        return [str(error)]
    assert spec is not None, f"{place} is not recognised"
    return [problem.what for problem in gateway_diffusers.check_model(spec)]


def loaded(place: Path, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> ImagePipeline:
    spec = gateway_diffusers.find_model(place, overrides)
    assert spec is not None, f"{place} is not recognised"
    monkeypatch.chdir(place)
    model = ImagePipeline(spec.config)
    model.load()
    return model
