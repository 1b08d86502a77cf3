"""Check a program of TorchScript, whose code PyTorch compiles and interprets: it may compute, and nothing else.

Two of the operators that PyTorch itself has open files: `save` and `from_file`. Operators of libraries are code. A
program could also write their names in pieces, or give what has all operators another name. PyTorch writes none of
this when it saves a program, so the code has to be as PyTorch writes it: an operator is called where it is named.
"""

from __future__ import annotations

import re

from .archives import Archive

MOST = 64 << 20  # bytes of all code in a program
LARGEST_PICKLE = 64 << 20  # bytes of the list of its objects, which is read by an interpreter that calls no Python
MOST_FILES = 5000
LEGACY = "model.json"  # in it, an old format names the file with the code
REACHES_OUT = re.compile(rb"\b(from_file|save)\b")
SPACES = rb"aten|prim|prims|quantized|sparse|mkldnn|mkldnn_prepacked|prepacked|_caffe2|_quantized"
TEXT = re.compile(rb'"""(?:[^"\\]|\\.|"(?!""))*"""'
                  rb"|'''(?:[^'\\]|\\.|'(?!''))*'''"
                  rb'|"(?:[^"\\\n]|\\.)*"'
                  rb"|'(?:[^'\\\n]|\\.)*'", re.DOTALL)  # fmt: skip
OTHERWISE = re.compile(rb"[#\\\"']")  # comments, lines that go on: PyTorch writes none
# What has all operators, unless it calls one, or is an attribute: behind a dot, or declared at the begin of a class.
CALLS = rb"(?<=torch)\.\w+\(|(?<=ops)\.(?:" + SPACES + rb")\.\w+\(|(?<=\n  ops) : |(?<=\n  torch) : "
HOLDER = re.compile(rb"(?<![\w.])(torch|ops)\b(?!" + CALLS + rb")")
LIBRARY = re.compile(rb"\bops\s*\.\s*(?!(?:" + SPACES + rb")\s*\.)(\w+)\s*\.\s*(\w+)")
# The parts of a name are divided by dots in code, and by dots and the end of a line in a pickle.
CLASS = re.compile(rb"__torch__[\s.]+torch[\s.]+classes[\s.]+(?!(?:quantized|sparse|xnnpack)[\s.])(\w+)")


def is_script(sizes: object) -> bool:
    """Return whether files of an archive, by their names, are those of a program of TorchScript."""
    return isinstance(sizes, dict) and any(name.startswith("code/") for name in sizes)


def check_script(archive: Archive, most: int = MOST) -> bool:
    """Check the code of a program. Returns whether it has a division that whole numbers may end the process with.

    Raises:
        OSError: a file in it is missing, or too large.
        ValueError: it is damaged, or more than a computation; why.
    """
    if LEGACY in archive.sizes:
        raise ValueError("it has the format of PyTorch before 1.4: load and save it again with torch.jit")
    code = [name for name in archive.sizes if name.startswith("code/") or name.endswith(".py")]
    code = [name for name in code if not name.endswith(".debug_pkl")]
    if "data.pkl" not in archive.sizes or not code:
        raise ValueError("it has no data.pkl, or no code: save it with torch.jit.save")
    if len(code) > MOST_FILES or sum(archive.sizes[name] for name in code) > most:
        raise ValueError(f"it has more than {MOST_FILES:,} files or {most:,} bytes of code")
    divides = False
    for name in code:
        text = archive.read(name, most)
        _check(name, text)
        divides = divides or b"trunc" in text
    for name in archive.sizes:
        if name.endswith("pkl"):  # constants.pkl has objects too
            _check_classes(name, archive.read(name, LARGEST_PICKLE))
    return divides


def _check(name: str, text: bytes) -> None:
    if found := REACHES_OUT.search(text):
        what = (
            f"{name} in it has the word {found[1].decode()}, the name of an operator that opens files of this machine"
        )
        raise ValueError(f"{what}: if it is the name of something else, rename that")
    if found := LIBRARY.search(text):
        operator = b"::".join(found.groups()).decode()
        raise ValueError(f"{name} in it uses {operator}, an operator of a library, and that is code")
    bare = TEXT.sub(b" ", text)
    if OTHERWISE.search(bare):
        raise ValueError(f"{name} in it has comments, or lines that go on in the next one: save it with torch.jit.save")
    if found := HOLDER.search(bare):
        what = f"{name} in it uses {found[1].decode()} otherwise than to call one of PyTorch's operators"
        raise ValueError(f"{what}, and that may be code: save it with torch.jit.save")
    _check_classes(name, text)


def _check_classes(name: str, text: bytes) -> None:
    if found := CLASS.search(text):
        raise ValueError(f"{name} in it has objects of {found[1].decode()}, a class of a library, and that is code")
