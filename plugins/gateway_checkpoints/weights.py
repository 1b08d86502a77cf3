"""Check the weight files that the library looks for: whether they exist and are complete, and which tensors they have.

Reads names and headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import named_file, opened, parse_json, peek_json, placeholder

from . import pickles, unloadable

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)  # in the library's order
INDEX = ".index.json"
META = "__metadata__"
LONGEST = 100_000_000  # maximum bytes of a header in the library
MOST_VALUES = 4_000_000  # of a header; a tensor has about ten


def say_weights(place: Path, by: str = "transformers", *, parts: bool = True, named: object = None) -> None:
    """Raise `ConfigError` if weight files that the library needs are missing or incomplete. Reads their headers.

    `parts`: whether it reads an index too. `named` is a file that config.json names instead.
    """
    for name in _weight_files(place, by, parts=parts, named=named):
        if why := torn(place / name):
            raise unloadable(place, f"{name} {why}", by)


def _weight_files(place: Path, by: str = "transformers", *, parts: bool = True, named: object = None) -> list[str]:
    """Return the files that the library reads. Raises `ConfigError` if one is missing."""
    if named:
        named_file(place, named, "config.json (transformers_weights)")
    looked_for = [str(named)] if named else [name for name in WEIGHTS if parts or not name.endswith(INDEX)]
    for name in looked_for:
        if (place / name).is_symlink() and not (place / name).exists():
            raise unloadable(
                place, f"{name} is a link to {(place / name).readlink()}, which does not exist: get it again", by
            )
    first = next((name for name in looked_for if (place / name).is_file()), None)
    if first is None:
        raise unloadable(place, _misnamed(place, looked_for[0]), by)
    files = {first}
    if first.endswith(INDEX):
        try:
            files = {str(name) for name in peek_json(place / first)["weight_map"].values()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise unloadable(place, f"{first} is not an index of weights ({error}): get it again", by) from error
    if missing := sorted(name for name in files if not named_file(place, name, first).is_file()):
        listed = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise unloadable(place, f"{listed} is missing, which {first} names: get it", by)
    return sorted(files)


def two_saves(place: Path) -> str | None:
    """Warn if a folder contains a checkpoint twice, as one file and in parts: the library reads the single file."""
    whole, index = WEIGHTS[:2]
    parts = sorted(file.name for file in place.glob("model-*-of-*.safetensors"))
    if not parts or not (place / whole).is_file():
        return None
    listed = f"{parts[0]} and {len(parts) - 1} more" if len(parts) > 1 else parts[0]
    both = f"{listed}{f', {index}' if (place / index).is_file() else ''}"
    what = f"two saves in one folder: {whole} is served, as the library chooses, not the parts next to it ({both})"
    return f"{what}; delete the older one: {whole}, or the parts with their index"


def is_adapter(file: Path) -> bool:
    """Return whether a weight file has the name that peft and mlx-lm use for an adapter."""
    return file.name.startswith("adapter_model") or file.name.endswith("adapters.safetensors")


def _misnamed(place: Path, wanted: str) -> str:
    """Describe the files in place of the expected weights."""
    others = sorted(file.name for file in place.glob("*.safetensors") if not is_adapter(file))
    if others and all(name.startswith("consolidated") for name in others):
        return f"its weights are only in Mistral's own format ({others[0]}): get {wanted}"
    if len(others) == 1:
        return f"its weights are called {others[0]}, but {wanted} is expected: rename the file"
    if others:
        listed = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        what = f"there is neither {wanted} nor {wanted}{INDEX} next to its weights ({listed})"
        return f"{what}: get the index of these, or rename the one with the whole model"
    if onnx := sorted(file.relative_to(place) for file in (*place.glob("*.onnx"), *place.glob("onnx/*.onnx"))):
        return f"its weights are only in ONNX format ({onnx[0]}): get {wanted}"
    if vino := sorted(file.relative_to(place) for file in place.glob("**/openvino_model*.xml")):
        return f"its weights are only in OpenVINO format ({vino[0]}): get {wanted}"
    return f"it has no weights: get {wanted}"


def torn(file: Path) -> str | None:
    """Return what is wrong with a weight file, judged by size and header; None if it looks complete."""
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
            return "is not a *.safetensors file: get the file again"
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
    return None if size == whole else f"has {size:,} bytes of {whole:,}: it is incomplete, get the file again"


def tensors(place: Path) -> Iterator[str]:
    """Yield the names in the headers of the *.safetensors files, except of damaged files."""
    return (name for name, _ in headers(place))


def shapes(place: Path, named: object = None) -> dict[str, list[int]]:
    """Return the tensors that the library reads, with their shapes; [] for those in a pickle.

    `named` is as in `say_weights`, which must be called first.
    """
    files = _weight_files(place, named=named)
    if all(name.endswith(".safetensors") for name in files):
        return {name: list(each.get("shape") or ()) for name, each in headers(place, files)}
    return {name: [] for file in files for name in pickles.names(place / file)}


def headers(place: Path, files: Iterable[str] | None = None) -> Iterator[tuple[str, Mapping[str, Any]]]:
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
