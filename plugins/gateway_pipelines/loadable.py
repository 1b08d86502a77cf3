"""Check whether a checkpoint can be served with a task: for `gateway check` and for the load.

Reads names, settings and headers of weights. transformers is only imported for an architecture that it may not know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway_checkpoints import loadable, tensor_names, unloadable, weights, wordless
from gateway_checkpoints.labels import labels_of, object_of

from gateway import ConfigError, check_ordinary, peek_architecture, peek_json

from . import sparse_settings
from .detection import can
from .tasks import Task

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
SIZES = ("size", "crop_size", "max_length", "feature_size", "num_mel_bins", "n_fft", "hop_length", "nb_max_samples")
LARGEST = 10_000_000  # of a size in a processor's settings: samples of a minute are one million


def check(place: Path, task: Task) -> None:
    """Raise `ConfigError` for what the load reports before it reads the weights, and for useless tokenizers."""
    check_ordinary(place)
    say_unloadable(place, task)
    if task.reads == "texts":
        wordless.check(place)


def say_unloadable(place: Path, task: Task) -> None:
    """Raise `ConfigError` for another kind of model, for wrong files, and for settings that are not served."""
    loadable.say_mismatch(place, "pipelines")
    found = peek_architecture(place)
    if found is not None and not can(found, task):
        raise ConfigError(f"{place}: {found}")
    loadable.say_unloadable(place)
    config = peek_json(place / "config.json")
    if found is None:
        raise unloadable(place, "config.json names no architectures, so its task is unknown: get it again")
    if task.name == "sparse-encoding":
        sparse_settings.read(place)
    loadable.say_unsafe(place, config.get("transformers_weights"))
    tensor_names.say_names(place, config)
    if not config.get("quantization_config"):  # otherwise its quantizer reads them
        loadable.say_factors(place, weights.tensors(place))
        if task.labels:
            loadable.say_head(place, len(labels_of(place, config)), config.get("transformers_weights"))
    if task.reads != "texts":
        _say_processor(place, task)
    wordless.say_large(place)


def _say_processor(place: Path, task: Task) -> None:
    """Check the settings of what makes numbers of a file: the library would guess, or take too much memory."""
    settings = next((found for name in PROCESSORS if (found := object_of(place, name))), None)
    if settings is None:
        raise unloadable(place, f"there is no {PROCESSORS[0]}, which says how its {task.reads} are prepared: get it")
    for key in SIZES:
        for value in _numbers(settings.get(key)):
            if not 0 < value <= LARGEST:
                raise unloadable(place, f"{key} in its processor's settings is {value}, which is no size: get it again")


def _numbers(value: Any) -> list[float]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, (int, float)) and not isinstance(each, bool)]
