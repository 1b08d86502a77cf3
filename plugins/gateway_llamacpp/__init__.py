"""Serve a GGUF file with llama.cpp, on a CPU, without a Model class.

The hooks are here, and import the other modules when they are called. `LanguageModel` in `model` loads a language
model, `Embedder` and `Reranker` in `texts` those for vectors and ratings, which the header says. `server` opens
llama.cpp in the worker, `engine` generates tokens with it, `encoder` computes vectors, and the rest is in
`gateway_language`. This engine is the default if xllamacpp is installed; `engine: torch` in config.yaml chooses the
other one for a language model. Options, in config.yaml or [models.NAME] of gateway.toml:

    options:
      max_model_len: 4096     # tokens of prompt and answer; default: the model's context, or what fits into memory
      cache_tokens: 32768     # tokens of all running requests together; default: max_model_len, or 512 for each slot
      step_tokens: 128        # prompt tokens read in one step while other answers are running
      chat_template: rag      # the default, if there are several named templates
      lora: [{path: style.gguf, scale: 0.5}]   # LoRA files in the model directory that change the weights

    options:                  # for vectors and ratings
      max_model_len: 2048     # tokens of one text; default: the model's context, at most 8192
      truncate: true          # cut texts that are too long, unless the request says otherwise; default: 400
      pooling: last           # mean, cls, last or rank, if the header does not say it
      prompts: {query: "search_query: "}   # put before texts, by `input_type` or `prompt_name`
      default_prompt: query   # for requests that name none
      matryoshka: true        # vectors may be shortened by `dimensions`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_patterns, peek_weights

TARGETS = {
    "chat": "gateway_llamacpp.model:LanguageModel",
    "embeddings": "gateway_llamacpp.texts:Embedder",
    "rerank": "gateway_llamacpp.texts:Reranker",
}
FORMAT = Format(
    files="*.gguf, on a CPU",
    routes=(
        *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
        *("/v1/embeddings", "/v1/rerank", "/v1/score"),
    ),
    needs=("xllamacpp", "tokenizers", "jinja2", "numpy"),
    install="pip install 'model-gateway[llamacpp]'",
)
BATCH = 64  # pairs of several calls; llama.cpp gets fewer at a time
SLOTS = 16  # concurrent requests; the step of a small model with 16 rows costs less than two with 8


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("llamacpp", FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    """Claim a directory with a GGUF file, its own or one named in config.yaml, unless another engine is to serve it."""
    from gateway_language.gguf import serving

    if not serving.is_claimed(path):
        return None
    spec = describe(
        path,
        target=TARGETS["chat"],
        format="llamacpp",
        overrides=overrides,
        slots=SLOTS,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    choice = serving.choose(spec)
    if choice.engine != serving.LLAMACPP:
        return None
    task = serving.task(spec)
    spec = replace(spec, target=TARGETS[task])
    if task == "rerank" and spec.batching.size is None:
        spec = replace(spec, batching=replace(spec.batching, size=BATCH))
    notes, asides = (*spec.notes, *serving.odd(path)), (*spec.asides, *serving.passed_over(path))
    return replace(spec, config={**spec.config, "engine_why": choice.why}, notes=notes, asides=asides)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report what the load of a GGUF file would report before llama.cpp reads the weights."""
    if spec.target not in TARGETS.values() or (place := peek_weights(spec.root)) is None:
        return
    from gateway_language.gguf import files
    from gateway_language.gguf.faults import say_faults
    from gateway_language.gguf.serving import task

    from .opening import check_words

    chosen = peek_patterns(spec.root)
    try:
        if file := files.find(place, [spec.root.name], chosen):
            for warning in say_faults(file, check_words, task(spec)):
                yield Problem(where=str(spec.root), what=warning, level="warning", code="odd_gguf", model=spec.name)
        else:
            files.say_others(place, chosen)
    except (ConfigError, OSError, ValueError) as error:
        what = str(error).removeprefix(f"{spec.root}: ")
        yield Problem(where=str(spec.root), what=what, code="invalid_gguf", model=spec.name)
