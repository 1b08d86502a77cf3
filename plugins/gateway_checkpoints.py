"""Whether transformers can load a checkpoint: what `gateway check` says of it and what its load says, in one place.

Reads names and headers. transformers is imported, which takes seconds, only where they leave a question open. Whether
the tokenizer knows words is asked by `gateway_wordless`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway import ConfigError, opened, parse_json, peek_json, peek_mismatch, placeholder

# What makes small numbers large again: scales of FP8, GPTQ, MLX and others, and how EXL2 and EXL3 call all they have.
FACTORS = re.compile(
    r"(weight_scale\w*|scale_inv|scale_weight|scales|zeros|zero_point|absmax|SCB|q_scale|q_weight|trellis)$"
)
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)  # in the order of the library
CODE = "write a model.py whose class loads it with trust_remote_code=True, if you trust it"
TRUST = "if you trust it: [models.NAME] trust_remote_code = true in gateway.toml"
SETTINGS = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)
INDEX = ".index.json"
QUANTIZED = ("quantize_config.json", "quant_config.json")  # of AutoGPTQ, of AutoAWQ
OTHER_SIZES = "its weights have other sizes than config.json says: get both again, from one place"
META = "__metadata__"
WHOLE_NUMBERS = ("I8", "U8", "I16", "U16", "I32", "U32")  # as a safetensors header has them
LONGEST = 100_000_000  # bytes of a header, as the library reads it
MOST_VALUES = 4_000_000  # of a header; a tensor has about ten


def say_unloadable(place: Path, *, trusted: bool = False, by: str = "transformers") -> None:
    """Raise `ConfigError` for what `from_pretrained` would refuse, or read wrongly, before it reads the weights."""
    try:
        config = dict(peek_json(place / "config.json"))
    except (OSError, ValueError, TypeError) as error:
        _say_gguf(place, by)
        raise unloadable(place, f"config.json: {getattr(error, 'strerror', None) or error}: get it", by) from error
    if config.get("auto_map") and not trusted and not has_module(config.get("model_type")):
        code = "its architecture is code that comes with it (auto_map in config.json), which is not run"
        fix = CODE if by == "transformers" else TRUST
        raise unloadable(place, f"{code}; {fix}", by)
    _say_broken(place, by)
    is_quantized = any(config.get(key) for key in ("quantization_config", "quantization"))
    if not trusted and (is_quantized or not has_module(config.get("model_type"))):
        _ask(place, is_quantized=is_quantized)
    if not is_quantized:
        _say_quantized(place, by)
    if not trusted or any((place / name).is_file() for name in WEIGHTS):  # code may have weights of its own
        say_weights(place, by, named=config.get("transformers_weights"))
    if not is_quantized:
        _say_whole_numbers(place)


def say_mismatch(place: Path, framework: str) -> None:
    """Raise `ConfigError` for a folder that holds something else than what the chosen framework serves."""
    if told := peek_mismatch(place, framework):
        raise ConfigError(f"{place}: {told}")


def _say_broken(place: Path, by: str) -> None:
    """Settings beside config.json: the library may go on without a file that it cannot read, or name another."""
    for name in SETTINGS:
        try:
            if (place / name).is_file():
                peek_json(place / name)
        except (OSError, ValueError) as error:
            raise unloadable(place, f"{name} cannot be read ({error}): get it again", by) from error


def _say_quantized(place: Path, by: str) -> None:
    """Raise `ConfigError` for what AutoGPTQ and AutoAWQ wrote before config.json said how: no name of a file is the
    reason, and to rename one is no help."""
    name = next((name for name in QUANTIZED if (place / name).is_file()), None)
    if name is None or not any(each.endswith(".qweight") for each in tensors(place)):
        return
    what = f"it is quantized ({name}), and its config.json has no quantization_config, which {by} reads"
    raise unloadable(place, f"{what}: get one that is not quantized, or a newer one that has it", by)


def say_factors(place: Path, names: Iterable[str], kind: object = None) -> None:
    """Raise `ConfigError` where tensors that transformers will not read scale the others: it would answer nonsense."""
    if factors := sorted(filter(FACTORS.search, names)):
        by = f" ({kind})" if kind else ""
        what = (
            f"is quantized{by}, and transformers does not read {len(factors)} of its tensors, {factors[0]} among them"
        )
        raise ConfigError(f"{place}: the checkpoint {what}: get one that is not, or of a kind that transformers reads")


def _say_gguf(place: Path, by: str) -> None:
    """Raise `ConfigError` where the weights are of the one kind of file that has no config.json."""
    names = sorted(file.name for file in place.glob("*") if file.suffix.lower() == ".gguf")
    if names and not (place / "config.json").exists():
        what = f"{names[0]} is a GGUF file, which {by} does not read"
        raise unloadable(place, f"{what}: get the model as config.json and *.safetensors", by)


def unloadable(place: Path, why: object, by: str = "transformers") -> ConfigError:
    """In one line, whatever the library says."""
    if "ignore_mismatched_sizes" in str(why):  # which points to a table in the log
        why = OTHER_SIZES
    return ConfigError(f"{place}: {by} cannot load this checkpoint: {' '.join(str(why).split())}")


# ── the weights ──────────────────────────────────────────────────────────────────────────────────────────────────────


def say_weights(place: Path, by: str = "transformers", *, parts: bool = True, named: object = None) -> None:
    """Raise `ConfigError` where the files that the library looks for are missing or not whole. Reads their headers.

    `parts` says that it reads an index too, `named` is a file that config.json names in their place.
    """
    for name in _weight_files(place, by, parts=parts, named=named):
        if why := _torn(place / name):
            raise unloadable(place, f"{name} {why}", by)


def _weight_files(place: Path, by: str = "transformers", *, parts: bool = True, named: object = None) -> list[str]:
    """The files that the library reads, of those that may lie there. Raises `ConfigError` where one is missing."""
    looked_for = [str(named)] if named else [name for name in WEIGHTS if parts or not name.endswith(INDEX)]
    for name in looked_for:
        if (place / name).is_symlink() and not (place / name).exists():
            raise unloadable(
                place, f"{name} is a link to {(place / name).readlink()}, where nothing is: get it again", by
            )
    first = next((name for name in looked_for if (place / name).is_file()), None)
    if first is None:
        raise unloadable(place, _misnamed(place, looked_for[0]), by)
    files = {first}
    if first.endswith(INDEX):
        try:
            files = {str(name) for name in peek_json(place / first)["weight_map"].values()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise unloadable(place, f"{first} is no index of weights ({error}): get it again", by) from error
    if missing := sorted(name for name in files if not (place / name).is_file()):
        listed = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise unloadable(place, f"{listed} is missing, which {first} names: get it", by)
    return sorted(files)


def two_saves(place: Path) -> str | None:
    """That a folder holds a checkpoint twice, whole and in parts, of which the library reads the whole one."""
    whole, index = WEIGHTS[:2]
    parts = sorted(file.name for file in place.glob("model-*-of-*.safetensors"))
    if not parts or not (place / whole).is_file():
        return None
    listed = f"{parts[0]} and {len(parts) - 1} more" if len(parts) > 1 else parts[0]
    both = f"{listed}{f', {index}' if (place / index).is_file() else ''}"
    what = f"two saves in one folder: {whole} is served, as the library chooses, and the parts beside it ({both}) not"
    return f"{what}; delete the older one: {whole}, or the parts with their index"


def is_adapter(file: Path) -> bool:
    """Whether a file with weights is called as peft and mlx-lm call those of an adapter alone."""
    return file.name.startswith("adapter_model") or file.name.endswith("adapters.safetensors")


def _misnamed(place: Path, wanted: str) -> str:
    """What lies there in place of the weights that are looked for."""
    others = sorted(file.name for file in place.glob("*.safetensors") if not is_adapter(file))
    if others and all(name.startswith("consolidated") for name in others):
        return f"its weights are there in a format of Mistral's own ({others[0]}): get {wanted}"
    if len(others) == 1:
        return f"its weights are called {others[0]}, and {wanted} is looked for: rename the file"
    if others:
        listed = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        what = f"there is neither {wanted} nor {wanted}{INDEX} beside its weights ({listed})"
        return f"{what}: get the index of these, or rename the one that is the whole model"
    if onnx := sorted(file.relative_to(place) for file in (*place.glob("*.onnx"), *place.glob("onnx/*.onnx"))):
        return f"its weights are there for ONNX alone ({onnx[0]}): get {wanted}"
    if vino := sorted(file.relative_to(place) for file in place.glob("**/openvino_model*.xml")):
        return f"its weights are there for OpenVINO alone ({vino[0]}): get {wanted}"
    return f"it has no weights: get {wanted}"


def _torn(file: Path) -> str | None:
    """What is wrong with a file of weights, seen by its size and header; None of one that looks whole."""
    size = file.stat().st_size
    if not size:
        return "is empty: get the file again"
    if there := placeholder(file):
        return f"{there.what}: {there.fix}"
    with opened(file) as weights:
        start = weights.read(8)
        if file.suffix != ".safetensors":
            return None
        length = int.from_bytes(start, "little")
        if length > LONGEST:
            return "is no *.safetensors: get the file again"
        header = weights.read(length)
    ends = 0
    if len(header) == length:
        try:
            ends = max(
                (each["data_offsets"][1] for name, each in parse_json(header, MOST_VALUES).items() if name != META),
                default=0,
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return f"is damaged ({error}): get the file again"
    whole = 8 + length + ends
    return None if size == whole else f"has {size:,} bytes of {whole:,}: it is not whole, get the file again"


def _say_whole_numbers(place: Path) -> None:
    """Raise `ConfigError` for matrices whose numbers somebody rounded: the library would take them as they are."""
    kinds = {name: str(each.get("dtype")) for name, each in _headers(place) if name.endswith("weight")}
    if names := sorted(name for name, kind in kinds.items() if kind in WHOLE_NUMBERS):
        what = f"{len(names)} of its matrices, {names[0]} among them, are whole numbers ({kinds[names[0]]})"
        raise ConfigError(f"{place}: {what}, and config.json does not say of what: get one that is not quantized")


def tensors(place: Path) -> Iterator[str]:
    """The names in the headers of the *.safetensors; none of a file that the load will call damaged."""
    return (name for name, _ in _headers(place))


def shapes(place: Path, named: object = None) -> dict[str, list[int]]:
    """The tensors that the library reads, with what the headers say of their sizes: nothing of those in a pickle.

    `named` is as for `say_weights`, which has been asked before.
    """
    files = _weight_files(place, named=named)
    if all(name.endswith(".safetensors") for name in files):
        return {name: list(each.get("shape") or ()) for name, each in _headers(place, files)}
    return {name: [] for file in files for name in _pickled(place / file)}


def _pickled(file: Path) -> list[str]:
    """The names in a pytorch_model.bin, read without running any code; none of what is no such file."""
    import torch

    try:
        found = torch.load(file, map_location="meta", mmap=True, weights_only=True)
    except Exception:  # whatever a broken file makes of it: the load of the weights tells that
        return []
    return [str(name) for name in found] if isinstance(found, Mapping) else []


def _headers(place: Path, files: Iterable[str] | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names = sorted(file.name for file in place.glob("*.safetensors")) if files is None else files
    for file in filter(Path.is_file, (place / name for name in names)):
        try:
            with opened(file) as weights:
                size = int.from_bytes(weights.read(8), "little")
                table = parse_json(weights.read(size), MOST_VALUES) if size <= LONGEST else {}
        except (OSError, ValueError):
            continue
        if isinstance(table, dict):
            yield from ((name, each) for name, each in table.items() if isinstance(each, dict) and name != META)


def has_module(kind: object) -> bool:
    """Whether the library has a directory for a `model_type`; where it has none it may know it all the same."""
    is_name = isinstance(kind, str) and re.fullmatch(r"[\w-]+", kind)
    return bool(is_name and (_library() / str(kind).replace("-", "_")).is_dir())


def code_of(config: Mapping[str, Any]) -> str:
    """What the library computes a kind of model with, as text; "" of one that it has no such file for."""
    if not has_module(config.get("model_type")):
        return ""
    kind = str(config["model_type"]).replace("-", "_")
    try:
        return (_library() / kind / f"modeling_{kind}.py").read_text("utf-8")
    except (OSError, ValueError):
        return ""


def _library() -> Path:
    """Where the library has a directory for each kind of model; it is not imported for it."""
    spec = find_spec("transformers")
    return Path(spec.origin if spec and spec.origin else "nowhere").with_name("models")


def _ask(place: Path, *, is_quantized: bool) -> None:
    """What the load asks first: whether the library knows the architecture, and its quantizer this machine."""
    from transformers import AutoConfig
    from transformers.quantizers.auto import AutoHfQuantizer, get_hf_quantizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # what is left out is said here
    try:
        config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        given: Mapping[str, Any] = getattr(config, "quantization_config", None) or {}
        is_named = given.keys() & {"quant_method", "load_in_8bit", "load_in_4bit"}
        is_known = is_named and AutoHfQuantizer.supports_quant_method(given)
        if is_quantized and not is_known:
            say_factors(place, tensors(place), given.get("quant_method") or "config.json names no quant_method")
        if is_known or (given and not is_named):
            get_hf_quantizer(config, None, None, True, {})
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError, AttributeError) as error:
        raise unloadable(place, error) from error
