"""Check whether a checkpoint can be served as a classifier or a cross encoder: for `gateway check` and for the load.

Reads names, settings and headers of weights. transformers is only imported for an architecture that it may not know.
"""

from __future__ import annotations

from pathlib import Path

from gateway_checkpoints import labels as names
from gateway_checkpoints import loadable, tensor_names, unloadable, weights, wordless

from gateway import ConfigError, check_ordinary, peek_architecture, peek_json

from . import settings


def check(place: Path) -> None:
    """Raise `ConfigError` for what the load reports before it reads the weights, and for useless tokenizers."""
    check_ordinary(place)
    say_unloadable(place)
    wordless.check(place)


def say_unloadable(place: Path) -> None:
    """Raise `ConfigError` for another kind of model, for wrong files, and for settings that are not served."""
    loadable.say_mismatch(place, "classifiers")
    found = peek_architecture(place)
    if found is not None and not found.judges:
        raise ConfigError(f"{place}: {found}")
    loadable.say_unloadable(place)
    config = peek_json(place / "config.json")
    if found is None:
        raise unloadable(place, "config.json names no architectures, so its task is unknown: get it again")
    labels = names.labels_of(place, config)
    settings.function_of(place, config, len(labels))
    settings.say_other_modules(place)
    settings.length_of(place)
    loadable.say_unsafe(place, config.get("transformers_weights"))
    tensor_names.say_names(place, config)
    if not config.get("quantization_config"):  # otherwise its quantizer reads them
        loadable.say_factors(place, weights.tensors(place))
        loadable.say_head(place, len(labels), config.get("transformers_weights"))
    wordless.say_large(place)
