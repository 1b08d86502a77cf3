"""Check whether Whisper can be served from a folder: for `gateway check` and for the load. Reads no weights."""

from __future__ import annotations

from pathlib import Path

from gateway_checkpoints import loadable, named, tensor_names, unloadable, weights, wordless
from gateway_checkpoints.labels import object_of

from gateway import ConfigError, check_ordinary, opened, parse_json, peek_architecture, peek_json, placeholder

from .binary import fault
from .detection import BINARY, TASK, is_converted

PROCESSOR = "preprocessor_config.json"
GENERATION = "generation_config.json"
NEEDED = ("no_timestamps_token_id", "decoder_start_token_id")  # in it, or nothing has times
# What a converted model can have: settings of sizes would make the library take any amount of memory.
BOUNDS = {"feature_size": 256, "n_fft": 4096, "hop_length": 4096, "chunk_length": 120, "sampling_rate": 16_000}
MOST_VALUES = 8_000_000  # in a tokenizer.json
BY = "CTranslate2"


def check(place: Path, *, converted: bool) -> None:
    """Raise `ConfigError` for what the load reports before it reads the weights, and for useless tokenizers."""
    check_ordinary(place)
    say_unloadable(place, converted=converted)
    if not converted:
        wordless.check(place)


def say_unloadable(place: Path, *, converted: bool) -> None:
    """Raise `ConfigError` for another kind of model, for missing or wrong files, and for code."""
    if converted:
        _say_converted(place)
    else:
        _say_checkpoint(place)
    wordless.say_large(place)
    _say_processor(place, "CTranslate2" if converted else "transformers")


def _say_checkpoint(place: Path) -> None:
    loadable.say_mismatch(place, "whisper")
    found = peek_architecture(place)
    if found is not None and found.task != TASK:
        raise ConfigError(f"{place}: {found}")
    loadable.say_unloadable(place)
    config = peek_json(place / "config.json")
    if found is None:
        raise unloadable(place, "config.json names no architectures, so its task is unknown: get it again")
    loadable.say_unsafe(place, config.get("transformers_weights"))
    tensor_names.say_names(place, config)
    if not config.get("quantization_config"):
        loadable.say_factors(place, weights.tensors(place))
    generation = object_of(place, GENERATION)
    if missing := [name for name in NEEDED if type(generation.get(name)) is not int]:
        raise unloadable(place, f"{GENERATION} lacks {missing[0]}, without which nothing has times: get it again")
    if not (place / PROCESSOR).is_file():
        raise unloadable(place, f"there is no {PROCESSOR}, which says how sound is prepared: get it")


def _say_converted(place: Path) -> None:
    if not is_converted(place):
        raise unloadable(place, f"there is no {BINARY} of Whisper: get it again", BY)
    if there := placeholder(place / BINARY):
        raise unloadable(place, f"{BINARY} {there.what}: {there.fix}", BY)
    if why := fault(place / BINARY):
        raise unloadable(place, f"{BINARY} {why}: get it again", BY)
    named.say_names(place, BY)
    object_of(place, "config.json")
    try:
        with opened(place / "tokenizer.json") as file:
            parse_json(file.read(wordless.LARGEST + 1), MOST_VALUES)
    except FileNotFoundError as error:
        # faster-whisper would fetch one from the network
        raise unloadable(place, "there is no tokenizer.json: get that of the model that was converted", BY) from error
    except (OSError, ValueError) as error:
        raise unloadable(place, f"tokenizer.json cannot be read ({error}): get it again", BY) from error
    if not any(place.glob("vocabulary.*")):
        raise unloadable(place, "there is no vocabulary.json or vocabulary.txt: convert the model again", BY)


def _say_processor(place: Path, by: str) -> None:
    """Check the sizes in the settings of what makes features of sound."""
    settings = object_of(place, PROCESSOR)
    for key, most in BOUNDS.items():
        value = settings.get(key)
        if value is not None and (type(value) is not int or not 0 < value <= most):
            raise unloadable(place, f"{key} in {PROCESSOR} is {str(value)[:50]}, which it cannot be: get it again", by)
