"""Recognise adapters without their base: which library made them, and whether they can be merged.

Read from adapter_config.json, or from file names if that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from .files import Unserved, json_of
from .kinds import CLASS

PEFT = {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"}
MLX = {"adapters.safetensors", "adapters.npz"}
MLX_KEYS = {"fine_tune_type", "lora_parameters", "lora_layers"}
HUB = {"pytorch_adapter.bin", "adapter.safetensors"}  # of AdapterHub's library adapters
# Kinds of peft adapters that add prompts to the input, and kinds computed per input: neither changes weights.
PROMPTS = frozenset("PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING CPT CARTRIDGE".split())
APART = frozenset("ADAPTION_PROMPT POLY XLORA LILY SHADOW".split())
APART_KEYS = ("alora_invocation_tokens", "layer_replication")  # in a LoRA
# The method that a class with the base and its adapter would have, by task; a merged model has the same head.
METHODS: Mapping[str | None, str] = {
    "CAUSAL_LM": "chat_completions",
    "SEQ_CLS": "classify or rerank, see docs/rerank.md",
    "FEATURE_EXTRACTION": "embeddings",
}
SERVED = (None, "CAUSAL_LM", "FEATURE_EXTRACTION")  # tasks whose merged model may be served without a class


def adapter(path: Path, names: frozenset[str]) -> Unserved | None:
    # the merged model is often kept in a directory below
    return replace(_adapter(path, names), is_whole=False) if names & (PEFT | MLX) else None


def _adapter(path: Path, names: frozenset[str]) -> Unserved:
    about = json_of(path / "adapter_config.json")
    if "peft_type" not in about and (MLX_KEYS & about.keys() or names & MLX):
        return _of_mlx(path, about)
    if "peft_type" not in about and ("model_class" in about or names & HUB):
        what = f"an adapter of the library adapters{_base(about.get('model_name'))}, not a whole model"
        return Unserved(what, f"{CLASS} and its base with adapters")
    kind, task = (None if (said := about.get(key)) is None else str(said) for key in ("peft_type", "task_type"))
    what = f"{'an' if kind is None else f'a {kind}'} adapter{_base(about.get('base_model_name_or_path'))}"
    around = f"{CLASS} and its base with peft"
    if kind in PROMPTS or kind in APART or any(about.get(key) for key in APART_KEYS):
        why = "which learned prompts instead of weights" if kind in PROMPTS else "which is computed for each input"
        fix = f"{around} (PeftModel.from_pretrained), and has a method {METHODS.get(task, 'predict')}"
        return Unserved(f"{what}, {why}, so it cannot be merged", fix)
    if kind is None and "adapter_config.json" not in names:
        fix = "get its adapter_config.json, which names its base; then check again"
        return Unserved(f"{what} without its adapter_config.json, not a whole model", fix)
    if task not in SERVED:
        return Unserved(
            f"{what} for {task}, not a whole model", f"{around}, and has a method {METHODS.get(task, 'predict')}"
        )
    merge = "merge it into its base (peft: merge_and_unload, then save_pretrained)"
    return Unserved(f"{what}, not a whole model", f"{merge}, or {CLASS} with the base")


def _of_mlx(path: Path, about: Mapping[str, Any]) -> Unserved:
    base = about.get("model")
    given = quote(base) if isinstance(base, str) and base else "BASE"
    kind = about.get("fine_tune_type")
    fuse = f"mlx_lm.fuse --model {given} --adapter-path {quote(str(path))} --dequantize --save-path FOLDER"
    what = f"an adapter of mlx-lm{f' ({kind})' if kind else ''}{_base(base)}, not a whole model"
    return Unserved(what, f"fuse it with its base: {fuse} writes a folder that is served")


def _base(name: object) -> str:
    return f" of {name}" if name else ""
