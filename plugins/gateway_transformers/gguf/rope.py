"""Convert the rotary embedding's scaling of a GGUF file to transformers' config.

transformers ignores the scaling of such files silently. Scaling that cannot be expressed is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gateway_language.gguf.header import Header

from gateway import ConfigError

FREQUENCIES = "rope_freqs.weight"  # a factor for each frequency: Llama 3.1 and related models
LOST = frozenset(("rope_freqs", "rope_factors_long", "rope_factors_short"))  # tensors that transformers ignores
LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
NEUTRAL = ("type", "factor", "original_context_length", "finetuned")  # supported keys


def rope_parameters(header: Header, width: int, factors: Sequence[float] | None) -> dict[str, Any]:
    """Return the rotary embedding's parameters for heads of `width`; `factors` come from the file's tensor, if any."""
    name, metadata = header.architecture, header.metadata
    theta = metadata.get(f"{name}.rope.freq_base", 10000.0)
    if (turned := metadata.get(f"{name}.rope.dimension_count", width)) != width:
        raise ConfigError(f"it rotates {turned} of the {width} dimensions of a head, which is not supported here")
    scaling = _scaling(header)
    kind, factor = scaling.get("type", "none"), scaling.get("factor", 1.0)
    if odd := sorted(set(scaling) - set(NEUTRAL)):
        raise ConfigError(f"it sets {name}.rope.scaling.{odd[0]}, which is not supported here")
    if factors is not None:
        if kind != "none" and factor != 1.0:
            raise ConfigError(f"it scales its rotary embedding twice, by {FREQUENCIES} and {name}.rope.scaling.type")
        return _llama_3(theta, width, factors)
    if kind == "none" or factor in (0.0, 1.0):
        return {"rope_type": "default", "rope_theta": theta}
    if kind not in ("linear", "yarn"):
        raise ConfigError(f"it scales its rotary embedding by {kind!r} ({name}.rope.scaling.type), not supported here")
    more = {}
    if kind == "yarn":
        length = scaling.get("original_context_length") or metadata[f"{name}.context_length"]
        more = {"original_max_position_embeddings": length}
    return {"rope_type": kind, "rope_theta": theta, "factor": factor, **more}


def _llama_3(theta: float, width: int, factors: Sequence[float]) -> dict[str, Any]:
    """Return the rule from which these factors were computed: a config can only contain the rule."""
    if all(factor == 1.0 for factor in factors):
        return {"rope_type": "default", "rope_theta": theta}
    scaled = {"rope_type": "llama3", "rope_theta": theta, "factor": float(round(max(factors), 4)), **LLAMA_3}
    expected = [_llama_3_factor(2 * math.pi * theta ** (2 * at / width), scaled) for at in range(width // 2)]
    if len(factors) != len(expected) or any(
        not math.isclose(found, wanted, rel_tol=1e-3) for found, wanted in zip(factors, expected, strict=True)
    ):
        raise ConfigError(f"its {FREQUENCIES} are not those of Llama 3.1's rule, and a config cannot express them")
    return scaled


def _llama_3_factor(wavelength: float, rule: Mapping[str, Any]) -> float:
    """Return the factor for a wavelength: full for long ones, none for short ones, interpolated in between."""
    length, low, high = (
        float(rule[name]) for name in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    factor = float(rule["factor"])
    if wavelength < length / high:
        return 1.0
    if wavelength > length / low:
        return factor
    smooth = (length / wavelength - low) / (high - low)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def _scaling(header: Header) -> dict[str, Any]:
    start = f"{header.architecture}.rope.scaling."
    return {key.removeprefix(start): value for key, value in header.metadata.items() if key.startswith(start)}


def say_lost(header: Header) -> None:
    """Raise `ConfigError` for scaling that transformers ignores silently when it reads the file."""
    lost = next((info.name for info in header.tensors if not LOST.isdisjoint(info.name.split("."))), None)
    scaling = _scaling(header)
    if header.architecture != "gpt-oss" and scaling.get("type", "none") != "none" and scaling.get("factor") != 1.0:
        lost = f"{header.architecture}.rope.scaling.type = {scaling['type']}"
    if lost:
        what = f"transformers reads it without the scaling of its rotary embedding ({lost}), and answers would be wrong"
        raise ConfigError(f"{what}: get the model as *.safetensors")


def say_changed(header: Header, config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the config that transformers made of the file contradicts the file.

    For some architectures it ignores keys and uses its defaults, such as the base of StarCoder 2's rotary embedding.
    """
    name, metadata = header.architecture, header.metadata
    rope = config.get("rope_parameters") or {}
    heads = config.get("num_attention_heads") or 1
    width = config.get("head_dim") or (config.get("hidden_size") or 0) // heads
    found = {
        "expert_used_count": config.get("num_experts_per_tok"),
        "attn_logit_softcapping": config.get("attn_logit_softcapping"),
        "final_logit_softcapping": config.get("final_logit_softcapping"),
    }
    if "rope_theta" in rope:  # one type in all layers
        found["rope.freq_base"] = rope["rope_theta"]
        found["rope.dimension_count"] = int(width * rope.get("partial_rotary_factor", 1.0))
    for key, value in found.items():
        said = metadata.get(f"{name}.{key}")
        if said is not None and value is not None and not math.isclose(said, value, rel_tol=1e-3):
            what = f"transformers reads it with {value:g} where the file says {name}.{key} = {said:g}"
            raise ConfigError(f"{what}, and answers would be wrong: get the model as *.safetensors")
