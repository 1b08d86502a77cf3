"""What a sparse encoder of sentence-transformers (SPLADE) says about itself in the files beside its network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway_checkpoints import unloadable
from gateway_checkpoints.labels import object_of

from gateway import named_file, peek_json

ABOUT = "config_sentence_transformers.json"
MODULES = "modules.json"
MODULE = "sentence_bert_config.json"  # of the network
OF = r"sentence_transformers\."
NETWORK = re.compile(
    OF + r"(models|base\.modules|sparse_encoder\.(models|modules))(\.(mlm_)?transformer)?\.(MLM)?Transformer"
)
POOLING = re.compile(OF + r"sparse_encoder\.(models|modules)(\.splade_pooling)?\.SpladePooling")
# What sentence-transformers writes for such a network, and values with which the library computes what we do.
FLAT: Mapping[str, tuple[Any, ...]] = {
    "transformer_task": ("fill-mask",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "logits"}},),
    "module_output_name": ("token_embeddings",),
    "do_lower_case": (False,),
    "unpad_inputs": (None, False),
}


@dataclass(frozen=True, slots=True)
class Settings:
    adds: bool  # the weights of a token at all places of the text are added; otherwise the largest counts
    twice: bool  # the logarithm is taken twice
    length: int | None  # tokens of a text
    most: int | None  # tokens that an answer has
    prompts: Mapping[str, str]  # by name: what is put before a text
    prompt: str  # before a text without a name of a prompt


def read(place: Path) -> Settings:
    """Return the settings of a folder.

    Raises:
        ConfigError: it has other modules, or settings that are not served.
    """
    pooling = object_of(place, f"{_pooling(place)}/config.json")
    strategy, function = pooling.get("pooling_strategy", "max"), pooling.get("activation_function", "relu")
    if strategy not in ("max", "sum") or function not in ("relu", "log1p_relu"):
        raise unloadable(place, f"its SpladePooling has {str(strategy)[:50]} of {str(function)[:50]}: not served")
    module, about = object_of(place, MODULE), object_of(place, ABOUT)
    for key, value in module.items():
        if key != "max_seq_length" and value not in FLAT.get(key, ()):
            raise unloadable(place, f"{MODULE} sets {key[:100]} to something that is not served")
    length, most = module.get("max_seq_length"), about.get("max_active_dims")
    for name, value in (("max_seq_length", length), ("max_active_dims", most)):
        if value is not None and (type(value) is not int or value < 1):
            raise unloadable(place, f"{name} is {str(value)[:50]}, which is no number of tokens: correct it")
    prompts = about.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(each, str) for each in prompts.values()):
        raise unloadable(place, f"prompts of {ABOUT} are not texts: correct them")
    name = about.get("default_prompt_name")
    if name is not None and name not in prompts:
        raise unloadable(place, f"default_prompt_name of {ABOUT} is {str(name)[:50]}, which is none of its prompts")
    return Settings(strategy == "sum", function == "log1p_relu", length, most, prompts, prompts.get(name, ""))


def _pooling(place: Path) -> str:
    """Return the folder of the pooling, after a check of both modules."""
    try:
        listed = [(str(each["type"]), str(each["path"])) for each in peek_json(place / MODULES)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise unloadable(place, f"{MODULES} is not a list of modules ({error}): get it again") from error
    kinds = [kind for kind, _ in listed]
    fits = len(listed) == 2 and NETWORK.fullmatch(kinds[0]) and POOLING.fullmatch(kinds[1]) and not listed[0][1]
    if not fits:
        shown = ", ".join(kind.rpartition(".")[2] for kind in kinds)[:100]
        what = f"{MODULES} lists {shown}, and only a network beside it with a SpladePooling is served"
        raise unloadable(place, what)
    folder = listed[1][1]
    named_file(place, folder, MODULES)
    if not (place / folder / "config.json").is_file():
        raise unloadable(place, f"{folder}/config.json is missing, which {MODULES} names: get it")
    return folder
