"""Which directories hold a language model: a checkpoint of transformers, or a GGUF file. Opens no weights.

A checkpoint that is there in part raises what is missing; what lies beside a model and is not served is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gateway_checkpoints import is_adapter, two_saves
from gateway_lm_gguf_files import find, first_keys, say_passed_over
from gateway_lm_gguf_kinds import doubt

from gateway import (
    ConfigError,
    has_code,
    peek_architecture,
    peek_config,
    peek_json,
    peek_mismatch,
    peek_patterns,
    peek_weights,
    placeholder,
)

INDEX = "model.safetensors.index.json"
PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.safetensors")


def is_language_model(path: Path) -> bool:
    """1. config.yaml names the framework  2. it has code of its own  3. its weights are a GGUF  4. or a checkpoint"""
    config = peek_config(path)
    if framework := config.get("framework"):
        return framework == "transformers"
    if has_code(path):
        return False
    weights = config.get("weights")
    entry = weights[0] if isinstance(weights, list) and weights else None
    if isinstance(entry, dict) and str(entry.get("source", "")).endswith(".gguf"):
        return True  # also when it is not installed yet: the load says how to get it

    place = peek_weights(path)
    if place is None:
        return False
    return find(place, [path.absolute().name], peek_patterns(path)) is not None or is_checkpoint(place)


EMBEDDING = ("modules.json", "1_Pooling/config.json")  # of a model that gives vectors, whatever its config.json says
SENSES = ("vision_config", "audio_config", "image_token_id", "image_token_index", "img_processor", "patch_size")
SEEING = ("fuyu",)  # model types whose config.json may have none of these


def is_checkpoint(place: Path) -> bool:
    """A folder with safetensors and a config.json for text generation; not one of sentence-transformers."""
    weights = [file for file in place.glob("*.safetensors") if not is_adapter(file)]
    if any((place / name).is_file() for name in EMBEDDING) or not weights:
        return False  # an adapter may have the config.json of its base
    found = peek_architecture(place)
    if found is None or not found.writes or not found.name.endswith("ForCausalLM"):
        return False
    say_incomplete(place)
    return True


def say_incomplete(place: Path) -> None:
    """Raise `ConfigError` where files of weights are missing, or are what Git LFS leaves in their place."""

    try:
        parts = peek_json(place / INDEX)["weight_map"].values()
        wanted = {str(name) for name in parts}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        wanted = _siblings(place)  # one file, or an index that the load will tell of
    if missing := sorted(name for name in wanted if not (place / name).is_file()):
        if missing == [INDEX] and (named := sorted(file.name for file in place.glob("*.safetensors.index.*.json"))):
            raise ConfigError(f"{place}: {INDEX} is missing: rename {named[0]} to it")  # that of a variant
        listed = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise ConfigError(f"{place}: {listed} is missing, of the {len(wanted)} files of the weights: get it")
    for file in sorted(place.glob("*.safetensors")):
        if there := placeholder(file):
            raise ConfigError(f"{place}: {file.name} {there.what}: {there.fix}")


def _siblings(place: Path) -> set[str]:
    """The files that belong to one called model-00001-of-00002.safetensors, and the index that says what is in them."""
    parts = [match for file in place.glob("*.safetensors") if (match := PART.fullmatch(file.name))]
    if not parts or (place / "model.safetensors").is_file():
        return set()
    stem, count = parts[0][1], parts[0][2]
    return {f"{stem}-{number:05}-of-{count}.safetensors" for number in range(1, int(count) + 1)} | {INDEX}


def odd(path: Path) -> Iterator[str]:
    """What is in a directory, which may hold a model twice, and has no effect though it may be meant to have one."""

    place = peek_weights(path)
    if place is not None and (place / "adapter_config.json").is_file() and peek_mismatch(place, "transformers") is None:
        yield "the adapter beside the weights (adapter_config.json) is not applied; to have it, merge it into them"
    if place is None or not place.is_dir():
        return
    found = peek_architecture(place)
    if found is None or found.writes:  # what else there is says what it is
        yield from _senses(place)
    file = find(place, [path.absolute().name], peek_patterns(path))
    if file is not None and (told := doubt(first_keys(file).said)):
        yield f"{file.name}: {told}"
    if file is None and (told := two_saves(place)):
        yield told
    if file is not None and (place / "config.json").is_file() and any(place.glob("*.safetensors")):
        what = f"{file.name} is served, and not the checkpoint beside it (config.json, *.safetensors)"
        yield f"{what}; to serve that, move the GGUF file away; to say that it is meant, name it in weights"


def passed_over(path: Path) -> Iterator[str]:
    """The files of other models and servers, as they lie beside many a model."""
    place = peek_weights(path)
    if place is None or not place.is_dir():
        return
    chosen = peek_patterns(path)
    file = find(place, [path.absolute().name], chosen)
    if told := say_passed_over(place, file, chosen):
        yield told
    if file is not None and (place / "Modelfile").is_file():
        yield f"the Modelfile of Ollama beside {file.name} is not read: put its SYSTEM and PARAMETER into requests"


def _senses(place: Path) -> Iterator[str]:
    """What a checkpoint reads beside texts, as its config.json has it."""
    try:
        config = peek_json(place / "config.json")
    except (OSError, ValueError):
        return
    if not isinstance(config, dict):
        return
    found = [name for name in SENSES if name in config]
    if (kind := config.get("model_type")) in SEEING:
        found.append(f"model_type {kind}")
    if found:
        yield f"its config.json has {found[0]}: it reads images or sound too, and texts alone are served"
