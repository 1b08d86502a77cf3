"""Check what the settings of a checkpoint make the libraries open or run: other files, other models, code.

transformers and peft open the names in these files as they are, so each has to stay inside the directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway import named_file, peek_json

from . import unloadable

ADAPTER = "adapter_config.json"
BASE = "base_model_name_or_path"
NAMES = (BASE, "tokenizer_name_or_path")  # in adapter_config.json
TOKENIZER = "tokenizer_config.json"
PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
)
ENDS = ("_file", "_files", "_path", "_name_or_path")  # of keys whose values are opened
# Keys that transformers replaces by what it finds in the folder. Saved tokenizers have them from another machine.
REPLACED = frozenset("tokenizer_file special_tokens_map_file added_tokens_file name_or_path _name_or_path".split())
KERNELS = ("attn_implementation", "experts_implementation")  # in config.json; owner/name is code from the Hub
LOCAL = "local-dir:"  # of timm, before a folder
PEFT_CODE = ("megatron_config", "tokenizer_kwargs")  # make peft import what they, or keys beside them, name


def say_names(place: Path, by: str = "transformers", *, trusted: bool = False) -> None:
    """Raise `ConfigError` for names of files or folders that lead out of the directory, and for code that is named.

    The base that an adapter names is checked too. Unreadable files are left to other checks.
    """
    _say_settings(place, by, trusted=trusted)
    base = _say_adapter(place, by, trusted=trusted)
    if base is not None and base.is_dir():
        _say_settings(base, by, trusted=trusted)
        _say_adapter(base, by, trusted=trusted)


def _say_settings(place: Path, by: str, *, trusted: bool) -> None:
    for file in (TOKENIZER, *PROCESSORS):
        for key, name in _named(_read(place / file)):
            named_file(place, name, f"{file} ({key})")
    config = _read(place / "config.json")
    for key, value in _walk(config):
        if isinstance(value, str) and value.startswith(LOCAL):
            named_file(place, value.removeprefix(LOCAL), f"config.json ({key})")
        if not trusted and key.removeprefix("_") in KERNELS and any("/" in text for text in _texts(value)):
            raise unloadable(place, f"config.json sets {key} to a kernel, which is code: remove it", by)


def _say_adapter(place: Path, by: str, *, trusted: bool) -> Path | None:
    """Check the adapter in a folder, if there is one; return its base, which may be a name of the Hub instead."""
    config = _read(place / ADAPTER)
    if not isinstance(config, dict):
        return None
    for key in (key for key in PEFT_CODE if config.get(key) and not trusted):
        raise unloadable(place, f"{ADAPTER} sets {key}, which may name code: remove it", by)
    for key in (key for key in NAMES if config.get(key)):
        named_file(place, config[key], f"{ADAPTER} ({key})")
    return place / str(config[BASE]) if config.get(BASE) else None


def _named(config: Any) -> Iterator[tuple[str, str]]:
    """Yield keys and names of files in them, also of objects inside."""
    for key, value in _walk(config):
        if key.endswith(ENDS) and key not in REPLACED:
            yield from ((key, text) for text in _texts(value))


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of an object, and of all objects in it."""
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            yield from ((str(key), each) for key, each in value.items())
        rest.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())


def _texts(value: Any) -> Iterator[str]:
    """Yield a text, or those of a list or an object."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _read(file: Path) -> Any:
    try:
        return peek_json(file)
    except (OSError, ValueError):
        return None
