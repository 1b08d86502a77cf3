"""What a model takes and answers: values with a name, and the type of each."""

from __future__ import annotations

from dataclasses import dataclass

Dim = int | str | None  # a length, the name of one, or unknown


@dataclass(frozen=True, slots=True)
class Type:
    """The type of a value. `element` and `dims` are of a tensor; `inner` is what a sequence or an optional has."""

    kind: str = "unknown"
    element: str = ""
    dims: tuple[Dim, ...] | None = None  # None: any number of them
    inner: Type | None = None

    def __str__(self) -> str:
        if self.kind == "tensor":
            return self.element if self.dims is None else f"{self.element} {shown(self.dims)}"
        return f"{self.kind} of {self.inner}" if self.inner else self.kind


@dataclass(frozen=True, slots=True)
class Value:
    name: str
    type: Type
    has_default: bool = False  # the graph has a value for it


def shown(dims: tuple[Dim, ...]) -> str:
    """Return a shape as messages show it, with ? for a length that has no name."""
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in dims) + "]"
