"""What modules.json and the configs of modules may set: the library imports the classes, and passes keys on to them.

An argument may allow pickles, choose a file elsewhere, or name code to fetch or run. Only those listed here are known
to do none of this; others need `trust_remote_code`. Names of files and folders stay inside the directory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway_checkpoints import unloadable
from gateway_checkpoints.loadable import TRUST

from gateway import named_file, peek_json

BY = "sentence-transformers"
PACKAGES = (
    "sentence_transformers.models",
    "sentence_transformers.sentence_transformer.modules",
    "sentence_transformers.base.modules",
)
# Classes that compute vectors, with their files in sentence-transformers up to 6.2.
MODULES = {
    "Asym": "router",
    "BoW": "bow",
    "CLIPModel": "clip_model",
    "CNN": "cnn",
    "Dense": "dense",
    "Dropout": "dropout",
    "LSTM": "lstm",
    "LayerNorm": "layer_norm",
    "Normalize": "normalize",
    "Pooling": "pooling",
    "Router": "router",
    "StaticEmbedding": "static_embedding",
    "Transformer": "transformer",
    "WeightedLayerPooling": "weighted_layer_pooling",
    "WordEmbeddings": "word_embeddings",
    "WordWeights": "word_weights",
}
TOKENIZERS = {"PhraseTokenizer": "phrase", "WhitespaceTokenizer": "whitespace", "TransformersTokenizerWrapper": "word"}
TRANSFORMER = tuple(
    f"sentence_{kind}_config.json" for kind in "bert roberta distilbert camembert albert xlm-roberta xlnet".split()
)  # the library reads the first that exists
WORDS = ("whitespacetokenizer_config.json", "phrasetokenizer_config.json")

POOLING = "cls_token max_tokens mean_tokens mean_sqrt_len_tokens weightedmean_tokens lasttoken"
KEYS: Mapping[str, Collection[str]] = {
    "BoW": "vocab word_weights unknown_word_weight cumulative_term_frequency".split(),
    "CNN": "in_embedding_dimension in_word_embedding_dimension out_channels kernel_sizes stride_sizes".split(),
    "Dense": "in_features out_features bias activation_function module_input_name module_output_name"
    " use_residual".split(),
    "Dropout": ["dropout"],
    "LSTM": "embedding_dimension word_embedding_dimension hidden_dim num_layers dropout bidirectional".split(),
    "LayerNorm": ["dimension"],
    "Pooling": "embedding_dimension word_embedding_dimension pooling_mode include_prompt".split()
    + [f"pooling_mode_{name}" for name in POOLING.split()],
    "WeightedLayerPooling": "embedding_dimension word_embedding_dimension layer_start num_hidden_layers".split(),
    "WordEmbeddings": "tokenizer_class update_embeddings max_seq_length".split(),
    "WordWeights": "vocab word_weights unknown_word_weight".split(),
    "words": "vocab stop_words do_lower_case ngram_separator max_ngram_length".split(),
    "Router": "default_route allow_empty_key route_mappings".split(),
    "Transformer": "max_seq_length do_lower_case transformer_task modality_config module_output_name processing_kwargs"
    " unpad_inputs query_length document_length query_expansion tokenizer_name_or_path processor_name".split(),
}
NAMES = ("tokenizer_name_or_path", "processor_name")

FLAGS = None  # numbers and booleans, or nothing
FLOATS = ("auto", "float16", "float32", "bfloat16", "torch.float16", "torch.float32", "torch.bfloat16")
SIDES = ("left", "right")
Args = Mapping[str, Collection[str] | None]
IGNORED = dict.fromkeys(["trust_remote_code"])  # the library replaces it by what the gateway says
TO_MODEL: Args = {
    **dict.fromkeys("add_pooling_layer low_cpu_mem_usage is_causal is_decoder output_hidden_states use_cache".split()),
    "attn_implementation": ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"),
    "dtype": FLOATS,
    "torch_dtype": FLOATS,
    **IGNORED,
}
TO_TOKENIZER: Args = {
    **dict.fromkeys("add_bos_token add_eos_token add_prefix_space clean_up_tokenization_spaces".split()),
    **dict.fromkeys("do_lower_case fix_mistral_regex legacy max_pixels min_pixels model_max_length".split()),
    **dict.fromkeys("split_special_tokens strip_accents tokenize_chinese_chars use_fast".split()),
    "padding_side": SIDES,
    "truncation_side": SIDES,
    **IGNORED,
}
TO_CONFIG: Args = {
    **dict.fromkeys("is_causal is_decoder num_labels output_attentions output_hidden_states".split()),
    **dict.fromkeys("use_bidirectional_attention use_cache".split()),
    **IGNORED,
}
ARGUMENTS: Mapping[str, Args] = {
    **dict.fromkeys(("model_args", "model_kwargs"), TO_MODEL),
    **dict.fromkeys(("tokenizer_args", "processor_kwargs"), TO_TOKENIZER),
    **dict.fromkeys(("config_args", "config_kwargs"), TO_CONFIG),
}
TASKS = ("feature-extraction", "sequence-classification", "text-generation", "any-to-any", "fill-mask")
FORMATS = ("structured", "flat")
METHODS = ("forward", *(f"get_{kind}_features" for kind in "text image audio video vision multimodal".split()))
LENGTHS = "add_special_tokens max_length pad_to_multiple_of padding padding_side return_attention_mask truncation"
PIXELS = "crop_size do_center_crop do_convert_rgb do_normalize do_rescale do_resize max_pixels min_pixels size"
PROCESSING = {  # to the tokenizer and its like at each call
    "chat_template": "add_generation_prompt continue_final_message enable_thinking restore_suffix task".split(),
    "text": f"{LENGTHS} logits_to_keep return_token_type_ids".split(),
    "audio": f"{LENGTHS} sampling_rate".split(),
    "image": f"{PIXELS} max_patches".split(),
    "video": f"{PIXELS} do_sample_frames fps max_frames min_frames num_frames".split(),
    "common": LENGTHS.split(),
}


def is_module(kind: str) -> bool:
    """Return whether `kind` names a class of the library that is meant as a module, not another attribute of it."""
    return _is_one_of(kind, PACKAGES, MODULES)


def is_tokenizer(kind: str) -> bool:
    """Return whether `kind` names a class of the library that splits texts into words."""
    return _is_one_of(kind, [f"{package}.tokenizer" for package in PACKAGES], TOKENIZERS)


def _is_one_of(kind: str, packages: Collection[str], files: Mapping[str, str]) -> bool:
    name = kind.rpartition(".")[2]
    if name not in files:
        return False
    ways = (name, f"{name}.{name}", f"{files[name]}.{name}")
    return any(kind == f"{package}.{way}" for package in packages for way in ways)


def say_config(kind: str, folder: Path, file: Path) -> None:
    """Raise `ConfigError` if the config of a module sets something that is not known to be harmless.

    `kind` is a class, or "words" for a tokenizer of words.
    """
    config = _object(folder, file)
    if kind == "Router":
        config = config.get("parameters") or {}
    for key in config:
        if key not in KEYS[kind] and not (kind == "Transformer" and key in ARGUMENTS):
            raise _refused(folder, file, str(key))
    if kind != "Transformer":
        return
    for name in NAMES:
        if config.get(name) is not None:
            named_file(folder, config[name], f"{file.name} ({name})")
    for where in _odd(config):
        raise _refused(folder, file, where)


def _odd(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings of a Transformer that are not listed, or have other values than those listed."""
    for name, known in ARGUMENTS.items():
        for key, value in _items(config.get(name)):
            if key not in known or not _is_one(value, known[key] or ()):
                yield f"{name}.{key}"
    if not _is_one(config.get("transformer_task"), TASKS):
        yield "transformer_task"
    for modality, how in _items(config.get("modality_config")):
        for key, value in _items(how):
            known_words = {"method": METHODS, "format": FORMATS}.get(key, ())
            if key not in ("method", "method_output_name", "format"):
                yield f"modality_config.{modality}.{key}"
            elif key != "method_output_name" and value not in known_words:
                yield f"modality_config.{modality}.{key} = {value!r}"
    for kind, how in _items(config.get("processing_kwargs")):
        for key, _ in _items(how):
            if key not in PROCESSING.get(kind, ()):
                yield f"processing_kwargs.{kind}.{key}"


def _items(value: object) -> Iterator[tuple[str, Any]]:
    """Yield the items of an object; anything else is given to the library under a name that no list has."""
    if isinstance(value, dict):
        yield from value.items()
    elif value is not None:
        yield "…", value


def _is_one(value: object, words: Collection[str]) -> bool:
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and value in words)


def _object(folder: Path, file: Path) -> dict[str, Any]:
    try:
        config = peek_json(file)
    except (OSError, ValueError) as error:
        raise unloadable(folder, f"{file.name} cannot be read ({error}): get it again", BY) from error
    if not isinstance(config, dict):
        raise unloadable(folder, f"{file.name} is not an object: get it again", BY)
    return config


def _refused(folder: Path, file: Path, where: str) -> Exception:
    what = f"{file.name} sets {where[:200]}, an argument of the library that a directory of data may not choose"
    return unloadable(folder, f"{what}: remove it, or, {TRUST}", BY)
