"""Check whether a checkpoint is a servable language model: by its architecture, settings and tensor names.

Used by `gateway check` and by the load, so that both report the same. Opens only the headers of weights; transformers
is only imported for an architecture whose name does not tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_checkpoints import library, loadable, tensor_names, weights

from gateway import ConfigError, peek_architecture, peek_json

AS_DECODER = "add `is_decoder=True"  # in the code of encoders, a message for use as a decoder
# Published without prefix, in an old format of the library; their head has always been the embedding matrix.
BARE = ("bloom", "ctrl", "gpt2", "openai-gpt", "opt")
ATTENTION = re.compile(r"self\.(?:self_attn|attention|attn|self_attention)\(((?:[^()]|\([^()]*\))*)\)")  # calls of it
CHANGED = "its answers change with our cache"  # as the load finds when it compares; observed for each of these
KINDS = {
    "doge": "its attention adds a mask that it computes itself",
    **dict.fromkeys(("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart"), CHANGED),
    **dict.fromkeys(("pegasus", "plbart", "diffllama", "hrm_text", "zaya"), CHANGED),
}
OPTIONS = ("softcap", "s_aux", "position_bias")  # arguments to attention that ours does not support
LAYERS = ("layer_types", "layers_block_type", "block_types")
STATE = re.compile(r"linear|conv|mamba|recurrent|lightning")


def check(place: Path) -> None:
    """Report what the load would report, and what it only finds by reading all weights."""
    say_unloadable(place)
    if not peek_json(place / "config.json").get("quantization_config"):  # otherwise its quantizer reads them
        loadable.say_factors(place, weights.tensors(place))


def say_unloadable(place: Path) -> None:
    """Raise `ConfigError` for anything that is not a checkpoint, or that cannot be loaded or served here."""
    loadable.say_mismatch(place, "transformers")
    loadable.say_unloadable(place)
    say_no_language_model(place)


def say_no_language_model(place: Path) -> None:
    """Raise `ConfigError` for a checkpoint of another kind, or a language model that cannot be served here."""
    config = peek_json(place / "config.json")
    found = peek_architecture(place)
    if found is not None and not found.writes and not _is_mapped(found.name, config.get("model_type")):
        raise ConfigError(f"{place}: {found}")
    if found is None and config.get("is_encoder_decoder"):
        raise ConfigError(f"{place}: its config.json sets is_encoder_decoder, but a language model only has a decoder")
    if AS_DECODER in library.code_of(config) and not config.get("is_decoder"):
        name = found.name if found else config.get("model_type")
        what = f"{name} is an encoder, whose tokens attend to later ones"
        raise ConfigError(f"{place}: {what}: it can only generate text if trained with is_decoder in config.json")
    tensor_names.say_names(place, config)
    _say_headless(place, config)
    _say_unbatched(place, config)


def _is_mapped(name: str, kind: object) -> bool:
    """Return whether the library maps a name that does not tell to a language model of its type."""
    if name.endswith("ForCausalLM"):  # half of another model, mapped as a language model
        return False
    if not isinstance(kind, str) or not library.has_module(kind):
        return False
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as MAPPED

    return MAPPED.get(kind) == name


def _say_headless(place: Path, config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a saved base model: its tensor names lack the prefix used in a language model.

    The library would use the embedding matrix as head if the two may be tied, and answer with nonsense.
    """
    if config.get("model_type") in BARE:
        return
    prefixes = set(re.findall(r'base_model_prefix = "(\w+)"', library.code_of(config)))
    names = weights.shapes(place, config.get("transformers_weights"))
    if not prefixes or not any(re.search(r"\.\d+\.", name) for name in names):
        return
    if any(name.startswith((*(f"{prefix}." for prefix in prefixes), "lm_head", "language_model.")) for name in names):
        return
    what = f"its tensors ({min(names)} and others) are those of a base model, or of one for embeddings, without a head"
    fix = "for chat get the whole model; for embeddings also get modules.json and 1_Pooling, which define its vectors"
    if (place / "modules.json").is_file():
        fix = "for chat get the complete model; for embeddings write framework: sentence-transformers into config.yaml"
    raise ConfigError(f"{place}: {what}: {fix}")


def _say_unbatched(place: Path, config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a model whose attention cannot be batched, or whose state is more than keys and values.

    The load finds other differences when it compares the two.
    """
    code = library.code_of(config)
    if code and (why := _reason(code, config)):
        name = next(iter(config.get("architectures") or ()), config["model_type"])
        raise ConfigError(f"{place}: {name} cannot be batched here: {why}")


def _reason(code: str, config: Mapping[str, Any]) -> str | None:
    if known := KINDS.get(config["model_type"]):
        return known
    if (
        "ALL_ATTENTION_FUNCTIONS" not in code and "AutoModel" not in code
    ):  # where the attention function is chosen, or another model's is used
        return "its attention does not pass through our cache"
    calls = ATTENTION.findall(code)
    if calls and all("**" not in call for call in calls):
        return "its layers do not pass the arguments that our cache needs"
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
