"""Recognise files of PyTorch: TorchScript and torch.export programs, and pickles of more than weights. Opens none."""

from __future__ import annotations

import pickletools
import re
from collections import deque
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from ...files import archives
from .kinds import CLASS, PICKLED, Kind

LARGEST_PICKLE = 1 << 20  # bytes of the pickle that names the tensors of such a file; the rest is not read
MOST_STEPS = 100_000  # opcodes of a pickle: forty name a tensor, and this many are read in a fraction of a second
PICKLES = 4  # in a file in torch's format before zip files: a number, a version, the machine, and the object
TEXTS = frozenset("UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split())
PUTS = frozenset("PUT BINPUT LONG_BINPUT MEMOIZE".split())
GETS = frozenset("GET BINGET LONG_BINGET".split())
NAMES = frozenset("GLOBAL INST".split())
NAME = re.compile(r"(?a)[A-Za-z_][\w.]{0,160}")
SCRIPT = Kind("", "a program of TorchScript", "put it into a directory of its own, as model.pt")
EXPORTED = Kind("", "a program exported by torch.export", "put it into a directory of its own, as model.pt2")
# What weights_only=True accepts, among the modules that a dictionary of tensors names.
PLAIN = re.compile(r"(collections|torch|torch\._utils|torch\._tensor|torch\.nn\.parameter|torch\.serialization)\.\w+")
ARRAYS = re.compile(r"(numpy|_codecs|builtins|__builtin__|copy_?reg)\b")


def torch_kind(file: Path, begin: bytes) -> Kind | None:
    """Return what a file of PyTorch is beyond weights; None if it may be only weights."""
    try:
        names = archives.names(file)
    except OSError:
        return _of_objects(begin)  # torch's format before zip files
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
    """Recognise a pickle with other classes than those of tensors: `weights_only=True` refuses it."""
    classes = [name for name in _globals(pickled) if not PLAIN.fullmatch(name) and not ARRAYS.match(name)]
    if not classes:
        return None
    name = next((each for each in classes if not each.startswith("torch.")), classes[0])
    load = "torch.load(…, weights_only=False), where that class can be imported"
    return Kind(
        "",
        f"a pickle of PyTorch with objects of {name}, not only weights, {PICKLED}",
        f"save its state_dict() where its code is, or, of a file that you trust, {CLASS} with {load}",
    )


def _globals(pickled: bytes) -> list[str]:
    """Return the classes and functions that a pickle names, in order, as far as it can be read."""
    found, memo = list[str](), dict[int, str | None]()
    pushed = deque(("", ""), maxlen=2)  # the last two strings, which protocol 4 combines to a name
    top: str | None = None  # the string on top of the stack, if there is one
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
    """Yield the opcodes of the pickles in the file, up to its raw numbers, or to a broken or truncated part."""
    file = BytesIO(pickled)
    try:
        for _ in range(PICKLES):
            yield from ((step.name, value) for step, value, _ in pickletools.genops(file))
    except ValueError:
        return
