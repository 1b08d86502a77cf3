"""`LanguageModel`: a GGUF file on llama.cpp. Its base answers requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_fields import unsupported
from gateway_language.fields import Source
from gateway_language.generator import SHORTEST, TextGenerator, templates
from gateway_language.options import whole
from gateway_language.requests import read_flag
from gateway_language.tokenizer import FileTokenizer
from gateway_language.vocabulary import vocabulary

from gateway import ConfigError

from . import adapters, sizes
from .engine import Engine
from .opening import find_file, free_memory, say_engine, thread_count
from .pieces import Pieces
from .server import Shape, open_server

STEP_TOKENS = 128  # prompt tokens in one step: more is hardly faster on a CPU, and running answers wait for it


class LanguageModel(TextGenerator):
    """Chat and completions of one GGUF file, with many requests in one batch."""

    def load(self) -> None:
        file, header = find_file(self.config)
        self.is_gguf = True
        self.tokenizer = FileTokenizer(header.metadata)
        self.tokenizer.chat_template = templates(self.tokenizer.chat_template, self.options.get("chat_template"))
        self.vocabulary = len(self.tokenizer)
        self.stop_ids = self.tokenizer.file.ends
        slots = self.config["runtime"]["predict_concurrency"]
        size = sizes.plan(
            header,
            slots=slots,
            step_tokens=whole(self.options, "step_tokens") or STEP_TOKENS,
            length=whole(self.options, "max_model_len"),
            cells=whole(self.options, "cache_tokens"),
            memory=free_memory(file),
        )
        if size.length < min(SHORTEST, size.context):
            what = f"free memory holds {size.length} tokens besides the weights"
            raise ConfigError(f"{file.name}: {what}; give the model more memory")
        threads = thread_count()
        applied = adapters.read_adapters(self.options, Path.cwd(), header)
        server = open_server(file, Shape(slots, size.cells, slots + size.step_tokens), threads, applied)
        words = vocabulary(self.tokenizer)
        pieces = Pieces(words.bytes, self.vocabulary)
        self.engine = Engine(server, pieces, slots=slots, cells=size.usable, length=size.length)
        self.max_model_len = size.length
        self.capabilities = {"max_model_len": self.max_model_len, "prefill": True}
        self._learn_format()
        say_engine(self.config)
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
