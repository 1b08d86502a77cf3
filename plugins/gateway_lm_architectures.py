"""Whether a checkpoint is a language model that can be served: by its architecture, its settings, its tensors' names.

For `gateway check` and for the load, so that both say the same. Opens headers of weights only; transformers is imported
only for an architecture whose name does not say it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gateway_checkpoints as checkpoints
import gateway_tensor_names

from gateway import ConfigError, peek_architecture, peek_json

AS_DECODER = "add `is_decoder=True"  # what the code of an encoder says when it is asked to write
# Published without their prefix, as the library wrote them once; their head has always been the matrix of their words.
BARE = ("bloom", "ctrl", "gpt2", "openai-gpt", "opt")
ATTENTION = re.compile(r"self\.(?:self_attn|attention|attn|self_attention)\(((?:[^()]|\([^()]*\))*)\)")  # calls of it
CHANGED = "its answers change with our cache"  # as the load finds when it compares: each of these was seen to
KINDS = {
    "doge": "its attention adds a mask that it computes itself",
    **dict.fromkeys(("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart"), CHANGED),
    **dict.fromkeys(("pegasus", "plbart", "diffllama", "hrm_text", "zaya"), CHANGED),
}
OPTIONS = ("softcap", "s_aux", "position_bias")  # that the code of a kind gives its attention, and ours does not know
LAYERS = ("layer_types", "layers_block_type", "block_types")
STATE = re.compile(r"linear|conv|mamba|recurrent|lightning")


def check(place: Path) -> None:
    """What the load says, and what it learns only of the weights as a whole."""
    say_unloadable(place)
    if not peek_json(place / "config.json").get("quantization_config"):  # else its quantizer reads them
        checkpoints.say_factors(place, checkpoints.tensors(place))


def say_unloadable(place: Path) -> None:
    """Raise `ConfigError` for what is no checkpoint, none that the library loads, or none that is served here."""
    checkpoints.say_mismatch(place, "transformers")
    checkpoints.say_unloadable(place)
    say_no_language_model(place)


def say_no_language_model(place: Path) -> None:
    """Raise `ConfigError` for a checkpoint that is something else, or a language model that cannot be served here."""
    config = peek_json(place / "config.json")
    found = peek_architecture(place)
    if found is not None and not found.writes and not _is_mapped(found.name, config.get("model_type")):
        raise ConfigError(f"{place}: {found}")
    if found is None and config.get("is_encoder_decoder"):
        raise ConfigError(f"{place}: its config.json says is_encoder_decoder, and a language model is a decoder alone")
    if AS_DECODER in checkpoints.code_of(config) and not config.get("is_decoder"):
        name = found.name if found else config.get("model_type")
        what = f"{name} is an encoder, whose words see those that come after them"
        raise ConfigError(f"{place}: {what}: it writes only where config.json has is_decoder, as it was trained")
    gateway_tensor_names.say_names(place, config)
    _say_headless(place, config)
    _say_unbatched(place, config)


def _is_mapped(name: str, kind: object) -> bool:
    """Whether the library takes a name that does not say so for a language model of its kind."""
    if name.endswith("ForCausalLM"):  # half of a model of something else, which is mapped as one that writes
        return False
    if not isinstance(kind, str) or not checkpoints.has_module(kind):
        return False
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as MAPPED

    return MAPPED.get(kind) == name


def _say_headless(place: Path, config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for what a base model saves: its tensors lack the name under which a language model has it.

    The library would take the matrix of the words for the head wherever the two may be one, and answer with nonsense.
    """
    if config.get("model_type") in BARE:
        return
    prefixes = set(re.findall(r'base_model_prefix = "(\w+)"', checkpoints.code_of(config)))
    names = checkpoints.shapes(place, config.get("transformers_weights"))
    if not prefixes or not any(re.search(r"\.\d+\.", name) for name in names):
        return
    if any(name.startswith((*(f"{prefix}." for prefix in prefixes), "lm_head", "language_model.")) for name in names):
        return
    what = f"its tensors ({min(names)} and others) are those of a base model, or of one for embeddings, without a head"
    fix = "for chat get the whole model; for embeddings get its modules.json and 1_Pooling too, which make its vectors"
    if (place / "modules.json").is_file():
        fix = "for chat get the whole model; for embeddings write framework: sentence-transformers into config.yaml"
    raise ConfigError(f"{place}: {what}: {fix}")


def _say_unbatched(place: Path, config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a kind whose attention takes no batch of ours, or that keeps more than keys and values.

    What else there is, the load finds when it compares the two.
    """
    code = checkpoints.code_of(config)
    if code and (why := _reason(code, config)):
        name = next(iter(config.get("architectures") or ()), config["model_type"])
        raise ConfigError(f"{place}: {name} cannot be batched here: {why}")


def _reason(code: str, config: Mapping[str, Any]) -> str | None:
    if known := KINDS.get(config["model_type"]):
        return known
    if (
        "ALL_ATTENTION_FUNCTIONS" not in code and "AutoModel" not in code
    ):  # where the attention is chosen, or is another's
        return "its attention does not pass through our cache"
    calls = ATTENTION.findall(code)
    if calls and all("**" not in call for call in calls):
        return "its layers do not pass on what our cache needs"
    options = [name for name in OPTIONS if re.search(rf"\n\s+{name}=", code)]
    if "softcap" in options and config.get("attn_logit_softcapping", ...) is None:
        options.remove("softcap")
    if options:
        return f"its attention uses {options[0]}"
    kinds = next((config[key] for key in LAYERS if isinstance(config.get(key), list)), None)
    if kinds is None:
        found = next((key for key in sorted(config) if key.startswith("mamba_")), None)
    else:
        found = next((str(kind) for kind in kinds if STATE.search(str(kind))), None)
    return f"it has layers with a state of their own ({found}), which our cache does not keep" if found else None
