"""Serve a causal language model of transformers, or a GGUF file, without writing a Model.

Finds directories with a checkpoint and answers chat and completions. The gateway_lm_* modules beside it read requests
and answers, batch, sample and read GGUF files. Options, in config.yaml or [models.NAME] of gateway.toml:

    options:
      max_model_len: 4096     # tokens of prompt and answer; the model's context, or what fits into memory, if less
      dtype: bfloat16         # of the weights; float32 on a CPU, on a GPU the checkpoint's
      step_tokens: 128        # prompt tokens that one step reads while other answers are running
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gateway import BadRequest, ConfigError, ModelSpec, describe, hookimpl, peek_weights, weights_path

if TYPE_CHECKING:
    from gateway_lm_requests import Tools
    from gateway_lm_tools import Parser

SLOTS = 16  # requests that run at once; each step costs a CPU little more for 16 rows than for 8
LONG_PROMPT = 20_000  # characters above which a prompt is tokenised off the loop; this many take about 10 ms
NO_EFFORT = ("none", "minimal")  # words of `reasoning_effort` that ask for no thought
ENDING = 8  # tokens at the end of a prompt that tell whether it has opened a thought
SHORTEST = 64  # tokens; a model that can hold no more in a slot is not worth serving


@hookimpl
def find_model(path: Path, overrides: Mapping[str, Any]) -> ModelSpec | None:
    """A directory with a causal-LM checkpoint or a GGUF file, its own or the one its config.yaml names."""
    if not is_language_model(path):
        return None
    return describe(
        path,
        target="gateway_transformers:LanguageModel",
        format="transformers",
        overrides=overrides,
        slots=SLOTS,
        extra="transformers",
    )


def is_language_model(path: Path) -> bool:
    """1. config.yaml names the framework  2. it has code of its own  3. its weights are a GGUF  4. or a checkpoint"""
    config = _read_yaml(path / "config.yaml")
    if framework := config.get("framework"):
        return framework == "transformers"
    code = Path(str(config.get("model_module_dir", "model")), str(config.get("model_class_filename", "model.py")))
    if (path / code).is_file() or (path / "model.py").is_file():
        return False
    weights = config.get("weights")
    entry = weights[0] if isinstance(weights, list) and weights else None
    if isinstance(entry, dict) and str(entry.get("source", "")).endswith(".gguf"):
        return True  # also when it is not installed yet: the load says how to get it
    place = peek_weights(path)
    return place is not None and (find_gguf(place) is not None or is_checkpoint(place))


def is_checkpoint(place: Path) -> bool:
    """A folder with safetensors and a config.json for text generation; not one of sentence-transformers."""
    if (place / "modules.json").is_file() or not any(place.glob("*.safetensors")):
        return False
    try:
        config = json.loads((place / "config.json").read_text())
    except (OSError, ValueError):
        return False
    architectures = config.get("architectures") if isinstance(config, dict) else None
    return any(str(name).endswith("ForCausalLM") for name in architectures or ())


def find_gguf(place: Path) -> Path | None:
    if place.is_dir():
        return min(place.glob("*.gguf"), default=None)
    return place if place.suffix == ".gguf" else None


def _read_yaml(file: Path) -> dict[str, Any]:
    """The file as it is written; {} where there is none or it is broken, which `describe` reports."""
    try:
        data = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return data if isinstance(data, dict) else {}


class LanguageModel:
    """Chat and completions of one checkpoint, many requests in one batch."""

    def __init__(self, config: Mapping[str, Any], data_dir: Path) -> None:
        self.config = config
        self.options = config.get("options") or {}
        self.capabilities: dict[str, Any] = {}
        self.engine: Any = None
        self.family: type[Parser] | None = None  # how the model writes calls, if it can
        self.thinks = False

    def load(self) -> None:
        weights = weights_path(self.config, Path.cwd())
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all files are here: nothing may wait for a network
        import gateway_lm_attention
        import gateway_lm_engine
        import gateway_lm_gguf
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
        from transformers.utils import logging

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = self._dtype(device)
        gguf = find_gguf(weights)
        folder = gateway_lm_gguf.folder(gguf, "bfloat16" if dtype == "auto" else dtype) if gguf else weights
        # AutoTokenizer would go by the model's type, and overrule what the GGUF says
        tokenizer_class = PreTrainedTokenizerFast if gguf else AutoTokenizer
        try:
            self.tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{folder}: transformers cannot load this checkpoint: {error}") from error
        model = model.to(device).eval()
        gateway_lm_attention.lay_out(model)
        slots = self.config["runtime"]["predict_concurrency"]
        try:
            self.engine = gateway_lm_engine.Engine(
                model,
                slots=slots,
                length=self._context(model.config),
                memory=gateway_lm_attention.cache_memory(device),
                step_tokens=self._whole("step_tokens") or (128 if device == "cpu" else 2048),
            )
        except gateway_lm_attention.UnsupportedModel as error:
            raise ConfigError(f"{folder}: {type(model).__name__} cannot be batched here: {error}") from error
        self.max_model_len = self.engine.length
        if self.max_model_len < min(SHORTEST, self._context(model.config)):
            what = f"free memory holds {self.max_model_len} tokens in each of {slots} slots"
            raise ConfigError(f"{folder}: {what}; lower runtime.predict_concurrency or give the model more memory")
        self.capabilities = {"max_model_len": self.max_model_len}
        self.vocabulary = model.get_input_embeddings().num_embeddings
        self.defaults = sampling_defaults(model.generation_config)
        self.stop_ids = stop_ids(model.generation_config, self.tokenizer)
        self._learn_format()
        what = f"{model.num_parameters():,} parameters in {model.dtype} on {device}"
        size = f"{self.engine.cache_bytes / 2**20:,.0f} MiB when all are full"
        print(f"{what}; {slots} slots of {self.max_model_len} tokens, {size}")

    def _learn_format(self) -> None:
        """How the model writes thoughts and calls, from its chat template and its vocabulary."""
        from gateway_lm_answer import TAGS
        from gateway_lm_tools import family

        template = self.tokenizer.chat_template or ""
        template = template if isinstance(template, str) else "\n".join(template.values())
        known = {token.content: number for number, token in self.tokenizer.added_tokens_decoder.items()}
        self.family = family(template)
        self.thinks = TAGS[1] in template or known.keys() >= set(TAGS)
        tags = {known[tag]: tag for tag in (*TAGS, *(self.family.tags if self.family else ())) if tag in known}
        self.special_tags = {
            token: tag for token, tag in tags.items() if self.tokenizer.added_tokens_decoder[token].special
        }

    def unload(self) -> None:
        if self.engine is not None:
            self.engine.stop()

    def is_healthy(self) -> bool:
        return self.engine is not None and self.engine.is_alive

    async def chat_completions(self, inputs: dict[str, Any]) -> AsyncIterator[str | dict[str, Any]]:
        """Pieces of text, thoughts and calls as they come, then the finish reason and the usage."""
        import gateway_lm_requests as requests

        requests.check_supported(inputs)
        if inputs.get("echo"):
            raise requests.unsupported("echo is for completions", "echo")
        tools = requests.read_tools(inputs, can_call=self.family is not None)
        async with aclosing(self._answer(inputs, "messages", self.chat_prompt, tools)) as items:
            async for item in items:
                yield item

    async def completions(self, inputs: dict[str, Any]) -> AsyncIterator[str | dict[str, Any]]:
        """The same for a bare prompt, text or token ids. All of the answer is text, also what looks like a call."""
        import gateway_lm_requests as requests

        requests.check_supported(inputs)
        async with aclosing(self._answer(inputs, "prompt", self.plain_prompt)) as items:
            async for item in items:
                yield item

    def count_tokens(self, value: Any, tools: list[dict[str, Any]] | None = None) -> int:
        """Of a text, of token ids, or of messages: the prompt that they would make."""
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return len(self.chat_prompt({"messages": value, "tools": tools}))
        return len(self.plain_prompt({"prompt": value}))

    async def _answer(
        self,
        inputs: Mapping[str, Any],
        source: str,
        read: Callable[[Mapping[str, Any]], list[int]],
        tools: Tools | None = None,
    ) -> AsyncIterator[str | dict[str, Any]]:
        """`read` makes a prompt of the field `source`."""
        import gateway_lm_requests as requests
        from gateway_lm_answer import TAGS, Answer, Thinking
        from gateway_lm_engine import Record
        from gateway_lm_logprobs import Logprobs
        from gateway_lm_reply import Reply
        from gateway_lm_sampling import Sampling
        from gateway_lm_text import StopStrings, TextStream

        sampling = Sampling(**{**self.defaults, **requests.read_sampling(inputs, self.vocabulary)})
        stops = StopStrings(requests.read_texts(inputs, "stop"))
        is_long = len(str(inputs.get(source))) + len(str(inputs.get("tools"))) > LONG_PROMPT
        prompt = await asyncio.to_thread(read, inputs) if is_long else read(inputs)
        limit = self._limit(prompt, inputs, source)
        thinking = Thinking(self._is_thinking(prompt)) if source == "messages" and self.thinks else None
        calls, tags = None, TAGS if thinking else ()
        if tools is not None and self.family is not None:
            calls, tags = self.family(tools.names, single=tools.single), (*tags, *self.family.tags)
            sampling = replace(sampling, begins=self._begins(tools, prompt))
        record = Record()
        logprobs = Logprobs(self.tokenizer, record) if sampling.logprobs is not None else None
        echo = bool(inputs.get("echo"))
        if echo and logprobs is not None:
            sampling = replace(sampling, prompt_logprobs=True)
        elif echo:
            yield {"content": self._echoed(inputs)}
        markup = {token: tag for token, tag in self.special_tags.items() if tag in tags}
        text = TextStream(self.tokenizer, prompt, markup)
        reply = Reply(text, Answer(thinking, calls, stops), self.stop_ids, logprobs)
        # An answer of no tokens is asked for to see the prompt; its logprobs come with a first token.
        length = limit or (1 if sampling.prompt_logprobs else 0)
        if length:
            async with aclosing(self.engine.generate(prompt, length, self.stop_ids, sampling, record)) as steps:
                async for tokens in steps:
                    if sampling.prompt_logprobs and logprobs is not None and not reply.count:
                        yield {"content": self._echoed(inputs), "logprobs": logprobs.of_prompt(prompt)}
                    for event in reply.read(tokens) if limit else ():
                        yield event
                    if reply.reason is not None:
                        break
        for event in reply.finish():
            yield event
        yield reply.ending(len(prompt), record.cached)

    def chat_prompt(self, inputs: Mapping[str, Any]) -> list[int]:
        import gateway_lm_requests as requests
        from jinja2 import TemplateError

        if not self.tokenizer.chat_template:
            what = "this model has no chat template, so it cannot chat; use /v1/completions"
            raise requests.unsupported(what, "messages")
        can_call = self.family is not None
        given = enumerate(inputs.get("messages") or ())
        messages = [requests.read_message(message, index, can_call=can_call) for index, message in given]
        if not messages:
            raise BadRequest("messages must hold at least one message", param="messages")
        tools = requests.read_tools(inputs, can_call=can_call)
        options = inputs.get("chat_template_kwargs") or {}
        reserved = inspect.signature(self.tokenizer.apply_chat_template).parameters
        if not isinstance(options, dict) or (taken := options.keys() & reserved.keys()):
            what = f"cannot set {', '.join(sorted(taken))}" if isinstance(options, dict) else "must be an object"
            raise BadRequest(f"chat_template_kwargs {what}", param="chat_template_kwargs")
        if isinstance(effort := inputs.get("reasoning_effort"), str) and self.thinks:
            options = {"reasoning_effort": effort, "enable_thinking": effort not in NO_EFFORT, **options}
        if tools is not None:
            options = {**options, "tools": tools.offered}
            if tools.forced and self.thinks:
                options["enable_thinking"] = False  # the answer begins with the call
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
        except (TemplateError, TypeError, ValueError) as error:
            what = f"the model's chat template does not take these messages: {error}"
            raise BadRequest(what, param="messages") from error
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def plain_prompt(self, inputs: Mapping[str, Any]) -> list[int]:
        prompt = inputs.get("prompt")
        if isinstance(prompt, str):
            return self.tokenizer(prompt)["input_ids"]
        if isinstance(prompt, list) and all(type(token) is int for token in prompt):
            return prompt
        raise BadRequest("prompt must be a text or a list of token ids", param="prompt", code="invalid_type")

    def _echoed(self, inputs: Mapping[str, Any]) -> str:
        prompt = inputs["prompt"]
        return prompt if isinstance(prompt, str) else self.tokenizer.decode(prompt)

    def _is_thinking(self, prompt: list[int]) -> bool:
        """Whether the template has opened a thought already."""
        from gateway_lm_answer import OPEN

        return self.tokenizer.decode(prompt[-ENDING:]).rstrip().endswith(OPEN)

    def _begins(self, tools: Tools, prompt: list[int]) -> tuple[tuple[int, ...], ...]:
        """How the answer may begin, where a function has to be called."""
        from gateway_lm_answer import CLOSE

        assert self.family is not None
        before = f"\n{CLOSE}\n\n" if tools.forced and self._is_thinking(prompt) else ""
        texts = (before + self.family.forced(name) for name in tools.forced)
        return tuple(tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)

    def _limit(self, prompt: list[int], inputs: Mapping[str, Any], source: str) -> int:
        """How many tokens the answer may have. Raises `BadRequest` for what would be too much for the engine."""
        if not prompt:
            raise BadRequest("the prompt is empty", param=source)
        if min(prompt) < 0 or max(prompt) >= self.vocabulary:  # would fail the whole batch
            raise BadRequest(f"the model knows tokens 0 to {self.vocabulary - 1} only", param=source)
        wanted = inputs.get("max_completion_tokens", inputs.get("max_tokens"))
        least = 0 if source == "prompt" else 1
        if wanted is not None and (type(wanted) is not int or wanted < least):
            raise BadRequest(f"max_tokens must be a whole number of at least {least}", param="max_tokens")
        used = len(prompt)
        if used + (wanted or 1) > self.max_model_len:
            raise BadRequest(
                f"This model's maximum context length is {self.max_model_len} tokens. However, you requested "
                f"{used + (wanted or 0)} tokens ({used} in the {source}, {wanted or 0} in the completion). Please "
                f"reduce the length of the {source} or completion.",
                param=source,
                code="context_length_exceeded",
            )
        return self.max_model_len - used if wanted is None else wanted

    def _dtype(self, device: str) -> Any:
        import torch

        name = self.options.get("dtype") or ("float32" if device == "cpu" else "auto")
        if name != "auto" and not isinstance(getattr(torch, str(name), None), torch.dtype):
            raise ConfigError(f"options.dtype: torch has no dtype {name!r} (float32, bfloat16, float16, auto)")
        return name

    def _context(self, config: Any) -> int:
        context = getattr(config.get_text_config(), "max_position_embeddings", None) or self.tokenizer.model_max_length
        return min(context, self._whole("max_model_len") or context)

    def _whole(self, name: str) -> int | None:
        value = self.options.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"options.{name} must be a whole number of at least 1, not {value!r}")
        return value


def sampling_defaults(config: Any) -> dict[str, Any]:
    """What generation_config.json says; a checkpoint that does not sample is greedy until a request says otherwise."""
    values = {name: getattr(config, name, None) for name in ("top_p", "top_k", "min_p", "repetition_penalty")}
    known = {name: value for name, value in values.items() if value is not None}
    if not getattr(config, "do_sample", False):
        known = {name: value for name, value in known.items() if name == "repetition_penalty"}
        return {**known, "temperature": 0.0}
    temperature = getattr(config, "temperature", None)
    return {**known, "temperature": 1.0 if temperature is None else temperature}


def stop_ids(config: Any, tokenizer: Any) -> frozenset[int]:
    given = getattr(config, "eos_token_id", None)
    ids = [given] if isinstance(given, int) else list(given or ())
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)
