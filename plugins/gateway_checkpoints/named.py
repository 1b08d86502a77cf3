"""Check what the settings of a checkpoint make the libraries open or run: other files, other models, code.

transformers and peft open the names in these files as they are, so each has to stay inside the directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway import named_file, peek_json

from . import unloadable

ADAPTER = "adapter_config.json"
BASE = "base_model_name_or_path"
NAMES = (BASE, "tokenizer_name_or_path")  # in adapter_config.json: folders, whose settings are read too
BASES = 3  # adapters below one another; transformers follows two
OTHERS = {"adapters": None, "shadow_model": "mirror"}  # in adapter_config.json: other models; or a word of peft
OF_MLX = ("adapter_path", "resume_adapter_file")  # mlx-lm calls its file as peft does
CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = ("tokenizer_config.json", "byte_maps.json")
SPECIAL = "special_tokens_map.json"  # transformers passes all that it sets to the tokenizer's class, over what it found
PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
)
ENDS = ("_file", "_files", "_path", "_name_or_path")  # of keys whose values are opened
# Other keys of tokenizers in transformers 5.23 that take the name of a file or a folder.
OPENED = frozenset(
    "vocab merges source_spm target_spm sudachi_resource_dir sudachi_dict_type decompose_map merge_map".split()
)
INPUTS = "init_inputs"
MECAB = "mecab_option"  # options of a program
PATHS = re.compile(r"/.*|\.\.")  # in options
# Keys that transformers replaces by what it finds in the folder. Saved tokenizers have them from another machine.
REPLACED = frozenset("tokenizer_file special_tokens_map_file added_tokens_file name_or_path _name_or_path".split())
KERNELS = ("attn_implementation", "experts_implementation")  # in config.json; owner/name is code from the Hub
LOCAL = "local-dir:"  # of timm, before a folder
HIDDEN = "__"  # how names begin that Python's objects have of their own, such as __dict__ and __class__
LABELS = "label2id"  # its keys are words
PEFT_CODE = ("megatron_config", "tokenizer_kwargs")  # make peft import what they, or keys beside them, name


def say_names(
    place: Path, by: str = "transformers", *, trusted: bool = False, beside: Path | None = None, bases: int = BASES
) -> None:
    """Raise `ConfigError` for names of files or folders that lead out of the directory, and for code that is named.

    The folders that an adapter names are checked too, also below `beside`, the working directory of a load: peft looks
    for them there. Files that exist and cannot be read are refused, because the libraries may have other limits.
    """
    _say_settings(place, by, trusted=trusted)
    for folder in (each for each in place.glob("*tokenizer*") if each.is_dir()):  # further ones of a processor
        _say_tokenizer(folder, by)
    adapter = _read(place / ADAPTER, by)
    if not isinstance(adapter, dict):
        return
    _say_adapter(place, adapter, by, trusted=trusted)
    _say_parts(place, by)
    for folder in _folders(place, adapter, beside) if bases else ():
        _say_parts(folder, by)
        say_names(folder, by, trusted=trusted, beside=beside, bases=bases - 1)


def _say_settings(place: Path, by: str, *, trusted: bool) -> None:
    _say_tokenizer(place, by)
    for file in PROCESSORS:
        _say_files(place, file, by)
    _read(place / GENERATION, by)
    config = _read(place / CONFIG, by)
    if isinstance(config, dict) and "configuration_files" in config:
        what = f"{CONFIG} sets configuration_files, and the library may read one of them instead"
        raise unloadable(place, f"{what}: rename the right one to {CONFIG}", by)
    for key, value in _walk(config):
        if key == "attribute_map":  # of classes, not of saved configs
            raise unloadable(place, f"{CONFIG} sets attribute_map, which gives settings other names: remove it", by)
        if isinstance(value, str) and value.startswith(LOCAL):
            named_file(place, value.removeprefix(LOCAL), f"{CONFIG} ({key})")
        if not trusted and key.removeprefix("_") in KERNELS and any("/" in text for text in _texts(value)):
            raise unloadable(place, f"{CONFIG} sets {key} to a kernel, which is code: remove it", by)


def _say_tokenizer(folder: Path, by: str) -> None:
    _read(folder / CONFIG, by)
    for file in TOKENIZER:
        _say_files(folder, file, by)
    special = _read(folder / SPECIAL, by)
    texts = {key: each for key, each in special.items() if isinstance(each, str)} if isinstance(special, dict) else {}
    for key, _ in _opened(texts):
        raise unloadable(folder, f"{SPECIAL} sets {key}, which is a file and no token: remove it", by)


def _say_files(place: Path, file: str, by: str) -> None:
    for key, name in _opened(_read(place / file, by)):
        if key not in REPLACED:
            named_file(place, name, f"{file} ({key})")


def _say_adapter(place: Path, config: dict[str, Any], by: str, *, trusted: bool) -> None:
    for key in (key for key in PEFT_CODE if config.get(key) and not trusted):
        raise unloadable(place, f"{ADAPTER} sets {key}, which may name code: remove it", by)
    for key in (key for key, word in OTHERS.items() if config.get(key) not in (None, word) and not trusted):
        what = f"{ADAPTER} sets {key}, which names other models, and these are not checked"
        raise unloadable(place, f"{what}: get one that is merged into its base", by)
    for key, name in _opened(config):
        if key not in OF_MLX:
            named_file(place, name, f"{ADAPTER} ({key})")


def _folders(place: Path, adapter: dict[str, Any], beside: Path | None) -> Iterator[Path]:
    """Yield the folders that an adapter names, of which each may be a name of the Hub instead."""
    for key in (key for key in NAMES if adapter.get(key)):
        yield from (folder for above in (place, beside) if above and (folder := above / str(adapter[key])).is_dir())


def _say_parts(place: Path, by: str) -> None:
    """Check the names of weights of an adapter's folder or base, for which nothing else reads an index."""
    config = _read(place / CONFIG, by)
    named = config.get("transformers_weights") if isinstance(config, dict) else None
    indexes = [*place.glob("*.index.json"), *([named_file(place, named, CONFIG)] if named else [])]
    for index in indexes:
        found = _read(index, by) if index.name.endswith(".json") else None
        for name in set(_texts(found.get("weight_map") if isinstance(found, dict) else None)):
            named_file(place, name, index.name)


def _opened(config: Any) -> Iterator[tuple[str, str]]:
    """Yield keys and names of files in them, also of objects inside."""
    for key, value in _walk(config):
        if key.endswith(ENDS):
            yield from ((key, text) for text in _texts(value))
        elif key in OPENED and isinstance(value, str):  # otherwise the tokens themselves
            yield key, value
        elif key == INPUTS:  # of the constructor, in its order: whether one is a file is not known
            yield from ((key, text) for text in _texts(value))
        elif key == MECAB:
            yield from ((key, path) for path in PATHS.findall(str(value or "")))


def _walk(value: Any, but: str | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of an object, and of all objects in it that are not the value of the key `but`."""
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            yield from ((str(key), each) for key, each in value.items())
            rest.extend(each for key, each in value.items() if key != but)
        elif isinstance(value, list):
            rest.extend(value)


def _texts(value: Any) -> Iterator[str]:
    """Yield a text, or those of a list or an object."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _read(file: Path, by: str) -> Any:
    """Return what a file of settings contains, None without the file.

    The libraries set attributes by its keys. One of Python's own, such as `__dict__`, would replace attributes that are
    checked by their names.
    """
    try:
        found = peek_json(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unloadable(file.parent, f"{file.name} cannot be read ({error}): get it again", by) from error
    for key, _ in _walk(found, but=LABELS):
        if key.startswith(HIDDEN):
            what = f"{file.name} sets {key[:200]}, which is no setting, but may replace others"
            raise unloadable(file.parent, f"{what}: remove it", by)
    return found
