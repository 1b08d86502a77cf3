"""What models that PyTorch computes share: results as JSON has them, refusals of inputs, and the device.

Imported in the worker only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import BadRequest

MEMORY = ("can't allocate memory", "out of memory", "std::bad_alloc", "not enough memory")
COLORS, KERAS = re.compile(r"\x1b\[\d*m"), re.compile(r"\AException encountered when calling \S+\s+")
LONGEST = 300  # characters of the library's own message


def named(found: Any, names: Sequence[str] | None) -> dict[str, Any]:
    """Return a result by the names of its parts.

    A dictionary has names. Those of a tuple or a list are `names`, otherwise output_0, output_1 …; a single value is
    `output`.

    Raises:
        ValueError: there are more names than parts, or fewer.
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


def refusal(error: Exception) -> Exception:
    """Return what to raise for an error of a computation: memory is no fault of the request, all else is its inputs'.

    The library has no class of its own for what a model refuses.
    """
    if isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY):
        return MemoryError(words(error))
    return BadRequest(f"the model refused these inputs: {words(error)}", code="invalid_value")


def device() -> str:
    """Return where a model computes: on a GPU if the placement gave it one, and PyTorch can use it."""
    import torch

    if not os.environ.get("CUDA_VISIBLE_DEVICES"):  # the gateway sets the variable for every worker
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    print("warning: the model has a GPU, but this PyTorch only computes on CPUs")
    return "cpu"


def words(error: BaseException) -> str:
    """Return the library's message in one line, without places in the program or in the library's source."""
    text = COLORS.sub("", str(error)).partition("\nException raised from")[0]
    text = KERAS.sub("", text.partition("\n\nArguments received by")[0])
    if "TorchScript" in text and "RuntimeError:" in text:  # behind the lines of the program
        text = text.rpartition("RuntimeError:")[2]
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
