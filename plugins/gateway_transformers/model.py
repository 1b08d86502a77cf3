"""`LanguageModel`: a checkpoint, or a converted GGUF file, on the engine here. Its base answers requests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gateway_checkpoints import loadable, named, unloadable, wordless
from gateway_language.generator import SHORTEST, TextGenerator, templates
from gateway_language.gguf import files
from gateway_language.options import whole

from gateway import ConfigError, check_ordinary, peek_patterns, weights_path

from . import architectures, tensor_doubts
from .gguf import conversion


class LanguageModel(TextGenerator):
    """Chat and completions of one checkpoint, with many requests in one batch."""

    def load(self) -> None:
        weights = weights_path(self.config, Path.cwd())
        check_ordinary(weights)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all files are local: nothing may wait for the network
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
        from transformers.utils import logging

        from . import attention
        from .engine import Engine

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = self._dtype(device)
        chosen = peek_patterns(Path.cwd())
        gguf = files.find(weights, [Path.cwd().name], chosen)
        self.is_gguf = gguf is not None
        folder = conversion.folder(gguf, "bfloat16" if dtype == "auto" else dtype) if gguf else weights
        # AutoTokenizer would choose by the model's type, and override the GGUF file
        tokenizer_class = PreTrainedTokenizerFast if gguf else AutoTokenizer
        if not gguf:
            files.say_others(folder, chosen)
            architectures.say_unloadable(folder)
            named.say_names(folder, beside=Path.cwd())
        wordless.say_large(folder)
        try:
            self.tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the tokenizers library raises nothing more specific
            raise wordless.no_tokenizer(folder, error) from error
        wordless.say_wordless(folder, self.tokenizer, wordless.rows(folder))
        try:
            model, told = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
            raise unloadable(folder, error) from error
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):  # a device error, which may not recur
                raise
            raise unloadable(folder, error) from error
        except SafetensorError as error:
            raise ConfigError(f"{folder}: a *.safetensors is damaged ({error}): download the file again") from error
        loadable.say_factors(folder, told["unexpected_keys"])
        tensor_doubts.say_read(folder, told, model)
        self.tokenizer.chat_template = templates(self.tokenizer.chat_template, self.options.get("chat_template"))
        model = model.to(device).eval()
        attention.lay_out(model)
        slots = self.config["runtime"]["predict_concurrency"]
        try:
            self.engine = Engine(
                model,
                slots=slots,
                length=self._context(model.config),
                memory=attention.cache_memory(device),
                step_tokens=whole(self.options, "step_tokens") or (128 if device == "cpu" else 2048),
            )
        except attention.UnsupportedModel as error:
            raise ConfigError(f"{folder}: {type(model).__name__} cannot be batched here: {error}") from error
        self.max_model_len = self.engine.length
        if self.max_model_len < min(SHORTEST, self._context(model.config)):
            what = f"free memory holds {self.max_model_len} tokens in each of {slots} slots"
            raise ConfigError(f"{folder}: {what}; lower runtime.predict_concurrency or give the model more memory")
        self.capabilities = {"max_model_len": self.max_model_len, "prefill": True}
        self.vocabulary = model.get_input_embeddings().num_embeddings
        self.defaults = sampling_defaults(model.generation_config)
        self.stop_ids = stop_ids(model.generation_config, self.tokenizer)
        self._learn_format()
        what = f"{model.num_parameters():,} parameters in {model.dtype} on {device}"
        size = f"{self.engine.cache_bytes / 2**20:,.0f} MiB when all are full"
        if gguf:
            print(f"engine: torch, {self.config.get('engine_why')}")
        print(f"{what}; slots: {slots}, tokens in each: {self.max_model_len}, {size}")

    def _dtype(self, device: str) -> Any:
        import torch

        name = self.options.get("dtype") or ("float32" if device == "cpu" else "auto")
        if name != "auto" and not isinstance(getattr(torch, str(name), None), torch.dtype):
            raise ConfigError(f"options.dtype: torch has no dtype {name!r} (float32, bfloat16, float16, auto)")
        return name

    def _context(self, config: Any) -> int:
        context = getattr(config.get_text_config(), "max_position_embeddings", None) or self.tokenizer.model_max_length
        return min(context, whole(self.options, "max_model_len") or context)


def sampling_defaults(config: Any) -> dict[str, Any]:
    """Return the settings in generation_config.json. A checkpoint that does not sample is greedy by default."""
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
