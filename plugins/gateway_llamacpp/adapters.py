"""LoRA files that change the weights of a model: which ones, how much, and whether llama.cpp can apply them.

options:
  lora:
    - path: style.gguf      # in the model directory
      scale: 0.5            # default: 1
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_language.gguf.faults import check_tensors, mapped
from gateway_language.gguf.header import Header, read_headers

from gateway import ConfigError, check_ordinary

MOST = 16  # adapters; each makes every step slower
KEYS = ("path", "scale")
ENDINGS = (".lora_a", ".lora_b")

Adapter = tuple[Path, float]


def read_adapters(options: Mapping[str, Any], place: Path, model: Header) -> list[Adapter]:
    """Return the adapters that the options name, after checking their headers.

    Raises `ConfigError`, with the option, for a file that is missing, damaged, no adapter, or one of another model.
    """
    given = options.get("lora") or []
    if not isinstance(given, list) or len(given) > MOST or not all(isinstance(each, dict) for each in given):
        raise ConfigError(f"options.lora must be a list of at most {MOST} objects with path and scale")
    return [_adapter(each, f"options.lora[{at}]", place, model) for at, each in enumerate(given)]


def _adapter(given: Mapping[str, Any], where: str, place: Path, model: Header) -> Adapter:
    if odd := sorted(given.keys() - set(KEYS)):
        raise ConfigError(f"{where} has no key {odd[0]!r} (have: {', '.join(KEYS)})")
    name, scale = given.get("path"), given.get("scale", 1.0)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where}.path must name a file")
    if type(scale) not in (int, float) or not -100 <= scale <= 100:
        raise ConfigError(f"{where}.scale must be a number from -100 to 100, not {scale!r}")
    file = place / name
    if not file.resolve().is_relative_to(place.resolve()):
        raise ConfigError(f"{where}.path: {name} is outside the model directory")
    if not file.is_file():
        raise ConfigError(f"{where}.path: there is no file {name} in the model directory")
    check_ordinary(file)
    try:
        _check(file, model)
    except ConfigError as error:
        raise ConfigError(f"{where}.path: {name}: {error}") from error
    return file, float(scale)


def _check(file: Path, model: Header) -> None:
    """Raise `ConfigError` for a file that llama.cpp would refuse, or read beyond its end."""
    with contextlib.ExitStack() as held:
        data = held.enter_context(mapped(file))
        header = read_headers([data], [file.name])
        check_tensors(header, [len(data)], [file.name])
    if header.metadata.get("general.type") != "adapter" or header.metadata.get("adapter.type") != "lora":
        raise ConfigError("it is no LoRA adapter (general.type, adapter.type)")
    if header.architecture != model.architecture:
        raise ConfigError(f"it is for the architecture {header.architecture!r}, the model's is {model.architecture!r}")
    shapes = {info.name: info.shape for info in model.tensors}
    for info in header.tensors:
        base, ending = info.name[:-7], info.name[-7:]
        if ending not in ENDINGS or base not in shapes:
            raise ConfigError(f"it changes {info.name}, which the model does not have")
        side = -1 if ending == ".lora_a" else 0
        if len(info.shape) > 1 and info.shape[side] != shapes[base][side] and "token_embd" not in base:
            raise ConfigError(f"{info.name} has another size than the model's {base}")
    there = {info.name for info in header.tensors}
    for name in sorted({info.name[:-7] for info in header.tensors}):
        if len(there & {name + ending for ending in ENDINGS}) < len(ENDINGS):
            raise ConfigError(f"{name} has only one of {', '.join(ENDINGS)}")
