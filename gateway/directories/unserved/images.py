"""Recognise single-file parts of image and video pipelines, as ComfyUI keeps them, by tensor and directory names.

Such a file has no config.json, and there are no other files of a checkpoint to get.
"""

from __future__ import annotations

from pathlib import Path

from .files import Unserved, first, listed, suffix
from .kinds import CLASS, IMAGES, MERGE, Kind, predicts

BY_NAMES = "by the names of its tensors"
BASE = f"{CLASS} with diffusers: its base, and this by"
METHOD = "it has a method images, see docs/images.md"
PIPELINE = f"it belongs into a whole pipeline: {IMAGES}"
DRAWS = f"{CLASS} with diffusers: from_single_file, with the missing text encoders and VAE; {METHOD}"
UPSCALES = predicts("spandrel")
CONTROLS = f"{BASE} ControlNetModel.from_single_file; {METHOD}"

LORA = "a LoRA adapter, not a whole model"
IMAGE_LORA = ("a LoRA adapter of an image model, not a whole model", f"{BASE} load_lora_weights; {METHOD}")

# The first matching row is used: a ControlNet has tensors with the names of the model that it controls.
LORAS = (
    Kind(
        "*.safetensors *.sft",
        *IMAGE_LORA,
        rb'"(lora_(unet|te|te1|te2|transformer)_|lycoris_|ss_network_module")|\.(lokr_w1|hada_w1_a|oft_blocks)"'
        rb'|"(diffusion_model|transformer|unet|text_encoder)\.[^"]{1,200}\.lora',
    ),
    Kind("*.safetensors *.sft", LORA, MERGE, rb"\.lora_(A|down)\."),
    Kind("pytorch_lora_weights.safetensors *lora*.safetensors", LORA, MERGE),
)
PARTS = tuple(
    Kind("*.safetensors *.sft", f"{what}, {BY_NAMES}", fix, holds)
    for what, fix, holds in (
        (
            "an image model in one file, as Stable Diffusion is handed on",
            f"{CLASS} with diffusers (from_single_file) and has a method images, see docs/images.md",
            rb'"(first_stage_model|cond_stage_model|conditioner|text_encoders|vae)\.',
        ),
        ("a ControlNet, which steers an image model", CONTROLS, rb'"(control_model|controlnet_\w{1,30}|zero_convs)\.'),
        ("a T2I adapter, which steers an image model", f"{BASE} T2IAdapter; {METHOD}", rb'"adapter\.body\.'),
        ("an IP-Adapter, which steers an image model", f"{BASE} load_ip_adapter; {METHOD}", rb'"ip_adapter\.'),
        (
            "a textual inversion, words for an image model",
            f"{BASE} load_textual_inversion; {METHOD}",
            rb'"(emb_params|string_to_param|clip_[gl])"\s*:',
        ),
        ("a motion module of AnimateDiff", f"{BASE} MotionAdapter; {METHOD}", rb"\.motion_modules\."),
        (
            "an encoder of images (CLIP vision)",
            PIPELINE,
            rb'"(vision_model|visual)\.(encoder|transformer|embeddings)\.',
        ),
        (
            "a text encoder of an image pipeline",
            PIPELINE,
            rb'"(text_model\.(encoder|embeddings)|transformer\.resblocks|encoder\.block\.\d{1,3}\.layer)\.',
        ),
        (
            "the VAE of an image pipeline",
            PIPELINE,
            rb'"(encoder|decoder)\.(conv_in|mid|mid_block|middle|up|down|up_blocks|down_blocks|upsamples|downsamples)\.',
        ),
        ("an upscaler of images", UPSCALES, rb'"(model\.1\.sub|body\.\d{1,3}\.rdb1|RRDB_trunk|conv_first|upconv1)\.'),
        (
            "a diffusion model of images or videos without the rest of its pipeline",
            DRAWS,
            rb'"((model\.)?diffusion_model\.|net\.)?(double_blocks|single_blocks|joint_blocks|double_stream_blocks|'
            rb"input_blocks|output_blocks|double_layers|single_layers|transformer_blocks|single_transformer_blocks|"
            rb"down_blocks|up_blocks|noise_refiner|context_refiner|patchify_proj|patch_embedding|time_text_embed|"
            rb"time_embedding|time_embed|adaln_single|img_in|txt_in|x_embedder|t_embedder)\.",
        ),
    )
)
# What a file is by its directory's name, if a pickle reveals nothing: names with only one meaning.
PLACES = {
    "clip_vision": ("an encoder of images (CLIP vision)", PIPELINE),
    "controlnet": ("a ControlNet, which steers an image model", CONTROLS),
    "diffusion_models": ("a diffusion model of images or videos without the rest of its pipeline", DRAWS),
    "hypernetworks": ("a hypernetwork of an image model", f"no library here reads it; {IMAGES}"),
    "loras": IMAGE_LORA,
    "text_encoders": ("a text encoder of an image pipeline", PIPELINE),
    "upscale_models": ("an upscaler of images", UPSCALES),
    "vae_approx": ("a small decoder for previews of an image pipeline", PIPELINE),
}
FILES = frozenset("safetensors sft pt pth ckpt bin".split())


def image_parts(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise a part of a pipeline in one file. A directory with a config.json describes itself."""
    if "config.json" in names:
        return None
    if known := first((*LORAS, *PARTS), path, names, is_sure=False):
        return known
    files = [name for name in sorted(names) if suffix(name) in FILES]
    if not files or path.name not in PLACES:
        return None
    what, fix = PLACES[path.name]
    return listed(Kind("", f"{what}, by the name of its directory", fix), files, is_sure=False)
