"""Read how the export of a transformer is used, from the JSON files beside it, and compare them with its graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import ConfigError, named_file, peek_json

from .detection import MODULES, POOLING, json_object, labels_of, text_task
from .header import Header
from .pooling import MODES

SENTENCE = "sentence_embedding"  # the output of an export with its pooling
TOKENS = ("last_hidden_state", "token_embeddings")
TAKEN = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
CONFIGS = tuple(
    f"sentence_{kind}_config.json" for kind in "bert roberta distilbert camembert albert xlm-roberta".split()
)
OFFSET = ("roberta", "camembert", "mpnet", "longformer")  # whose positions begin behind the padding's
UNLIMITED = 1_000_000  # tokenizers without a limit say 1e30
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = {"Sigmoid": "sigmoid", "Identity": "identity"}


@dataclass(frozen=True, slots=True)
class Settings:
    output: str
    limit: int | None  # tokens that the network reads, or None for any number
    pad: int
    lower: bool = False
    # of vectors
    modes: tuple[str, ...] = ("mean",)
    is_assumed: bool = False  # the files do not say how a vector is computed
    normalize: bool = False
    includes_prompt: bool = True
    dimensions: int | None = None  # vectors are cut to
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    # of classes and scores
    labels: tuple[str, ...] = ()
    activation: str = "identity"


def read_settings(place: Path, header: Header, file: Path) -> Settings:
    """Return the settings of the export in a folder.

    Raises:
        ConfigError: they are broken, or the graph is another one.
    """
    task = text_task(place)
    config, tokenizer = json_object(place / "config.json"), json_object(place / "tokenizer_config.json")
    sentence = next((found for name in CONFIGS if (found := json_object(place / name))), {})
    _check_inputs(header, file)
    common: dict[str, Any] = {
        "limit": _limit(config, tokenizer, sentence, header),
        "pad": _whole(config.get("pad_token_id"), 0),
        "lower": sentence.get("do_lower_case") is True,
    }
    if task == "embeddings":
        return _of_vectors(place, header, file, common)
    output = _output(header, file, ("logits",), 2)
    labels = tuple(labels_of(config))
    width = _width(header, output)
    if width is not None and width != len(labels):
        raise ConfigError(
            f"{file} computes {width} numbers, but config.json has {len(labels)} labels (id2label): correct it"
        )
    activation = _score_activation(config) if task == "rerank" else _class_activation(config)
    return Settings(output, **common, labels=labels, activation=activation)


def _of_vectors(place: Path, header: Header, file: Path, common: dict[str, Any]) -> Settings:
    about = json_object(place / "config_sentence_transformers.json")
    names = [value.name for value in header.outputs]
    prompts = about.get("prompts")
    prompts = {str(name): str(text) for name, text in prompts.items()} if isinstance(prompts, dict) else {}
    default = about.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ConfigError(f"{place}: default_prompt_name is {default!r}, which is none of its prompts: correct it")
    cut = about.get("truncate_dim")
    common |= {"prompts": prompts, "default_prompt": prompts.get(default), "dimensions": _whole(cut, 0) or None}
    if SENTENCE in names:
        return Settings(SENTENCE, **common, modes=())
    kinds = _modules(place)
    if unknown := [kind for kind, _ in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
        what = f"modules.json has a module {unknown[0]}, and {file.name} does not compute its {SENTENCE}"
        raise ConfigError(f"{place}: {what}: export all modules, or get model.safetensors for sentence-transformers")
    folder = next((path for kind, path in kinds if kind == "Pooling"), POOLING.partition("/")[0])
    pooling = json_object(place / folder / "config.json")
    return Settings(
        _output(header, file, TOKENS, 3),
        **common,
        modes=_modes(place, pooling),
        is_assumed=not pooling,
        normalize=any(kind == "Normalize" for kind, _ in kinds),
        includes_prompt=pooling.get("include_prompt") is not False,
    )


def _modules(place: Path) -> list[tuple[str, str]]:
    """Return the kinds and folders of the modules that sentence-transformers saved."""
    if not (place / MODULES).is_file():
        return []
    try:
        found = [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in peek_json(place / MODULES)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{place}: modules.json is not a list of modules ({error}): get it again") from error
    for _, path in found:
        named_file(place, path, MODULES)
    return found


def _modes(place: Path, pooling: Mapping[str, Any]) -> tuple[str, ...]:
    given = pooling.get("pooling_mode")
    if given is None:
        given = [mode for key, mode in OLD_MODES.items() if pooling.get(key) is True] or ["mean"]
    modes = (given,) if isinstance(given, str) else tuple(map(str, given)) if isinstance(given, list) else ()
    if not modes or (odd := [mode for mode in modes if mode not in MODES]):
        what = f"pooling_mode is {odd[0] if modes else given!r}"
        raise ConfigError(
            f"{place}: {what}, which is none of {', '.join(MODES)}: correct the config.json of its Pooling"
        )
    return modes


def _check_inputs(header: Header, file: Path) -> None:
    names = [value.name for value in header.inputs]
    required = [value.name for value in header.inputs if not value.has_default and value.type.kind != "optional"]
    strange = [name for name in required if name not in TAKEN]
    if "input_ids" not in names or strange:
        what = f"its graph takes {', '.join(strange or names) if names else 'nothing'}, not only tokens"
        fix = "to serve the graph with predict, move tokenizer.json away"
        raise ConfigError(f"{file} is beside a tokenizer.json, but {what}; {fix}")


def _output(header: Header, file: Path, names: tuple[str, ...], rank: int) -> str:
    """Return the name of the output that is used: one of these, or the only one of this rank."""
    fitting = [value for value in header.outputs if value.type.dims is None or len(value.type.dims) == rank]
    found = [value.name for value in fitting if value.name in names] or [value.name for value in fitting]
    if len(found) != 1:
        have = ", ".join(f"{value.name}: {value.type}" for value in header.outputs[:5])
        what = f"it has no output {' or '.join(names)} (have: {have})"
        raise ConfigError(f"{file}: {what}; to serve the graph with predict, move tokenizer.json away")
    return found[0]


def _width(header: Header, output: str) -> int | None:
    value = next(value for value in header.outputs if value.name == output)
    last = value.type.dims[-1] if value.type.dims else None
    return last if isinstance(last, int) else None


def _limit(*found: Any) -> int | None:
    config, tokenizer, sentence, header = found
    ids = next((value.type.dims for value in header.inputs if value.name == "input_ids"), None)
    fixed = ids[1] if ids is not None and len(ids) == 2 and isinstance(ids[1], int) else None
    places = _whole(config.get("max_position_embeddings"), 0)
    if places and any(kind in str(config.get("model_type")) for kind in OFFSET):
        places -= _whole(config.get("pad_token_id"), 0) + 1
    limits = [_whole(sentence.get("max_seq_length"), 0) or _whole(tokenizer.get("model_max_length"), 0), places, fixed]
    return min((limit for limit in limits if limit and 0 < limit < UNLIMITED), default=None)


def _class_activation(config: Mapping[str, Any]) -> str:
    """Return what transformers' pipeline applies to the numbers of a classifier."""
    kind = config.get("problem_type")
    return {"multi_label_classification": "sigmoid", "regression": "identity"}.get(str(kind), "softmax")


def _score_activation(config: Mapping[str, Any]) -> str:
    """Return what a CrossEncoder of sentence-transformers applies to the number of a pair."""
    about = config.get("sentence_transformers")
    name = about.get("activation_fn") if isinstance(about, dict) else None
    name = str(name or config.get("sbert_ce_default_activation_function") or "Sigmoid")
    if (found := ACTIVATIONS.get(name.rpartition(".")[2])) is None:
        raise ConfigError(f"config.json has the activation {name!a}, which is none of {', '.join(ACTIVATIONS)}")
    return found


def _whole(value: object, default: int) -> int:
    """Return a whole number of a JSON file; some write it as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) > 1e18:
        return default
    return int(value)
