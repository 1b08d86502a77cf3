"""Check whether transformers can load a checkpoint: the checks that `gateway check` and the load share.

Reads names and headers. transformers, whose import takes seconds, is only imported if these leave a question open.
`wordless` checks the tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway import ConfigError, peek_json, peek_mismatch

from . import unloadable
from .library import has_module
from .named import say_names
from .tensor_names import say_many
from .weights import WEIGHTS, headers, say_weights, shapes, tensors

# Names of tensors that scale others: in FP8, GPTQ, MLX and other formats, and all tensors of EXL2 and EXL3.
FACTORS = re.compile(
    r"(weight_scale\w*|scale_inv|scale_weight|scales|zeros|zero_point|absmax|SCB|q_scale|q_weight|trellis)$"
)
CODE = "write a model.py whose class loads it with trust_remote_code=True, if you trust it"
TRUST = "if you trust it: [models.NAME] trust_remote_code = true in gateway.toml"
SETTINGS = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)
QUANTIZED = ("quantize_config.json", "quant_config.json")  # of AutoGPTQ and AutoAWQ
SAFE = (".safetensors", ".safetensors.index.json")
WHOLE_NUMBERS = ("I8", "U8", "I16", "U16", "I32", "U32")  # types in a safetensors header


def say_unloadable(place: Path, *, trusted: bool = False, by: str = "transformers") -> None:
    """Raise `ConfigError` for what `from_pretrained` would refuse or misread, before it reads the weights."""
    say_names(place, by, trusted=trusted)
    try:
        config = dict(peek_json(place / "config.json"))
    except (OSError, ValueError, TypeError) as error:
        _say_gguf(place, by)
        raise unloadable(place, f"config.json: {getattr(error, 'strerror', None) or error}: get it", by) from error
    if config.get("auto_map") and not trusted and not has_module(config.get("model_type")):
        code = "its architecture is code that comes with it (auto_map in config.json), which is not run"
        fix = CODE if by == "transformers" else TRUST
        raise unloadable(place, f"{code}; {fix}", by)
    _say_broken(place, by)
    say_many(place, config, by)
    is_quantized = any(config.get(key) for key in ("quantization_config", "quantization"))
    if not trusted and (is_quantized or not has_module(config.get("model_type"))):
        _ask(place, is_quantized=is_quantized)
    if not is_quantized:
        _say_quantized(place, by)
    if not trusted or any((place / name).is_file() for name in WEIGHTS):  # custom code may have its own weights
        say_weights(place, by, named=config.get("transformers_weights"))
    if not is_quantized:
        _say_whole_numbers(place)


def say_unsafe(place: Path, named: object) -> None:
    """Raise `ConfigError` without a *.safetensors to read, for loads that are told to open nothing else.

    `named` is the file that config.json names as its weights.
    """
    looked_for = [str(named)] if named else WEIGHTS[:2]
    if not any(name.endswith(SAFE) and (place / name).is_file() for name in looked_for):
        what = "its weights are a pickle, which runs code when it is opened"
        raise unloadable(place, f"{what}: save it again, save_pretrained(folder) writes model.safetensors")


def say_head(place: Path, labels: int, named: object) -> None:
    """Check that a matrix of the weights has a row for each label, before the library creates one of that size."""
    if not any(shape[:1] == [labels] for shape in shapes(place, named).values()):
        what = f"config.json has {labels:,} label{'' if labels == 1 else 's'}, and no tensor has as many rows"
        raise unloadable(place, f"{what}: get the config.json that belongs to these weights")


def say_mismatch(place: Path, framework: str) -> None:
    """Raise `ConfigError` for a folder that contains something other than the chosen framework serves."""
    if told := peek_mismatch(place, framework):
        raise ConfigError(f"{place}: {told}")


def _say_broken(place: Path, by: str) -> None:
    """Raise `ConfigError` for unreadable settings files: the library may ignore them, or blame another file."""
    for name in SETTINGS:
        try:
            if (place / name).is_file():
                peek_json(place / name)
        except (OSError, ValueError) as error:
            raise unloadable(place, f"{name} cannot be read ({error}): get it again", by) from error


def _say_quantized(place: Path, by: str) -> None:
    """Raise `ConfigError` for AutoGPTQ and AutoAWQ checkpoints without quantization_config in config.json.

    Otherwise the error would be about file names, and renaming files would not help.
    """
    name = next((name for name in QUANTIZED if (place / name).is_file()), None)
    if name is None or not any(each.endswith(".qweight") for each in tensors(place)):
        return
    what = f"it is quantized ({name}), but its config.json has no quantization_config, which {by} needs"
    raise unloadable(place, f"{what}: get one that is not quantized, or a newer one that has it", by)


def say_factors(place: Path, names: Iterable[str], kind: object = None) -> None:
    """Raise `ConfigError` if tensors that transformers ignores scale the others: answers would be nonsense."""
    if factors := sorted(filter(FACTORS.search, names)):
        by = f" ({kind})" if kind else ""
        what = (
            f"is quantized{by}, and transformers does not read {len(factors)} of its tensors, {factors[0]} among them"
        )
        raise ConfigError(f"{place}: the checkpoint {what}: get one that is not, or of a kind that transformers reads")


def _say_gguf(place: Path, by: str) -> None:
    """Raise `ConfigError` if the weights are a GGUF file, which has no config.json."""
    names = sorted(file.name for file in place.glob("*") if file.suffix.lower() == ".gguf")
    if names and not (place / "config.json").exists():
        what = f"{names[0]} is a GGUF file, which {by} does not read"
        raise unloadable(place, f"{what}: get the model as config.json and *.safetensors", by)


def _say_whole_numbers(place: Path) -> None:
    """Raise `ConfigError` for matrices of integers: the library would use quantized values as they are."""
    kinds = {name: str(each.get("dtype")) for name, each in headers(place) if name.endswith("weight")}
    if names := sorted(name for name, kind in kinds.items() if kind in WHOLE_NUMBERS):
        what = f"{len(names)} of its matrices, {names[0]} among them, are whole numbers ({kinds[names[0]]})"
        raise ConfigError(f"{place}: {what}, and config.json does not say of what: get one that is not quantized")


def _ask(place: Path, *, is_quantized: bool) -> None:
    """Check what the load checks first: that the library knows the architecture and the quantizer this machine."""
    from transformers import AutoConfig
    from transformers.quantizers.auto import AutoHfQuantizer, get_hf_quantizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # omitted details are reported here
    try:
        config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        given: Mapping[str, Any] = getattr(config, "quantization_config", None) or {}
        is_named = given.keys() & {"quant_method", "load_in_8bit", "load_in_4bit"}
        is_known = is_named and AutoHfQuantizer.supports_quant_method(given)
        if is_quantized and not is_known:
            say_factors(place, tensors(place), given.get("quant_method") or "config.json names no quant_method")
        if is_known or (given and not is_named):
            get_hf_quantizer(config, None, None, True, {})
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError, AttributeError) as error:
        raise unloadable(place, error) from error
