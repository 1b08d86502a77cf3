"""Read the tensor names in a pytorch_model.bin from its pickle opcodes, without creating objects and without torch.

A small pickle may create expensive objects: a key of nested tuples may take very long to hash.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any

from gateway import peek_archive

LARGEST = 64 << 20  # bytes of the pickle, about a hundred per tensor
LARGEST_TABLE = 16 << 20  # bytes of the table of contents, which lists the data of each tensor
MOST_STEPS = 4_000_000  # opcodes; about forty per tensor
TEXTS = frozenset("UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 GLOBAL".split())
PUTS = frozenset("PUT BINPUT LONG_BINPUT MEMOIZE".split())
GETS = frozenset("GET BINGET LONG_BINGET".split())
GIVEN = TEXTS | GETS  # opcodes that push their argument on the stack
FILLS = frozenset("SETITEM SETITEMS APPEND APPENDS ADDITEMS BUILD".split())  # these modify an object on the stack
ORDERED = "collections OrderedDict"
MARK = object()


def names(file: Path) -> list[str]:
    """Return the keys of the dictionary in the file; none if it is not such a file, or too large."""
    try:
        found = _value(peek_archive(file, "*/data.pkl", LARGEST, LARGEST_TABLE)[0])
    except (OSError, ValueError, LookupError):  # the load of the weights reports broken files
        return []
    return list(found) if isinstance(found, dict) else []


def _value(pickled: bytes) -> Any:
    """Evaluate a pickle: dictionaries become their string keys, strings stay, everything else is None."""
    stack, memo = list[Any](), dict[int, Any]()
    for number, (step, given, _) in enumerate(pickletools.genops(pickled)):
        if number > MOST_STEPS:
            raise ValueError(f"it has more than {MOST_STEPS:,} steps")
        if step.name in PUTS:
            memo[len(memo) if given is None else given] = stack[-1]
        elif step.name == "STOP":
            break
        elif step.name in GIVEN:
            stack.append(memo[given] if step.name in GETS else given)
        else:
            _step(stack, step)
    return stack.pop()


def _step(stack: list[Any], step: pickletools.OpcodeInfo) -> None:
    takes, items = list(step.stack_before), list[Any]()
    if pickletools.markobject in takes:
        while (item := stack.pop()) is not MARK:
            items.append(item)
        items.reverse()
        del takes[takes.index(pickletools.markobject) :]
    taken = [stack.pop() for _ in takes][::-1]
    if step.name == "MARK":
        stack.append(MARK)
    elif step.name in FILLS:
        if isinstance(taken[0], dict) and step.name in ("SETITEM", "SETITEMS"):
            taken[0].update((key, None) for key in [*taken[1:2], *items[::2]] if isinstance(key, str))
        stack.append(taken[0])
    elif step.name in ("EMPTY_DICT", "DICT") or (step.name == "REDUCE" and taken[0] == ORDERED):
        stack.append({key: None for key in items[::2] if isinstance(key, str)})
    elif step.name == "STACK_GLOBAL":
        stack.append(" ".join(map(str, taken)))
    else:
        stack += [None] * len(step.stack_after)
