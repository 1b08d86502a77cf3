"""Find a pipeline of diffusers, and check its parts: model_index.json names a class for each, in a directory.

Classes of diffusers and transformers are data; others, and files of Python, are code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway_checkpoints.named import say_names
from gateway_checkpoints.weights import torn

from gateway import ConfigError, check_ordinary, has_code, peek_config, peek_json, peek_weights

FRAMEWORK = "diffusers"
INDEX = "model_index.json"
# Pipelines that paint a text; the library has others, for which a request has no fields.
PIPELINES = frozenset(
    "StableDiffusionPipeline StableDiffusionXLPipeline StableDiffusion3Pipeline LatentConsistencyModelPipeline "
    "FluxPipeline SanaPipeline".split()
)
LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion"})  # the last has the safety checker
SHARD = re.compile(r"\w[\w.-]{0,200}\.safetensors", re.ASCII)
NAME = re.compile(r"[A-Za-z]\w{0,99}", re.ASCII)
INDICES = ("model_index.json", "modular_model_index.json")  # of pipelines, whose parts are named by them
# A part that is a pipeline has parts of its own; one of ONNX has other weights.
PART = re.compile(r"(?!.*(Pipeline|Onnx|Flax|Modular))[A-Za-z]\w{0,99}", re.ASCII)
WITHOUT_WEIGHTS = ("Scheduler", "Tokenizer", "TokenizerFast", "Processor", "Extractor", "ImageProcessorFast")
MOST_NAMED = 100  # characters of a name in messages


def is_ours(path: Path) -> bool:
    config = peek_config(path)
    if "framework" in config:  # overrides detection
        return bool(config["framework"] == FRAMEWORK)
    if has_code(path) or (place := peek_weights(path)) is None or not place.is_dir():
        return False
    if not (place / INDEX).is_file():
        return False
    try:
        index = peek_json(place / INDEX)
    except (OSError, ValueError):
        return False
    name = index.get("_class_name") if isinstance(index, dict) else None
    return isinstance(name, str) and name in PIPELINES


def check_pipeline(place: Path) -> str:
    """Check the parts of a pipeline. Returns the name of its class.

    Raises:
        ConfigError: a part is missing, damaged or code.
    """
    check_ordinary(place)
    index = _read(place / INDEX)
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in PIPELINES:
        have = ", ".join(sorted(PIPELINES))
        raise ConfigError(
            f"{place}: {INDEX} has the pipeline {str(name)[:MOST_NAMED]!a}, which is not served (served are {have}): "
            f"write a model.py whose class loads it with diffusers and has a method images_generations"
        )
    for part, kind in _parts(place, index):
        _check_part(place, part, kind)
    return name


def _parts(place: Path, index: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and the class of each part that the pipeline has."""
    for part, value in index.items():
        if part.startswith("_") or not isinstance(value, list):
            continue  # a setting of the pipeline
        if len(value) != 2 or not all(each is None or isinstance(each, str) for each in value):
            raise ConfigError(f"{place}: {INDEX} does not say what its part {part[:MOST_NAMED]!a} is: get it again")
        library, kind = value
        if library is None or kind is None:  # a part that it does without
            continue
        if library not in LIBRARIES or not PART.fullmatch(kind) or not NAME.fullmatch(part):
            what = f"its part {part[:MOST_NAMED]!a} is {kind[:MOST_NAMED]!a} of {library[:MOST_NAMED]!a}"
            raise ConfigError(
                f"{place}: {what}, which is code, or has more parts: write a model.py that loads it, if you trust it"
            )
        yield part, kind


def _check_part(place: Path, part: str, kind: str) -> None:
    folder = place / part
    if not folder.is_dir():
        raise ConfigError(f"{place}: its part {part} is missing: get the directory {part} too")
    config = next((each for each in (folder / "config.json", *folder.glob("*_config.json")) if each.is_file()), None)
    if config is None:
        raise ConfigError(f"{place}: its part {part} has no config.json: get its files again")
    settings = _read(config)
    if settings.get("auto_map") or settings.get("trust_remote_code"):
        raise ConfigError(f"{place}: its part {part} names code (auto_map): write a model.py that loads it")
    say_names(folder)
    if inner := next((name for name in INDICES if (folder / name).exists()), None):
        raise ConfigError(f"{place}: its part {part} is a pipeline ({part}/{inner}): write a model.py that loads it")
    _check_indices(place, part)
    if kind.endswith(WITHOUT_WEIGHTS):
        return
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(each.name for each in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")))
        told = f"only {pickles[0]}, which is a pickle" if pickles else "no weights"
        raise ConfigError(f"{place}: its part {part} has {told}: save the pipeline with safe_serialization=True")
    for file in weights:
        if why := torn(file):
            raise ConfigError(f"{place}: {part}/{file.name} {why}")


def _check_indices(place: Path, part: str) -> None:
    """Check that weights in several files are all in this directory, and no pickles."""
    for index in sorted((place / part).glob("*.index*.json")):
        names = _read(index).get("weight_map")
        for name in names.values() if isinstance(names, dict) else (names,):
            if not isinstance(name, str) or not SHARD.fullmatch(name):
                what = f"{part}/{index.name} names {str(name)[:MOST_NAMED]!a} as weights"
                raise ConfigError(f"{place}: {what}, which is no *.safetensors beside it: get the pipeline again")


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = peek_json(file)
        if not isinstance(found, dict):
            raise ValueError("it is a list, or a bare value")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is not a JSON object ({error}); get the pipeline again") from error
    return found
