"""`LanguageModel`: a GGUF file on llama.cpp. Its base answers requests."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_fields import unsupported
from gateway_language.fields import Source
from gateway_language.generator import SHORTEST, TextGenerator, templates
from gateway_language.gguf import files
from gateway_language.gguf.faults import mapped, read, say_faults
from gateway_language.gguf.header import Header
from gateway_language.memory import available
from gateway_language.requests import read_flag
from gateway_language.tokenizer import FileTokenizer
from gateway_language.vocabulary import vocabulary

from gateway import ConfigError, check_ordinary, peek_patterns, weights_path

from . import adapters, sizes
from .engine import Engine
from .pieces import Pieces
from .server import open_server

STEP_TOKENS = 128  # prompt tokens in one step: more is hardly faster on a CPU, and running answers wait for it


class LanguageModel(TextGenerator):
    """Chat and completions of one GGUF file, with many requests in one batch."""

    def load(self) -> None:
        weights = weights_path(self.config, Path.cwd())
        check_ordinary(weights)
        chosen = peek_patterns(Path.cwd())
        file = files.find(weights, [Path.cwd().name], chosen)
        if file is None:
            files.say_others(weights, chosen)
            raise ConfigError(f"{weights}: there is no GGUF file")
        say_faults(file)  # before llama.cpp reads it: its errors are few words, and a damaged file may end the process
        header = _header(file)
        self.is_gguf = True
        self.tokenizer = FileTokenizer(header.metadata)
        self.tokenizer.chat_template = templates(self.tokenizer.chat_template, self.options.get("chat_template"))
        self.vocabulary = len(self.tokenizer)
        self.stop_ids = self.tokenizer.file.ends
        slots = self.config["runtime"]["predict_concurrency"]
        step = self._whole("step_tokens") or STEP_TOKENS
        size = sizes.plan(
            header,
            slots=slots,
            step_tokens=step,
            length=self._whole("max_model_len"),
            cells=self._whole("cache_tokens"),
            memory=available() // 2 - sum(part.stat().st_size for part in files.parts(file)),
        )
        if size.length < min(SHORTEST, size.context):
            what = f"free memory holds {size.length} tokens besides the weights"
            raise ConfigError(f"{file.name}: {what}; give the model more memory")
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        applied = adapters.read_adapters(self.options, Path.cwd(), header)
        server = open_server(file, size, threads, applied)
        words = vocabulary(self.tokenizer)
        pieces = Pieces(words.bytes, self.vocabulary)
        self.engine = Engine(server, pieces, slots=slots, cells=size.usable, length=size.length)
        self.max_model_len = size.length
        self.capabilities = {"max_model_len": self.max_model_len, "prefill": True}
        self._learn_format()
        version = importlib.metadata.version("xllamacpp")
        print(f"engine: llama.cpp (xllamacpp {version}), {self.config.get('engine_why')}")
        for path, scale in applied:
            print(f"LoRA adapter {path.name}, scale {scale:g}")
        cache = f"{size.cells * size.cell_bytes / 2**20:,.0f} MiB"
        print(
            f"slots: {slots}, tokens in each: {size.length}, in all together: {size.usable}, {cache}; "
            f"threads: {threads}"
        )

    def _check(self, inputs: Mapping[str, Any], source: Source) -> dict[str, Any]:
        read = super()._check(inputs, source)
        if source == "completions" and read_flag(read, "echo") and read.get("logprobs") not in (None, False):
            what = "the engine of this model (llama.cpp) computes no log probabilities of a prompt"
            raise unsupported(f"{what}: send echo or logprobs, not both; engine: torch does both", "logprobs")
        return read


def _header(file: Path) -> Header:
    parts = files.parts(file)
    with contextlib.ExitStack() as held:
        return read([held.enter_context(mapped(part)) for part in parts], parts)
