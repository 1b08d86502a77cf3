"""Check with the library, in doubtful cases, whether the tensors of a language model are those that it expects.

That takes seconds, because transformers is imported; so `gateway check` only does it if names, sizes and config.json
leave a doubt. The load always does it, and reports the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway_checkpoints import library, unloadable, weights

from gateway import ConfigError, peek_json

LAYER = re.compile(r"[^\d]*?\.\d+\.")  # the beginning of names of a layer's tensors
LEARNED = re.compile(r"\.(?:weight|bias)$")
BUFFERS = re.compile(r"(?:attn|attention)\.(?:masked_)?bias$|inv_freq$")  # saved by older versions of the library
HEAD = re.compile(r'_tied_weights_keys = \{"([\w.]+)":')  # the head's name, which may be tied to the embedding matrix
LINEAR = re.compile(r"self\.(\w+) = nn\.Linear\((?:[^()]|\([^()]*\))*?bias=(?:config\.(\w+)|(True|False))")
WIDE = re.compile(r"mlp\.(?:up|gate|down)_proj\.weight$")


def say_read(place: Path, told: Mapping[str, Collection[str]], model: Any) -> None:
    """Raise `ConfigError` if a load left tensors of the model empty, or ignored some that belong to its layers."""
    name = type(model).__name__
    if missing := sorted(told["missing_keys"]):  # the library fills these with random numbers
        what = f"the checkpoint lacks {len(missing)} of the tensors of a {name}, {missing[0]} among them"
        raise ConfigError(f"{place}: {what}: it is incomplete, or of another kind")
    if getattr(model, "hf_quantizer", None):  # its tensors are computed from others
        return
    own = {found[0] for each in model.state_dict() if (found := LAYER.match(each))}  # others are for speculation
    unread = [each for each in sorted(told["unexpected_keys"]) if LEARNED.search(each) and not BUFFERS.search(each)]
    if unread := [each for each in unread if (found := LAYER.match(each)) and found[0] in own]:
        what = f"a {name} has no place for {len(unread)} of the tensors of its layers, {unread[0]} among them"
        raise ConfigError(f"{place}: {what}, and would answer without them: get the config.json of these weights")


def check(place: Path) -> None:
    """Raise `ConfigError` for what the load finds when it reads the weights, without reading their data."""
    config = peek_json(place / "config.json")
    if config.get("quantization_config") or config.get("quantization"):  # its tensors are computed from others
        return
    shapes = weights.shapes(place, config.get("transformers_weights"))
    code = library.code_of(config)
    if not code or not any(_doubts(shapes, config, code)):
        return
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()  # ignored tensors are reported here
    logging.disable_progress_bar()
    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            place, device_map="meta", local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError, RuntimeError) as error:
        raise unloadable(place, error) from error
    say_read(place, told, model)


def _doubts(shapes: Mapping[str, list[int]], config: Mapping[str, Any], code: str) -> Iterator[bool]:
    head = HEAD.search(code)
    yield head is not None and config.get("tie_word_embeddings") is False and head[1] not in shapes
    words = {part for name in shapes for part in name.split(".")[:-1] if not part.isdecimal()}
    yield any(f"self.{word}" not in code for word in words)
    layers: defaultdict[str, set[str]] = defaultdict(set)
    for name in shapes:
        if found := LAYER.match(name):
            layers[found[0]].add(name[found.end() :])
    yield len({frozenset(each) for each in layers.values()}) > 1
    yield from _odd_biases(shapes, config, code)
    numbers = {value for value in config.values() if type(value) is int}
    yield any(size not in numbers for name, shape in shapes.items() if WIDE.search(name) for size in shape)


def _odd_biases(shapes: Mapping[str, list[int]], config: Mapping[str, Any], code: str) -> Iterator[bool]:
    """Yield whether a layer has a bias although the code has none, or the reverse."""
    wanted: defaultdict[str, set[object]] = defaultdict(set)
    for module, key, given in LINEAR.findall(code):
        wanted[module].add(given == "True" if given else config.get(key))
    for module, said in wanted.items():
        if None not in said and any(name.endswith(f".{module}.weight") for name in shapes):
            yield any(name.endswith(f".{module}.bias") for name in shapes) not in {bool(each) for each in said}
