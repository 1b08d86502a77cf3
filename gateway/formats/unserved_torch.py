"""Files of PyTorch: programs of TorchScript and torch.export, and pickles of more than weights. Opens none of them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from .. import archives
from .unserved_kinds import CLASS, PICKLED, Kind

LARGEST_PICKLE = 1 << 20  # bytes of what names the tensors in such a file; more is not looked at
SCRIPT = Kind("", "a program of TorchScript", f"{CLASS} with torch.jit.load and has a method predict")
EXPORTED = Kind("", "a program exported by torch.export", f"{CLASS} with torch.export.load and has a method predict")
# What weights_only=True lets through, in the modules that a dictionary of tensors names.
PLAIN = re.compile(r"(collections|torch|torch\._utils|torch\._tensor|torch\.nn\.parameter|torch\.serialization)\.\w+")
ARRAYS = re.compile(r"(numpy|_codecs|builtins|__builtin__|copy_?reg)\b")


def torch_kind(file: Path, begin: bytes) -> Kind | None:
    """What a file that looks like weights of PyTorch is besides; None where it may be weights alone."""
    try:
        names = archives.names(file)
    except OSError:
        return _of_objects(begin)  # as torch wrote it before it wrote zip files
    parts = {name.partition("/")[2] for name in names}
    if any(part.startswith("code/") for part in parts):
        return SCRIPT
    if "archive_format" in parts or "serialized_exported_program.json" in names:
        return EXPORTED
    pickled = next((name for name in names if name.endswith("/data.pkl")), None)
    if pickled is None:
        return None
    try:
        return _of_objects(archives.peek_archive(file, pickled, LARGEST_PICKLE)[0])
    except OSError:
        return None


def _of_objects(pickled: bytes) -> Kind | None:
    """A pickle that names other classes than those of tensors, which `weights_only=True` refuses."""
    classes = [name for name in _globals(pickled) if not PLAIN.fullmatch(name) and not ARRAYS.match(name)]
    if not classes:
        return None
    name = next((each for each in classes if not each.startswith("torch.")), classes[0])
    load = "torch.load(…, weights_only=False), where that class can be imported"
    return Kind(
        "",
        f"a pickle of PyTorch with objects of {name} and not weights alone, {PICKLED}",
        f"save its state_dict() where its code is, or, of a file that you trust, {CLASS} with {load}",
    )


def _globals(pickled: bytes) -> list[str]:
    """The classes and functions that a pickle of protocol 2 names, as torch.save writes it, in their order."""
    lines = pickled.split(b"\n")
    found = []
    for line, following in pairwise(lines):
        module = re.search(rb"c([A-Za-z_][\w.]{0,80})\Z", line[-90:])
        if module and re.fullmatch(rb"[A-Za-z_]\w{0,80}", following[:90]):
            found.append(f"{module[1].decode()}.{following.decode()}")
    return found
