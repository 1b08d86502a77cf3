"""Files of PyTorch: programs of TorchScript and torch.export, and pickles of more than weights. Opens none of them."""

from __future__ import annotations

import pickletools
import re
from collections import deque
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from .. import archives
from .unserved_kinds import CLASS, PICKLED, Kind

LARGEST_PICKLE = 1 << 20  # bytes of what names the tensors in such a file; more is not looked at
MOST_STEPS = 100_000  # of a pickle: forty name a tensor, and all of these are walked in a fraction of a second
PICKLES = 4  # in a file as torch wrote it before it wrote zip files: a number, a version, the machine, and the object
TEXTS = frozenset("UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split())
PUTS = frozenset("PUT BINPUT LONG_BINPUT MEMOIZE".split())
GETS = frozenset("GET BINGET LONG_BINGET".split())
NAMES = frozenset("GLOBAL INST".split())
NAME = re.compile(r"(?a)[A-Za-z_][\w.]{0,160}")
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
    """The classes and functions that a pickle names, in their order, as far as it can be read."""
    found, memo = list[str](), dict[int, str | None]()
    pushed = deque(("", ""), maxlen=2)  # the last two texts, of which protocol 4 makes a name
    top: str | None = None  # the text on the stack, where one is
    for code, value in islice(_steps(pickled), MOST_STEPS):
        if code in PUTS:
            memo[len(memo) if value is None else value] = top
            continue
        top = value if code in TEXTS else memo.get(value) if code in GETS else None
        if top is not None:
            pushed.append(top)
        name = ".".join(pushed) if code == "STACK_GLOBAL" else value.replace(" ", ".", 1) if code in NAMES else ""
        if NAME.fullmatch(name):
            found.append(name)
    return found


def _steps(pickled: bytes) -> Iterator[tuple[str, Any]]:
    """The steps of the pickles in the file that come before its numbers; what is broken or cut off ends them."""
    file = BytesIO(pickled)
    try:
        for _ in range(PICKLES):
            yield from ((step.name, value) for step, value, _ in pickletools.genops(file))
    except ValueError:
        return
