"""Read one YAML document within bounds, with the line of every key.

Only safe tags are supported. A file cannot exhaust memory or time: its size, its nesting, the number of its values and
the expansion of its aliases are checked before a value is built. Independent of models.
"""

from __future__ import annotations

from typing import Any

import yaml

from .document import MAX_BYTES, Document, Key, YAMLError

MAX_DEPTH = 64
MAX_VALUES = 20_000  # including keys: converting each takes far longer than parsing it
LONGEST_INT = 200  # characters of an integer; with base 60 (1:30:00), time grows with the square of its length
MAX_EXPANSION = 1000  # nodes that aliases may repeat; ten nested lists of ten aliases each are ten billion values

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser, if PyYAML was built with it


class _Loader(_Base):  # type: ignore[misc]
    """Safe tags, and integers of at most 64 bits: the channel to a worker supports no larger ones."""

    def construct_yaml_int(self, node: Any) -> int:
        is_long = isinstance(node.value, str) and len(node.value) > LONGEST_INT
        if is_long or not -(2**63) <= (number := int(super().construct_yaml_int(node))) < 2**64:
            raise yaml.constructor.ConstructorError(None, None, "a number beyond 64 bits", node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse(content: bytes) -> Document:
    """Return the document in `content`.

    Raises only `YAMLError`, for anything that is not one small, safe, well-formed document.
    """
    if len(content) > MAX_BYTES:
        raise YAMLError(f"longer than {MAX_BYTES} bytes")
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
        # PyYAML's constructors pass invalid scalars to int(), date() and others: 2001-99-99, !!int x, !!bool 1
        raise YAMLError(f"invalid value: {error}") from None


def _check_events(text: str) -> None:
    """Check the event stream first: building nodes recurses in C, without a recursion limit."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.NodeEvent):
            values += 1
            if values > MAX_VALUES:
                mark = event.start_mark
                raise YAMLError(f"more than {MAX_VALUES} keys and values", mark.line + 1 if mark else 0)
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
    """Visits every node as often as it occurs in the value, and stops if aliases multiply too much."""

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
