"""Recognise directories with a language model: a transformers checkpoint, or a GGUF file. Opens no weights.

An incomplete checkpoint raises an error that names the missing files; ignored files next to a model are reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gateway_checkpoints.weights import is_adapter, two_saves
from gateway_language.gguf import serving
from gateway_language.gguf.files import find

from gateway import (
    ConfigError,
    has_code,
    named_file,
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
    """Decide: 1. config.yaml names the framework  2. own code  3. the weights are a GGUF file  4. a checkpoint"""
    config = peek_config(path)
    if framework := config.get("framework"):
        return framework == "transformers"
    if has_code(path):
        return False
    place = peek_weights(path)
    return serving.has_gguf(path) or (place is not None and is_checkpoint(place))


EMBEDDING = ("modules.json", "1_Pooling/config.json")  # of an embedding model, whatever its config.json says
SENSES = ("vision_config", "audio_config", "image_token_id", "image_token_index", "img_processor", "patch_size")
SEEING = ("fuyu",)  # model types whose config.json may have none of these


def is_checkpoint(place: Path) -> bool:
    """Return whether a folder has safetensors and a config.json for text generation, and is not for embeddings."""
    weights = [file for file in place.glob("*.safetensors") if not is_adapter(file)]
    if any((place / name).is_file() for name in EMBEDDING) or not weights:
        return False  # an adapter may have the config.json of its base
    found = peek_architecture(place)
    if found is None or not found.writes or not found.name.endswith("ForCausalLM"):
        return False
    say_incomplete(place)
    return True


MOST_PARTS = 2000  # of one checkpoint: the largest have some hundred


def say_incomplete(place: Path) -> None:
    """Raise `ConfigError` if weight files are missing, or are only Git LFS pointers."""

    try:
        parts = peek_json(place / INDEX)["weight_map"].values()
        wanted = {str(name) for name in parts}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        wanted = _siblings(place)  # a single file, or an index whose error the load reports
    if missing := sorted(name for name in wanted if not named_file(place, name, INDEX).is_file()):
        if missing == [INDEX] and (named := sorted(file.name for file in place.glob("*.safetensors.index.*.json"))):
            raise ConfigError(f"{place}: {INDEX} is missing: rename {named[0]} to it")  # the index of a variant
        listed = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise ConfigError(f"{place}: {listed} is missing ({len(wanted)} weight files in total): download it")
    for file in sorted(place.glob("*.safetensors")):
        if there := placeholder(file):
            raise ConfigError(f"{place}: {file.name} {there.what}: {there.fix}")


def _siblings(place: Path) -> set[str]:
    """Return the parts that belong to a file named model-00001-of-00002.safetensors, and their index."""
    parts = [match for file in place.glob("*.safetensors") if (match := PART.fullmatch(file.name))]
    if not parts or (place / "model.safetensors").is_file():
        return set()
    stem, count = parts[0][1], parts[0][2]
    if int(count) > MOST_PARTS:
        raise ConfigError(f"{place}: {parts[0][0]} is one of {count} parts by its name: no model has so many")
    return {f"{stem}-{number:05}-of-{count}.safetensors" for number in range(1, int(count) + 1)} | {INDEX}


def odd(path: Path) -> Iterator[str]:
    """Yield warnings about files that have no effect but may be meant to, such as a second model in the directory."""

    place = peek_weights(path)
    if place is not None and (place / "adapter_config.json").is_file() and peek_mismatch(place, "transformers") is None:
        yield "the adapter next to the weights (adapter_config.json) is not applied; to use it, merge it into them"
    if place is None or not place.is_dir():
        return
    found = peek_architecture(place)
    if found is None or found.writes:  # other models are described elsewhere
        yield from _senses(place)
    file = find(place, [path.absolute().name], peek_patterns(path))
    if file is None and (told := two_saves(place)):
        yield told
    yield from serving.odd(path)


def _senses(place: Path) -> Iterator[str]:
    """Yield what a checkpoint reads besides text, according to its config.json."""
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
        yield f"its config.json has {found[0]}: it also reads images or sound, but only text is served"
