"""Make the answer of what a program returns: tensors become arrays, and the parts of a result get names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def named(found: Any, names: Sequence[str] | None) -> dict[str, Any]:
    """Return a result by the names of its parts.

    A dictionary has names. Those of a tuple or a list are `names`, otherwise output_0, output_1 …; a single value is
    `output`.
    """
    if isinstance(found, Mapping):
        return {str(key): plain(each) for key, each in found.items()}
    parts = list(found) if isinstance(found, (tuple, list)) else [found]
    if names is None:
        names = ["output"] if parts and parts[0] is found else [f"output_{place}" for place in range(len(parts))]
    return {name: plain(each) for name, each in zip(names, parts, strict=True)}


def plain(found: Any) -> Any:
    """Return a value with arrays instead of tensors, which the gateway writes as nested lists."""
    import torch

    if isinstance(found, torch.Tensor):
        found = found.detach().cpu()
        if found.layout is not torch.strided:
            found = found.to_dense()
        if found.is_quantized:
            found = found.dequantize()
        if found.dtype is torch.bfloat16 or (found.dtype.itemsize == 1 and found.is_floating_point()):
            found = found.float()  # NumPy lacks these
        return found.resolve_conj().resolve_neg().numpy()
    if isinstance(found, Mapping):
        return {str(key): plain(each) for key, each in found.items()}
    if isinstance(found, (tuple, list)):
        return [plain(each) for each in found]
    return found


def count(found: Any) -> int:
    """Return how many names `named` needs."""
    return len(found) if isinstance(found, (tuple, list, Mapping)) else 1
