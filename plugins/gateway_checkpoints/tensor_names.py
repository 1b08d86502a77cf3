"""Check the names of a checkpoint's tensors before they are read.

They reveal a wrapper that the model was saved with, an adapter that was not merged, or other layers or another
vocabulary than in config.json. Used by `gateway check` and the load. Reads headers, and the library's code as text.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import ConfigError

from . import OTHER_SIZES, library, unloadable, weights


@dataclass(frozen=True, slots=True)
class Wrapper:
    mark: str  # what it adds to the names
    what: str
    inside: str  # the wrapped model


# The first four may be anywhere in a name; the last two are words of models too, and only count if all names begin with
# them.
WRAPPERS = (
    Wrapper("_orig_mod.", "torch.compile", "model._orig_mod.save_pretrained(folder)"),
    Wrapper("_fsdp_wrapped_module.", "FSDP", "its full state dict: save_pretrained(folder, state_dict=…)"),
    Wrapper("_checkpoint_wrapped_module.", "the checkpoints of activations", "model.save_pretrained(folder) without"),
    Wrapper("_forward_module.", "Lightning or DeepSpeed", "the module inside, with its save_pretrained(folder)"),
)
AROUND = (
    Wrapper("module.", "DataParallel or DistributedDataParallel", "model.module.save_pretrained(folder)"),
    Wrapper("0.auto_model.", "a SentenceTransformer", "model.save_pretrained(folder) of sentence-transformers"),
)
ADAPTER = re.compile(
    r"(?:^|\.)(lora_[A-E]|lora_embedding_[AB]|lora_magnitude_vector|ia3_l|oft_[RrS]|boft_[RS]|vera_lambda_[bd]|"
    r"(?:hada|lokr)_[wt][12](?:_[ab])?|prompt_encoder|prompt_embeddings)(?:\.|$)"
)
ADAPTED = re.compile(r"^base_model\.|\.(base_layer|original_module|modules_to_save)\.")
PROMPTS = ("prompt_encoder", "prompt_embeddings")
STACKS = ("layers", "layer", "h", "blocks", "block")  # names of the numbered layers of a model
AROUND_STACKS = {"model", "transformer", "encoder", "decoder", "backbone"}  # besides the library's name for the model
MOST_DIGITS = 6
MOST_LAYERS = 10_000  # the deepest models have some hundred
MOST_SHARING = 1000  # layers that may share their tensors
COUNT = re.compile(r"(?:^|_)(?:num_(?:hidden_|encoder_|decoder_)?layers|n_layers?|(?:encoder|decoder|l)_layers)$")
AHEAD = re.compile(r"num_nextn_predict_layers|mtp_num_layers")  # layers after the last one, for speculative decoding
SIZES = tuple(map(re.compile, (r"^(?:n_)?vocab(?:_size)?$", r"^(?:hidden_size|n_embe?d|d_model|dim)$")))
WORDS = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$")
PREFIX = re.compile(r'base_model_prefix = "(\w+)"')


def say_many(place: Path, config: Mapping[str, Any], by: str) -> None:
    """Raise `ConfigError` for too many layers: the library creates each of them before it reads one."""
    if (most := max(_numbers(config, COUNT), default=0)) > MOST_LAYERS:
        what = f"config.json says that it has {most:,} layers, which no model has"
        raise unloadable(place, f"{what}: get the config.json of these weights", by)


def say_names(place: Path, config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the library would not find the expected tensors, or would ignore some."""
    shapes = weights.shapes(place, config.get("transformers_weights"))
    names, code = sorted(shapes), library.code_of(config)
    _say_too_many(place, len(names), config)
    _say_adapted(place, names, code)
    _say_wrapped(place, names, code)
    _say_layers(place, _without_ignored(names, code), config, {*AROUND_STACKS, *PREFIX.findall(code)})
    if not any(config.get(key) for key in ("quantization_config", "quantization")):
        _say_sizes(place, shapes, config)


def _say_too_many(place: Path, tensors: int, config: Mapping[str, Any]) -> None:
    """Check the number of layers if they are not numbered: each has a tensor, unless few layers share them."""
    most = max(_numbers(config, COUNT), default=0)
    if tensors and most > max(MOST_SHARING, tensors):
        what = f"config.json says that it has {most:,} layers, and its weights have {tensors:,} tensors"
        raise ConfigError(f"{place}: {what}: get the config.json of these weights")


def _say_wrapped(place: Path, names: list[str], code: str) -> None:
    found = [each for each in WRAPPERS if any(each.mark in name for name in names)]
    bare = [re.sub("|".join(re.escape(each.mark) for each in WRAPPERS), "", name) for name in names]
    found += [each for each in (*AROUND, *_held(bare, code)) if all(name.startswith(each.mark) for name in bare)][:1]
    if names and found:
        marks, makers = (" and ".join(texts) for texts in zip(*((each.mark, each.what) for each in found), strict=True))
        name = next(name for name in names if found[0].mark in name)
        what = f"its tensors ({name} and others) have {marks} in their names, which {makers} put there"
        raise ConfigError(f"{place}: {what}: save the model inside, {found[0].inside}, or take that out of the names")


def _held(names: Iterable[str], code: str) -> Iterator[Wrapper]:
    """Yield a prefix before the library's name for the model, for example of a Lightning module that contained it."""
    stack, _ = _layers(names)
    for prefix in set(PREFIX.findall(code)):
        before = re.match(rf"((\w+)\.(?:\w+\.)*){prefix}\.", stack)
        is_own = before and before[1] != f"{prefix}." and f"self.{before[2]}" in code  # a composite model
        if before and not is_own and before[1] != "language_model.":  # the library removes this one itself
            yield Wrapper(before[1], "a module that held the model", "with its own save_pretrained(folder)")


def _say_adapted(place: Path, names: list[str], code: str) -> None:
    own = [name for name in names if (found := ADAPTER.search(name)) and found[1] not in code]
    wrapped = [name for name in names if ADAPTED.search(name)]
    if not own and not wrapped:
        return
    name = (own or wrapped)[0]
    if any(word in name for name in own for word in PROMPTS):
        what = "are prompts that were learned (PEFT), which cannot be merged into the model"
        fix = "write a model.py whose class loads the model with peft"
    elif len(own) == len(names):
        what, fix = "are only those of an adapter (PEFT)", "merge it into its base: merge_and_unload of peft"
    else:
        what, fix = "are those of an adapter of PEFT that was not merged", "model.merge_and_unload()"
    then = "" if "model.py" in fix else ", then save_pretrained(folder)"
    raise ConfigError(f"{place}: its tensors ({name} and others) {what}: {fix}{then}")


def _say_layers(place: Path, names: list[str], config: Mapping[str, Any], around: set[str]) -> None:
    """Compare layers with config.json. The model's stack is the one with the most tensors."""
    stack, there = _layers(names)
    counts = _numbers(config, COUNT)
    if not counts or not there or not around.issuperset(stack.split(".")[:-1]):
        return
    ahead = max(_numbers(config, AHEAD), default=0)
    most = max(there) + 1
    if len(there) == most and any(most in (count, count + ahead) for count in counts):
        return
    said = min(counts, key=lambda count: abs(count - len(there)))
    if missing := said - sum(number < said for number in there):
        first = next(number for number in range(said) if number not in there)
        what = f"it lacks {missing:,} of the {said:,} layers that config.json says ({stack}.{first})"
        fix = "get the file that is missing, or the config.json that belongs to these weights"
    else:
        what = f"its weights have {most:,} layers ({stack}.{most - 1}), and config.json says {said:,}"
        fix = "the rest would be left out: get the config.json that belongs to these weights"
    raise ConfigError(f"{place}: {what}: {fix}")


def _layers(names: Iterable[str]) -> tuple[str, set[int]]:
    """Return the prefix of the layers, and their numbers."""
    tensors: Counter[str] = Counter()
    found: defaultdict[str, set[int]] = defaultdict(set)
    for name in names:
        parts = name.split(".")
        at = next((at for at, part in enumerate(parts) if part.isdecimal()), 0)
        if at and parts[at - 1] in STACKS and len(parts[at]) <= MOST_DIGITS:
            stack = ".".join(parts[:at])
            tensors[stack] += 1
            found[stack].add(int(parts[at]))
    stack = max(tensors, key=lambda each: tensors[each], default="")
    return stack, found[stack]


def _without_ignored(names: Iterable[str], code: str) -> list[str]:
    """Return the names without those that the library ignores on purpose, such as layers for speculative decoding."""
    listed = re.findall(r"_keys_to_ignore_on_load_unexpected = \[(.*?)\]\n", code, re.DOTALL)
    ignored = [re.compile(pattern) for each in listed for pattern in re.findall(r'r?"([^"\n]+)"', each)]
    return [name for name in names if not any(pattern.search(name) for pattern in ignored)]


def _numbers(config: Mapping[str, Any], keys: re.Pattern[str] | None = None) -> set[int]:
    """Return the integers in a config.json and its parts: all, or those of some keys."""
    parts = [config, *(each for each in config.values() if isinstance(each, Mapping))]
    items = (item for each in parts for item in each.items())
    return {value for key, value in items if type(value) is int and (keys is None or keys.search(key))}


def _say_sizes(place: Path, shapes: Mapping[str, list[int]], config: Mapping[str, Any]) -> None:
    """Check the embedding matrix, whose sizes must occur in config.json under some name."""
    if not all(_numbers(config, keys) for keys in SIZES):
        return
    known = _numbers(config)
    for name, shape in shapes.items():
        if WORDS.search(name) and any(size not in known and size - 1 not in known for size in shape):
            raise unloadable(place, OTHER_SIZES)
