"""Find the file of a directory that is a program of PyTorch: from names, and the table of contents of zip files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gateway import (
    ConfigError,
    distinct,
    has_code,
    peek_config,
    peek_mismatch,
    peek_patterns,
    peek_weights,
    placeholder,
)

from .archives import ZipArchive
from .script import is_script

FRAMEWORK = "torch"
EXPORTED = ".pt2"
SCRIPTS = (".pt", ".pth", ".torchscript", ".ts", ".jit")  # all but the last three are mostly weights
# With one of these, a directory is a model of another kind, of which such a file is a copy or a part.
OTHERS = (
    "*.skops *.gguf *.safetensors *.index.json *.onnx MLmodel model_index.json modules.json config.json "
    "adapter_config.json model.pkl model.joblib"
).split()
MOST_FILES = 16  # zip files that are looked into
MOST_LISTED = 1 << 20  # bytes of all their tables of contents together: about ten thousand names
MOST_NAMED = 5
ENTRY = 46  # bytes of an entry besides its name
Kind = Literal["exported", "script"]
Options = Mapping[str, Any]


def is_ours(path: Path) -> bool:
    config = peek_config(path)
    if "framework" in config:  # overrides detection
        return bool(config["framework"] == FRAMEWORK)
    if has_code(path) or (place := peek_weights(path)) is None:
        return False
    if place.is_dir() and any(next(place.glob(pattern), None) for pattern in OTHERS):
        return False
    return bool(candidates(place, path))


def kind_of(file: Path) -> Kind | None:
    """Return what a file is; None if it is no program."""
    return next(iter(_kinds([file]).values()), None)


def _kinds(files: Sequence[Path]) -> dict[Path, Kind]:
    """Return what those files are that are programs. The tables of contents of all together are bounded."""
    found: dict[Path, Kind] = {}
    left = MOST_LISTED
    for file in files:
        if file.suffix == EXPORTED:
            found[file] = "exported"
        elif file.suffix in SCRIPTS:
            try:
                sizes = ZipArchive(file, left).sizes
            except (OSError, ValueError):
                continue
            left -= sum(ENTRY + len(name) for name in sizes)
            if is_script(sizes):
                found[file] = "script"
    return found


def candidates(place: Path, root: Path) -> list[Path]:
    """Return the programs in the directory `root`, whose weights are at `place`."""
    if place.is_file():
        return [place] if kind_of(place) else []
    chosen = peek_patterns(root)
    likely = sorted(each for each in place.glob("[!.]*") if each.suffix in (EXPORTED, *SCRIPTS))
    likely = [file for file in likely if chosen is None or chosen(file.name)]
    likely.sort(key=lambda file: file.stem != "model")
    return [*_kinds(likely[:MOST_FILES])]


def model_file(place: Path, root: Path, options: Options) -> Path:
    """Return the file that is the model: the one that the option `file` names, one called model, or the only one.

    Raises:
        ConfigError: there is none, or several.
    """
    found = candidates(place, root)
    if (name := options.get("file")) is not None:
        named = [file for file in found if file.name == name]
        if not named:
            have = ", ".join(file.name for file in found[:MOST_NAMED]) or "none"
            raise ConfigError(f"{root}: options: file is {name!r}, which is no program of PyTorch here (have: {have})")
        found = named
    found = [file for file in found if file.stem == "model"] or found
    # A program beside the same one as TorchScript is the newer format of the two.
    found = distinct([file for file in found if file.suffix == EXPORTED] or found)
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:MOST_NAMED]) + (" …" if len(found) > MOST_NAMED else "")
        fix = f"name it model{found[0].suffix}, or write options: file: {found[0].name} into config.yaml"
        raise ConfigError(f"{root}: several models ({names}); one directory serves one: {fix}")
    if not found:
        save = "no program; save it to model.pt2 with torch.export.save"
        raise ConfigError(f"{root}: {peek_mismatch(place, FRAMEWORK) or save}")
    if there := placeholder(found[0]):
        raise ConfigError(f"{root}: {found[0].name} {there.what}: {there.fix}")
    return found[0]
