"""Check whether sentence-transformers loads a folder correctly: for `gateway check` and for the load.

Follows modules.json to the folders of the modules. Opens no weights; transformers, whose import takes seconds, is only
imported if the files leave a question open. The library itself replaces missing parts by random numbers, or by a
tokenizer without a vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gateway_checkpoints
from gateway_checkpoints import loadable as checkpoints
from gateway_checkpoints import named, tensor_names, weights, wordless

from gateway import ConfigError, check_ordinary, named_file, peek_architecture, peek_json

from . import module_configs

BY = "sentence-transformers"
ABOUT = "config_sentence_transformers.json"
FOREIGN = f"code that comes with it, or of another package; {checkpoints.TRUST}"
TRANSFORMERS = ("Transformer", "CLIPModel")
POOLING = "1_Pooling/config.json"  # of a saved model, next to a modules.json
# Values of pooling_mode, or of a list in it, in sentence-transformers up to 6.2.
POOLINGS = ("cls", "lasttoken", "max", "mean", "mean_sqrt_len_tokens", "weightedmean")
ROUTERS = ("Router", "Asym")
# The config file of a module. Without it the library creates a default module, or none.
CONFIGS = {
    **dict.fromkeys("Pooling Dense BoW WordWeights LayerNorm WeightedLayerPooling".split(), "config.json"),
    "WordEmbeddings": "wordembedding_config.json",
    "LSTM": "lstm_config.json",
    "CNN": "cnn_config.json",
}
# Functions that a Dense computes with; the library imports what is named, and creates one.
LAYER = re.compile(r"torch\.nn\.(modules\.(activation|linear)\.)?[A-Z]\w*")
DEFAULT = "torch.nn.Tanh"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
WEIGHED = ("Dense", "LayerNorm", "WeightedLayerPooling", "WordEmbeddings", "StaticEmbedding", "LSTM", "CNN")


def check(place: Path, *, trusted: bool = False) -> None:
    """Raise `ConfigError` for what the load reports before it reads the weights, and for useless tokenizers."""
    check_ordinary(place)
    for kind, folder in say_unloadable(place, trusted=trusted):
        if kind in TRANSFORMERS:
            wordless.check(folder, trusted=trusted)
        elif kind == "StaticEmbedding":
            wordless.check(folder)


def say_unloadable(place: Path, *, trusted: bool = False) -> list[tuple[str, Path]]:
    """Return the modules with kind and folder; raise `ConfigError` for missing or incomplete files."""
    checkpoints.say_mismatch(place, BY)
    _say_other(place)
    found = list(_modules(place, trusted=trusted))
    for kind, folder in found:
        if config := CONFIGS.get(kind):
            _say_config(place, kind, folder / config, trusted=trusted)
        if not trusted:
            _say_arguments(kind, folder)
        if kind == "WordEmbeddings":
            _say_words(place, folder / CONFIGS[kind], trusted=trusted)
        if kind in TRANSFORMERS:
            _say_transformer(folder, trusted=trusted)
        elif kind in WEIGHED:
            weights.say_weights(folder, BY, parts=False)
        if kind in TRANSFORMERS or kind == "StaticEmbedding":
            wordless.say_large(folder)
        if kind == "StaticEmbedding" and not (folder / "tokenizer.json").is_file():
            raise unloadable(folder, "it has no tokenizer (tokenizer.json): get it")
    return found


def assumed(place: Path) -> str | None:
    """Return a warning about how the library computes a vector if the checkpoint does not define it; otherwise None."""
    found = peek_architecture(place)
    if (place / "modules.json").is_file() or found is None:
        return None
    config = peek_json(place / "config.json")
    if "vision_config" in config:  # it has its own method
        return None
    is_causal = found.name.endswith("ForCausalLM") and config.get("is_causal", True)
    how = "that of its last token" if is_causal else "the mean of its tokens"
    return f"{found.name}, {found.what}, without modules.json: a vector is {how}, which is not part of the checkpoint"


def say_wrong(place: Path, model: Any) -> None:
    """Raise `ConfigError` if a loaded model has a tokenizer without vocabulary, or weights missing in its files."""
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    for module in model.modules():
        tokenizer, network = getattr(module, "tokenizer", None), getattr(module, "model", None)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            continue
        try:
            matrix = network.get_input_embeddings() if isinstance(network, PreTrainedModel) else None
        except NotImplementedError:  # a model of texts and images has two
            matrix = None
        wordless.say_wordless(place, tokenizer, getattr(matrix, "num_embeddings", None))
        if isinstance(network, PreTrainedModel):
            reads_tokens = getattr(module, "module_output_name", "") == "token_embeddings"
            _say_unfilled(place, network, reads_tokens=reads_tokens)


def _say_other(place: Path) -> None:
    """Raise `ConfigError` for models without text vectors, and for an invalid vector length."""
    found = peek_architecture(place)
    is_whole = (place / "modules.json").is_file() and (found is None or found.is_saved_by == "transformers")
    if found is not None and not found.gives_vectors and not is_whole:
        raise ConfigError(f"{place}: {found}")
    try:
        about = peek_json(place / ABOUT)
        length, default, prompts = (about.get(key) for key in ("truncate_dim", "default_prompt_name", "prompts"))
    except (OSError, ValueError, AttributeError):
        return  # the library reports it if it needs the file
    if length is not None and (type(length) is not int or length < 1):
        raise unloadable(place, f"truncate_dim of {ABOUT} is {length!r}, which is not a vector length: correct it")
    if default is not None and default not in (names := list(prompts or ())):
        listed = ", ".join(map(str, names)) or "there are none"
        raise unloadable(place, f"default_prompt_name of {ABOUT} is {default}, which is none of its prompts ({listed})")


def unloadable(place: Path, why: object) -> ConfigError:
    return gateway_checkpoints.unloadable(place, why, BY)


def _modules(place: Path, *, trusted: bool) -> Iterator[tuple[str, Path]]:
    """Yield the modules. Without a modules.json the library assumes a transformer with mean pooling.

    It also does so if the file of a model with another pooling is missing, whose vectors would then be wrong.
    """
    file = place / "modules.json"
    if not file.is_file():
        rest = [name for name in (ABOUT, POOLING) if (place / name).is_file()]
        if rest:
            raise unloadable(place, f"{rest[0]} exists without modules.json, which defines its vectors: get it")
        yield "Transformer", place
        return
    try:
        listed = [(str(each["type"]), str(each["path"])) for each in peek_json(file)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        what = f"modules.json is not a list of modules ({error}): get it again"
        raise unloadable(place, what) from error
    if not listed:
        raise unloadable(place, "modules.json lists no modules: get it again")
    for kind, name in listed:
        yield from _module(place, kind, named_file(place, name, "modules.json"), trusted=trusted)


def _module(place: Path, kind: str, folder: Path, *, trusted: bool) -> Iterator[tuple[str, Path]]:
    short = kind.rpartition(".")[2]
    if not module_configs.is_module(kind):
        if not trusted:
            raise unloadable(place, f"its module {kind} is {FOREIGN}")
        return
    yield short, folder
    if short not in ROUTERS:
        return
    files = [file for name in ("router_config.json", "config.json") if (file := folder / name).is_file()]
    try:
        inner = {str(name): str(type_) for name, type_ in peek_json(files[0])["types"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"the router_config.json of its {short} is missing or broken: get it again"
        raise unloadable(folder, what) from error
    for name, type_ in inner.items():
        yield from _module(place, type_, named_file(folder, name, files[0].name), trusted=trusted)


def _say_arguments(kind: str, folder: Path) -> None:
    """Check what the files of a module set: the library passes it on to the class."""
    files = {
        **dict.fromkeys(TRANSFORMERS, ("Transformer", module_configs.TRANSFORMER)),
        **dict.fromkeys(ROUTERS, ("Router", ("router_config.json", "config.json"))),
        "Dropout": ("Dropout", ("config.json",)),
    }
    what, names = files.get(kind, (kind, (CONFIGS[kind],) if kind in CONFIGS else ()))
    for file in (file for name in names if (file := folder / name).is_file()):
        module_configs.say_config(what, folder, file)
    if kind == "WordEmbeddings":
        for file in (file for name in module_configs.WORDS if (file := folder / name).is_file()):
            module_configs.say_config("words", folder, file)
        named.say_names(folder, BY)  # of a tokenizer of transformers


def _say_config(place: Path, kind: str, file: Path, *, trusted: bool) -> None:
    name = file.relative_to(place)
    if not file.is_file():
        raise unloadable(place, f"modules.json names a module {kind}, but {name} does not exist: get it")
    try:
        config = peek_json(file)
        function, modes = str(config.get("activation_function", DEFAULT)), config.get("pooling_mode", ())
    except (OSError, ValueError, AttributeError) as error:
        raise unloadable(place, f"{name} of its module {kind} cannot be read ({error}): get it again") from error
    if odd := [mode for mode in ([modes] if isinstance(modes, str) else modes) if mode not in POOLINGS]:
        what = f"{name} of its module {kind} has the pooling_mode {odd[0]}"
        if kind == "Pooling":
            raise unloadable(place, f"{what}, which is none of {', '.join(POOLINGS)}: correct it")
    if not trusted and kind == "Dense" and not LAYER.fullmatch(function):  # the library would use another one
        raise unloadable(place, f"its module {kind} computes with {function}, {FOREIGN}")


def _say_words(place: Path, file: Path, *, trusted: bool) -> None:
    """Check the class that splits texts into words, which the config names."""
    name = str(peek_json(file).get("tokenizer_class"))
    if not trusted and not module_configs.is_tokenizer(name):
        raise unloadable(place, f"{file.relative_to(place)} cuts texts with {name}, {FOREIGN}")
    if name.endswith("PhraseTokenizer") and not find_spec("nltk"):
        raise unloadable(place, f"{file.relative_to(place)} cuts texts with a PhraseTokenizer; run: pip install nltk")


def _say_transformer(folder: Path, *, trusted: bool) -> None:
    named.say_names(folder, BY, trusted=trusted)
    if (folder / "adapter_config.json").is_file():
        if not find_spec("peft"):
            what = "it is an adapter (adapter_config.json), which needs peft; run: pip install peft, or merge it into"
            raise unloadable(folder, f"{what} its base (merge_and_unload of peft)")
        return  # its base is not checked here
    checkpoints.say_unloadable(folder, trusted=trusted, by=BY)
    config = peek_json(folder / "config.json")
    if not trusted and not config.get("quantization_config"):
        checkpoints.say_factors(folder, weights.tensors(folder))
    if not trusted:
        tensor_names.say_names(folder, config)
    if trusted or not {"vision_config", "audio_config"} & config.keys():
        return
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise unloadable(folder, f"it has no {PROCESSORS[0]}, which a model of images or sound is loaded with: get it")
    if "vision_config" in config and not find_spec("PIL"):
        raise unloadable(folder, "a model of images needs Pillow; run: pip install pillow")


def _say_unfilled(place: Path, network: Any, *, reads_tokens: bool) -> None:
    """Check for unfilled weights: transformers 5 marks what it has read, and fills the rest with random numbers."""
    if not find_spec("transformers.core_model_loading"):
        return
    if getattr(network, "hf_quantizer", None) or getattr(network, "_hf_peft_config_loaded", False):
        return  # its tensors are computed from others
    missing = [name for name, value in network.named_parameters() if not getattr(value, "_is_hf_initialized", False)]
    if reads_tokens:  # a pooler combines all tokens to one vector, which is not used
        missing = [name for name in missing if "pooler" not in name.split(".")]
    if missing:
        what = f"{len(missing)} of the tensors of a {type(network).__name__}, {missing[0]} among them"
        raise ConfigError(f"{place}: the checkpoint lacks {what}: it is not complete, or of another kind")
