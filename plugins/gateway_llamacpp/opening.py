"""What the classes of this plugin have in common: which file is the model, its header, and its threads."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_language.gguf import files
from gateway_language.gguf.faults import mapped, read, say_faults
from gateway_language.gguf.header import Header
from gateway_language.gguf.kinds import Task
from gateway_language.memory import available

from gateway import ConfigError, check_ordinary, peek_patterns, weights_path


def find_file(config: Mapping[str, Any], task: Task = "chat") -> tuple[Path, Header]:
    """Return the GGUF file of the working directory, and its header. Raises `ConfigError` if it cannot be served.

    llama.cpp reads the file afterwards: its errors are few words, and a damaged file may end the process.
    """
    weights = weights_path(config, Path.cwd())
    check_ordinary(weights)
    chosen = peek_patterns(Path.cwd())
    file = files.find(weights, [Path.cwd().name], chosen)
    if file is None:
        files.say_others(weights, chosen)
        raise ConfigError(f"{weights}: there is no GGUF file")
    say_faults(file, check_words, task)
    parts = files.parts(file)
    with contextlib.ExitStack() as held:
        return file, read([held.enter_context(mapped(part)) for part in parts], parts, task)


def check_words(header: Header) -> None:
    """Raise `ConfigError` for a vocabulary that would end the process: llama.cpp cuts words at a zero byte."""
    words = header.metadata.get("tokenizer.ggml.tokens") or []
    if len({word.partition("\0")[0] for word in words if word}) < len([word for word in words if word]):
        raise ConfigError("two words of its vocabulary are the same up to a zero byte: get the file again")


def free_memory(file: Path) -> int:
    """Return the bytes that a cache may take: half of what is free, without the weights."""
    return available() // 2 - sum(part.stat().st_size for part in files.parts(file))


def thread_count() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def say_engine(config: Mapping[str, Any]) -> None:
    version = importlib.metadata.version("xllamacpp")
    print(f"engine: llama.cpp (xllamacpp {version}), {config.get('engine_why')}")
