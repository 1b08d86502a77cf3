"""Read one YAML document within bounds and remember the line of every key.

Safe tags only. A file decides nothing about our memory and our time: its size, its nesting, the number of its values
and what its aliases expand to are bounded before a value is built. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_VALUES = 20_000  # with the keys: what is made of each takes far longer than to read it
MAX_EXPANSION = 1000  # nodes that aliases may repeat; ten nested lists of ten aliases are ten thousand million

Key = tuple[Any, ...]  # ("runtime", "predict_concurrency"), ("weights", 0, "source")

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser where PyYAML was built with it


class _Loader(_Base):  # type: ignore[misc]
    """Safe tags, and whole numbers that fit into 64 bits: the channel to a worker carries no others."""

    def construct_yaml_int(self, node: Any) -> int:
        number: int = super().construct_yaml_int(node)
        if not -(2**63) <= number < 2**64:
            raise yaml.constructor.ConstructorError(None, None, "a number beyond 64 bits", node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class YAMLError(ValueError):
    """A document that cannot be read; `line` counts from 1, 0 when there is none."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """The value, the line of each key, and the keys that were written twice (the last one counts)."""

    data: Any
    lines: Mapping[Key, int]
    duplicates: tuple[tuple[str, int], ...] = ()


def parse(content: bytes) -> Document:
    """Return the document in `content`.

    Raises `YAMLError`, and nothing else, for anything that is not one small, safe, well-formed document.
    """
    if len(content) > MAX_BYTES:
        raise YAMLError(f"longer than the {MAX_BYTES} bytes that are read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YAMLError("not UTF-8", content.count(b"\n", 0, error.start) + 1) from None
    try:
        _check_events(text)
        return _build(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise YAMLError(what, mark.line + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        raise YAMLError(str(error).splitlines()[0]) from None
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError) as error:
        if isinstance(error, YAMLError):
            raise
        # PyYAML's constructors let odd scalars through to int(), date() and friends: 2001-99-99, !!int x, !!bool 1
        raise YAMLError(f"a value that makes no sense: {error}") from None


def _check_events(text: str) -> None:
    """Look at the events first: building nodes recurses in C, where no recursion limit protects us."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.NodeEvent):
            values += 1
            if values > MAX_VALUES:
                mark = event.start_mark
                raise YAMLError(
                    f"more than the {MAX_VALUES} keys and values that are read", mark.line + 1 if mark else 0
                )
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                mark = event.start_mark
                raise YAMLError(f"nested deeper than {MAX_DEPTH}", mark.line + 1 if mark else 0)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


def _build(text: str) -> Document:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Document(None, {})
        walk = _Walk()
        walk.visit(root, (), 0)
        return Document(loader.construct_document(root), walk.lines, tuple(walk.duplicates))
    finally:
        loader.dispose()


class _Walk:
    """Visits every node as often as the value will hold it, and gives up when aliases multiply."""

    def __init__(self) -> None:
        self.lines: dict[Key, int] = {}
        self.duplicates: list[tuple[str, int]] = []
        self._seen: set[int] = set()
        self._repeated = 0

    def visit(self, node: Any, key: Key, depth: int) -> None:
        line = node.start_mark.line + 1
        if id(node) in self._seen:
            self._repeated += 1
            if self._repeated > MAX_EXPANSION:
                raise YAMLError(f"aliases that expand to more than {MAX_EXPANSION} values", line)
        self._seen.add(id(node))
        if depth > MAX_DEPTH:
            raise YAMLError(f"aliases nested deeper than {MAX_DEPTH}", line)
        if isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, key, depth)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines.setdefault((*key, index), item.start_mark.line + 1)
                self.visit(item, (*key, index), depth + 1)

    def _visit_mapping(self, node: Any, key: Key, depth: int) -> None:
        names: set[str] = set()
        for name, value in node.value:
            here = (*key, name.value if isinstance(name, yaml.ScalarNode) else None)
            line = name.start_mark.line + 1
            if isinstance(name, yaml.ScalarNode):
                if name.value in names:
                    self.duplicates.append((".".join(str(part) for part in here), line))
                names.add(name.value)
            else:
                self.visit(name, (), depth + 1)
            self.lines[here] = line
            self.visit(value, here, depth + 1)
