"""Serve a GGUF file with llama.cpp, on a CPU, without a Model class.

The hooks are here, and import the other modules when they are called. `LanguageModel` in `model` loads the file;
`server` opens llama.cpp in the worker, `engine` generates tokens with it, and the rest is in `gateway_language`. This
engine is the default if xllamacpp is installed; `engine: torch` in config.yaml chooses the other one. Options, in
config.yaml or [models.NAME] of gateway.toml:

    options:
      max_model_len: 4096     # tokens of prompt and answer; default: the model's context, or what fits into memory
      cache_tokens: 32768     # tokens of all running requests together; default: max_model_len, or 512 for each slot
      step_tokens: 128        # prompt tokens read in one step while other answers are running
      chat_template: rag      # the default, if there are several named templates
      lora: [{path: style.gguf, scale: 0.5}]   # LoRA files in the model directory that change the weights
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import ConfigError, Format, ModelSpec, Problem, describe, hookimpl, peek_patterns, peek_weights

TARGET = "gateway_llamacpp.model:LanguageModel"
FORMAT = Format(
    files="*.gguf, on a CPU",
    routes=("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    needs=("xllamacpp", "tokenizers", "jinja2"),
    install="pip install 'model-gateway[llamacpp]'",
)
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
        target=TARGET,
        format="llamacpp",
        overrides=overrides,
        slots=SLOTS,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    choice = serving.choose(spec)
    if choice.engine != serving.LLAMACPP:
        return None
    notes, asides = (*spec.notes, *serving.odd(path)), (*spec.asides, *serving.passed_over(path))
    return replace(spec, config={**spec.config, "engine_why": choice.why}, notes=notes, asides=asides)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report what the load of a GGUF file would report before llama.cpp reads the weights."""
    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    from gateway_language.gguf import files
    from gateway_language.gguf.faults import say_faults

    chosen = peek_patterns(spec.root)
    try:
        if file := files.find(place, [spec.root.name], chosen):
            for warning in say_faults(file):
                yield Problem(where=str(spec.root), what=warning, level="warning", code="odd_gguf", model=spec.name)
        else:
            files.say_others(place, chosen)
    except (ConfigError, OSError, ValueError) as error:
        what = str(error).removeprefix(f"{spec.root}: ")
        yield Problem(where=str(spec.root), what=what, code="invalid_gguf", model=spec.name)
