"""Whether sentence-transformers can load a folder, and reads what was saved: for `gateway check` and for the load.

Follows modules.json to the folders of its modules. Opens no weights; transformers is imported, which takes seconds,
only where files leave a question open. The library itself fills what it does not find with random numbers, or with a
tokenizer that knows no words.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gateway_checkpoints as checkpoints
import gateway_tensor_names
import gateway_wordless

from gateway import ConfigError, check_ordinary, peek_architecture, peek_json

BY = "sentence-transformers"
ABOUT = "config_sentence_transformers.json"
OURS = "sentence_transformers."
FOREIGN = f"code that comes with it, or of another package; {checkpoints.TRUST}"
TRANSFORMERS = ("Transformer", "CLIPModel")
POOLING = "1_Pooling/config.json"  # of a saved model, beside a modules.json
# Of sentence-transformers up to 6.2, one of which pooling_mode names, or a list of them.
POOLINGS = ("cls", "lasttoken", "max", "mean", "mean_sqrt_len_tokens", "weightedmean")
ROUTERS = ("Router", "Asym")
# The file that tells a module how it was made. Without it the library makes another one, or none.
CONFIGS = {
    **dict.fromkeys("Pooling Dense BoW WordWeights LayerNorm WeightedLayerPooling".split(), "config.json"),
    "WordEmbeddings": "wordembedding_config.json",
    "LSTM": "lstm_config.json",
    "CNN": "cnn_config.json",
}
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
WEIGHED = ("Dense", "LayerNorm", "WeightedLayerPooling", "WordEmbeddings", "StaticEmbedding", "LSTM", "CNN")


def check(place: Path, *, trusted: bool = False) -> None:
    """Raise `ConfigError` for what the load says before it reads the weights, and for tokenizers without words."""
    check_ordinary(place)
    for kind, folder in say_unloadable(place, trusted=trusted):
        if kind in TRANSFORMERS:
            gateway_wordless.check(folder, trusted=trusted)
        elif kind == "StaticEmbedding":
            gateway_wordless.check(folder)


def say_unloadable(place: Path, *, trusted: bool = False) -> list[tuple[str, Path]]:
    """The modules, each with its kind and its folder; raise `ConfigError` for files that are missing or not whole."""
    checkpoints.say_mismatch(place, BY)
    _say_other(place)
    found = list(_modules(place, trusted=trusted))
    for kind, folder in found:
        if config := CONFIGS.get(kind):
            _say_config(place, kind, folder / config, trusted=trusted)
        if kind == "WordEmbeddings":
            _say_words(place, folder / CONFIGS[kind], trusted=trusted)
        if kind in TRANSFORMERS:
            _say_transformer(folder, trusted=trusted)
        elif kind in WEIGHED:
            checkpoints.say_weights(folder, BY, parts=False)
        if kind in TRANSFORMERS or kind == "StaticEmbedding":
            gateway_wordless.say_large(folder)
        if kind == "StaticEmbedding" and not (folder / "tokenizer.json").is_file():
            raise unloadable(folder, "it has no tokenizer (tokenizer.json): get it")
    return found


def assumed(place: Path) -> str | None:
    """How the library makes a vector where the checkpoint does not say it; None where it does."""
    found = peek_architecture(place)
    if (place / "modules.json").is_file() or found is None:
        return None
    config = peek_json(place / "config.json")
    if "vision_config" in config:  # it has a way of its own
        return None
    is_causal = found.name.endswith("ForCausalLM") and config.get("is_causal", True)
    how = "that of its last token" if is_causal else "the mean of its tokens"
    return f"{found.name}, {found.what}, without modules.json: a vector is {how}, which is not part of the checkpoint"


def say_wrong(place: Path, model: Any) -> None:
    """Raise `ConfigError` where a loaded model has tokenizers without words, or weights that no file had."""
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    for module in model.modules():
        tokenizer, network = getattr(module, "tokenizer", None), getattr(module, "model", None)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            continue
        try:
            matrix = network.get_input_embeddings() if isinstance(network, PreTrainedModel) else None
        except NotImplementedError:  # a model of texts and images has two
            matrix = None
        gateway_wordless.say_wordless(place, tokenizer, getattr(matrix, "num_embeddings", None))
        if isinstance(network, PreTrainedModel):
            reads_tokens = getattr(module, "module_output_name", "") == "token_embeddings"
            _say_unfilled(place, network, reads_tokens=reads_tokens)


def _say_other(place: Path) -> None:
    """Raise `ConfigError` for what gives no vectors of texts, and for a length of vectors that means nothing."""
    found = peek_architecture(place)
    is_whole = (place / "modules.json").is_file() and (found is None or found.is_saved_by == "transformers")
    if found is not None and not found.gives_vectors and not is_whole:
        raise ConfigError(f"{place}: {found}")
    try:
        about = peek_json(place / ABOUT)
        length, default, prompts = (about.get(key) for key in ("truncate_dim", "default_prompt_name", "prompts"))
    except (OSError, ValueError, AttributeError):
        return  # which the library tells, where it needs the file
    if length is not None and (type(length) is not int or length < 1):
        raise unloadable(place, f"truncate_dim of {ABOUT} is {length!r}, and no length of a vector: mend it")
    if default is not None and default not in (names := list(prompts or ())):
        listed = ", ".join(map(str, names)) or "there are none"
        raise unloadable(place, f"default_prompt_name of {ABOUT} is {default}, which is none of its prompts ({listed})")


def unloadable(place: Path, why: object) -> ConfigError:
    return checkpoints.unloadable(place, why, BY)


def _modules(place: Path, *, trusted: bool) -> Iterator[tuple[str, Path]]:
    """Without a modules.json the library takes the folder for a transformer, and the mean of its tokens.

    So it does where that file is missing of a model that has another pooling, which would answer with other vectors.
    """
    file = place / "modules.json"
    if not file.is_file():
        rest = [name for name in (ABOUT, POOLING) if (place / name).is_file()]
        if rest:
            raise unloadable(place, f"{rest[0]} is there without modules.json, which says how vectors are made: get it")
        yield "Transformer", place
        return
    try:
        listed = [(str(each["type"]), place / str(each["path"])) for each in peek_json(file)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        what = f"modules.json is no list of modules ({error}): get it again"
        raise unloadable(place, what) from error
    if not listed:
        raise unloadable(place, "modules.json lists no modules: get it again")
    for kind, folder in listed:
        yield from _module(place, kind, folder, trusted=trusted)


def _module(place: Path, kind: str, folder: Path, *, trusted: bool) -> Iterator[tuple[str, Path]]:
    short = kind.rpartition(".")[2]
    if not kind.startswith(OURS):
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
        yield from _module(place, type_, folder / name, trusted=trusted)


def _say_config(place: Path, kind: str, file: Path, *, trusted: bool) -> None:
    name = file.relative_to(place)
    if not file.is_file():
        raise unloadable(place, f"modules.json names a module {kind}, and {name} is not there: get it")
    try:
        config = peek_json(file)
        function, modes = str(config.get("activation_function", "torch.")), config.get("pooling_mode", ())
    except (OSError, ValueError, AttributeError) as error:
        raise unloadable(place, f"{name} of its module {kind} cannot be read ({error}): get it again") from error
    if odd := [mode for mode in ([modes] if isinstance(modes, str) else modes) if mode not in POOLINGS]:
        what = f"{name} of its module {kind} has the pooling_mode {odd[0]}"
        if kind == "Pooling":
            raise unloadable(place, f"{what}, which is none of {', '.join(POOLINGS)}: mend it")
    if not trusted and kind == "Dense" and not function.startswith("torch."):  # the library takes another one
        raise unloadable(place, f"its module {kind} computes with {function}, {FOREIGN}")


def _say_words(place: Path, file: Path, *, trusted: bool) -> None:
    """How it cuts a text into words is a class, which its config names."""
    name = str(peek_json(file).get("tokenizer_class"))
    if not trusted and not name.startswith(OURS):
        raise unloadable(place, f"{file.relative_to(place)} cuts texts with {name}, {FOREIGN}")
    if name.endswith("PhraseTokenizer") and not find_spec("nltk"):
        raise unloadable(place, f"{file.relative_to(place)} cuts texts with a PhraseTokenizer; run: pip install nltk")


def _say_transformer(folder: Path, *, trusted: bool) -> None:
    if (folder / "adapter_config.json").is_file():
        if not find_spec("peft"):
            what = "it is an adapter (adapter_config.json), which needs peft; run: pip install peft, or merge it into"
            raise unloadable(folder, f"{what} its base (merge_and_unload of peft)")
        return  # its base has what is looked at here
    checkpoints.say_unloadable(folder, trusted=trusted, by=BY)
    config = peek_json(folder / "config.json")
    if not trusted and not config.get("quantization_config"):
        checkpoints.say_factors(folder, checkpoints.tensors(folder))
    if not trusted:
        gateway_tensor_names.say_names(folder, config)
    if trusted or not {"vision_config", "audio_config"} & config.keys():
        return
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise unloadable(folder, f"it has no {PROCESSORS[0]}, which a model of images or sound is loaded with: get it")
    if "vision_config" in config and not find_spec("PIL"):
        raise unloadable(folder, "a model of images needs Pillow; run: pip install pillow")


def _say_unfilled(place: Path, network: Any, *, reads_tokens: bool) -> None:
    """transformers marks what it has read, from version 5 on, and fills the rest with random numbers."""
    if not find_spec("transformers.core_model_loading"):
        return
    if getattr(network, "hf_quantizer", None) or getattr(network, "_hf_peft_config_loaded", False):
        return  # whose tensors are made of others
    missing = [name for name, value in network.named_parameters() if not getattr(value, "_is_hf_initialized", False)]
    if reads_tokens:  # a pooler makes one vector of all tokens, which is not looked at
        missing = [name for name in missing if "pooler" not in name.split(".")]
    if missing:
        what = f"{len(missing)} of the tensors of a {type(network).__name__}, {missing[0]} among them"
        raise ConfigError(f"{place}: the checkpoint lacks {what}: it is not complete, or of another kind")
