"""What the options of config.yaml say about the inputs and outputs of a program, and TorchScript's own types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway_tensors.types import Dim, Type

from gateway import ConfigError

TENSOR = re.compile(r"\s*(\w+)\s*(?:\[([\w\s,?]*)\])?\s*", re.ASCII)
ELEMENTS = frozenset("float16 float32 float64 int8 int16 int32 int64 uint8 bool bfloat16".split())
EXAMPLE = '"float32 [n, 3, 32, 32]"'
SCALARS = {"int": "int64", "float": "float64", "bool": "bool", "str": "string"}
LISTS = {"List[int]": "int64", "List[float]": "float64", "List[bool]": "bool", "List[str]": "string"}
ANY = Type("tensor", "float32")


def declared_inputs(options: Mapping[str, Any]) -> dict[str, tuple[Type, bool]]:
    """Return the types that the option `inputs` gives, and whether each is bfloat16, which is sent as float32.

    Raises:
        ConfigError: the option is wrong.
    """
    given = options.get("inputs", {})
    if not isinstance(given, Mapping):
        raise ConfigError(f"config.yaml: options: inputs has to map names to types, such as {EXAMPLE}")
    return {str(name): _declared(str(name), text) for name, text in given.items()}


def _declared(name: str, text: Any) -> tuple[Type, bool]:
    found = TENSOR.fullmatch(text) if isinstance(text, str) else None
    if found is None or found[1] not in ELEMENTS:
        have = ", ".join(sorted(ELEMENTS))
        raise ConfigError(
            f"config.yaml: options: inputs: {name} is {text!r}; write a type and a shape, such as {EXAMPLE} ({have})"
        )
    parts = None if found[2] is None else [part.strip() for part in found[2].split(",") if part.strip()]
    dims = None if parts is None else tuple(_dim(part) for part in parts)
    is_brain = found[1] == "bfloat16"
    return Type("tensor", "float32" if is_brain else found[1], dims), is_brain


def _dim(text: str) -> Dim:
    return None if text == "?" else int(text) if text.isdigit() else text


def output_names(options: Mapping[str, Any]) -> list[str] | None:
    """Return the names that the option `outputs` gives to the parts of a result.

    Raises:
        ConfigError: the option is wrong.
    """
    given = options.get("outputs")
    if given is None:
        return None
    if not isinstance(given, list) or not given or len({str(each) for each in given}) < len(given):
        raise ConfigError("config.yaml: options: outputs has to be a list of different names")
    return [str(each) for each in given]


def script_type(text: str) -> Type | None:
    """Return what an argument of a type of TorchScript takes; None if JSON has no such values."""
    if (inner := _inside(text, "Optional")) is not None:
        found = script_type(inner)
        return None if found is None else Type("optional", inner=found)
    if text in SCALARS:
        return Type("tensor", SCALARS[text], ())
    if text in LISTS:
        return Type("tensor", LISTS[text], (None,))
    if text == "Tensor":
        return ANY
    return Type("sequence", inner=ANY) if text == "List[Tensor]" else None


def _inside(text: str, word: str) -> str | None:
    return text[len(word) + 1 : -1] if text.startswith(f"{word}[") and text.endswith("]") else None
