"""Whether transformers can load a checkpoint: what `gateway check` says of it and what its load says, in one place.

Reads names and headers. transformers is imported, which takes seconds, only where they leave a question open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway import ConfigError, peek_json

# What makes small numbers large again: scales of FP8, GPTQ, MLX and others, and how EXL2 and EXL3 call all they have.
FACTORS = re.compile(
    r"(weight_scale\w*|scale_inv|scale_weight|scales|zeros|zero_point|absmax|SCB|q_scale|q_weight|trellis)$"
)
VOCABULARIES = ("tokenizer.json", "*.model", "vocab*", "spiece*", "tekken.json", "*.tiktoken")
LONGEST = 100_000_000  # bytes of a header, as the library reads it


def say_unloadable(place: Path) -> None:
    """Raise `ConfigError` for what `from_pretrained` would refuse, or read wrongly, before it reads the weights."""
    try:
        config = dict(peek_json(place / "config.json"))
    except (OSError, ValueError, TypeError) as error:
        raise unloadable(place, f"config.json: {error}") from error
    is_quantized = any(config.get(key) for key in ("quantization_config", "quantization"))
    if is_quantized or not _has_module(config.get("model_type")):
        _ask(place, is_quantized=is_quantized)
    if not any(file for name in VOCABULARIES for file in place.glob(name)) and not _has_tokenizer(place):
        raise unloadable(place, "it has no tokenizer (tokenizer.json, or what older kinds have): get its files")


def check(place: Path) -> None:
    """What the load says, and what it learns only of the weights as a whole."""
    say_unloadable(place)
    if not peek_json(place / "config.json").get("quantization_config"):  # else its quantizer reads them
        say_factors(place, tensors(place))


def say_factors(place: Path, names: Iterable[str], kind: object = None) -> None:
    """Raise `ConfigError` where tensors that transformers will not read scale the others: it would answer nonsense."""
    if factors := sorted(filter(FACTORS.search, names)):
        by = f" ({kind})" if kind else ""
        what = (
            f"is quantized{by}, and transformers does not read {len(factors)} of its tensors, {factors[0]} among them"
        )
        raise ConfigError(f"{place}: the checkpoint {what}: get one that is not, or of a kind that transformers reads")


def unloadable(place: Path, why: object) -> ConfigError:
    """In one line, whatever the library says."""
    return ConfigError(f"{place}: transformers cannot load this checkpoint: {' '.join(str(why).split())}")


def tensors(place: Path) -> Iterator[str]:
    """The names in the headers of the *.safetensors; none of a file that the load will call damaged."""
    for file in sorted(place.glob("*.safetensors")):
        try:
            with file.open("rb") as opened:
                size = int.from_bytes(opened.read(8), "little")
                table = json.loads(opened.read(size)) if size <= LONGEST else {}
        except (OSError, ValueError, RecursionError):
            continue
        yield from table if isinstance(table, dict) else ()


def _has_module(kind: object) -> bool:
    """Whether the library has a directory for a `model_type`; where it has none it may know it all the same."""
    spec = find_spec("transformers")
    return bool(
        isinstance(kind, str)
        and re.fullmatch(r"[\w-]+", kind)
        and spec
        and spec.origin
        and Path(spec.origin).with_name("models").joinpath(kind.replace("-", "_")).is_dir()
    )


def _ask(place: Path, *, is_quantized: bool) -> None:
    """What the load asks first: whether the library knows the architecture, and its quantizer this machine."""
    from transformers import AutoConfig
    from transformers.quantizers.auto import AutoHfQuantizer, get_hf_quantizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # what is left out is said here
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


def _has_tokenizer(place: Path) -> bool:
    """Of bytes or characters, which needs no vocabulary."""
    if not (place / "tokenizer_config.json").is_file():
        return False
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception:  # whatever a class says of files that are not there
        return False
    return True
