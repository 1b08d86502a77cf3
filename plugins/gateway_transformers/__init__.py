"""Serve a causal language model of transformers, or a GGUF file, without a Model class.

The hooks are here, and import the other modules when they are called. `LanguageModel` in `model` loads the
weights, `engine` generates the tokens, and the rest is in `gateway_language`. GGUF files are converted here if
`gateway_llamacpp` does not serve them: `engine: torch` in config.yaml. Options, in config.yaml or [models.NAME] of
gateway.toml:

    options:
      max_model_len: 4096     # tokens of prompt and answer; default: the model's context, or what fits into memory
      dtype: bfloat16         # of the weights; default: float32 on a CPU, the checkpoint's on a GPU
      step_tokens: 128        # prompt tokens read in one step while other answers are running
      chat_template: rag      # the default, if there are several named templates
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway import (
    ConfigError,
    Format,
    ModelSpec,
    Problem,
    check_ordinary,
    describe,
    hookimpl,
    peek_patterns,
    peek_weights,
)

TARGET = "gateway_transformers.model:LanguageModel"
FORMAT = Format(
    files="a checkpoint of a causal language model (config.json, *.safetensors), or *.gguf",
    routes=("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    needs=("transformers", "torch"),
    install="pip install 'model-gateway[transformers]'",
)
SLOTS = 16  # concurrent requests; on a CPU, a step with 16 rows costs little more than with 8


@hookimpl
def register_formats(register: Callable[[str, Format], None]) -> None:
    register("transformers", FORMAT)


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    """Claim a directory with a causal language model or a GGUF file, its own or one named in config.yaml."""
    from gateway_language.gguf import serving

    from .directories import is_language_model, odd

    if not is_language_model(path):
        return None
    spec = describe(
        path,
        target=TARGET,
        format="transformers",
        overrides=overrides,
        slots=SLOTS,
        needs=FORMAT.needs,
        install=FORMAT.install,
    )
    if serving.has_gguf(path):
        choice = serving.choose(spec)
        if choice.engine != serving.TORCH:
            return None  # gateway_llamacpp serves it
        spec = replace(spec, config={**spec.config, "engine_why": choice.why})
    elif (engine := spec.config.get("engine")) not in (None, serving.TORCH):
        raise ConfigError(f"{path}: engine: {engine!r} cannot serve a checkpoint of transformers (have: torch)")
    notes, asides = (*spec.notes, *odd(path)), (*spec.asides, *serving.passed_over(path))
    return replace(spec, notes=notes, asides=asides)


@hookimpl
def check_model(spec: ModelSpec) -> Iterator[Problem]:
    """Report what the load of a GGUF file or of a checkpoint would report before it reads the weights."""
    if spec.target != TARGET or (place := peek_weights(spec.root)) is None:
        return
    from gateway_checkpoints import wordless
    from gateway_language.gguf import files
    from gateway_language.gguf.faults import say_faults

    from . import architectures, tensor_doubts
    from .gguf import conversion

    file: Path | None = place
    chosen = peek_patterns(spec.root)
    try:
        if file := files.find(place, [spec.root.name], chosen):
            for warning in say_faults(file, conversion.say_unread):
                yield Problem(where=str(spec.root), what=warning, level="warning", code="odd_gguf", model=spec.name)
            return
        files.say_others(place, chosen)
        if spec.python is None:  # other environments may have another version of the library
            check_ordinary(place)
            architectures.check(place)
            wordless.check(place)
            tensor_doubts.check(place)
    except (ConfigError, OSError, ValueError) as error:
        code = "invalid_gguf" if file else "unloadable"
        what = str(error).removeprefix(f"{spec.root}: ")
        yield Problem(where=str(spec.root), what=what, code=code, model=spec.name)
