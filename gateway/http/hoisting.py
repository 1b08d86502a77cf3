"""Schemas of models inside the API document: their definitions once, under names of the whole document.

Pydantic writes `#/$defs/Node` for what a schema refers to, and inside a document that path leads nowhere. Putting the
definitions in place of their references would do for flat ones; a recursive one with four fields grows beyond 30 MB.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, MutableMapping
from typing import Any

Json = dict[str, Any]
PLACE = "#/components/schemas/"
MAX_DEFINITIONS = 4096  # of one schema; what has more was written by no class
_START = "#/$defs/"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


def hoist(schema: Mapping[str, Any], prefix: str, components: MutableMapping[str, Any]) -> Json:
    """The schema with references into the document; what they lead to is added to `components`.

    A reference to anything else lets in anything: nobody who reads the document is sent elsewhere by a model. So does
    a schema that nests too deep to be written, or that has more definitions than anybody reads.
    """
    given = schema.get("$defs", {})
    definitions = given if isinstance(given, Mapping) else {}
    if len(definitions) > MAX_DEFINITIONS:
        return {}
    names = _names(definitions, prefix, components)
    references = {_START + name: PLACE + wanted for name, wanted in names.items()}
    try:
        added = {names[name]: _with_references(definition, references) for name, definition in definitions.items()}
        found = _with_references({key: value for key, value in schema.items() if key != "$defs"}, references)
    except RecursionError:
        return {}
    components.update(added)
    assert isinstance(found, dict)
    return found


def _names(definitions: Iterable[str], prefix: str, taken: Container[str]) -> dict[str, str]:
    """What each is called in the document: its own name as it can be written there, with a number if that is taken."""
    names: dict[str, str] = {}
    found: set[str] = set()
    last: dict[str, int] = {}  # the number that was tried last: thousands of names may be one once they are written
    for name in definitions:
        base = wanted = f"{prefix}.{_NOT_IN_NAMES.sub('_', name)}"
        while wanted in taken or wanted in found:
            last[base] = last.get(base, 1) + 1
            wanted = f"{base}.{last[base]}"
        found.add(wanted)
        names[name] = wanted
    return names


def _with_references(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_with_references(item, names) for item in value]
    if not isinstance(value, Mapping):
        return value
    mapping = value.get("mapping")  # of a discriminator: its values are references too
    found = {key: _with_references(item, names) for key, item in value.items() if key != "mapping"}
    reference = value.get("$ref")
    if isinstance(reference, str):
        if reference in names:
            found["$ref"] = names[reference]
        else:
            del found["$ref"]
    if isinstance(mapping, Mapping):
        found["mapping"] = {
            key: names.get(item, item) if isinstance(item, str) else _with_references(item, names)
            for key, item in mapping.items()
        }
    elif "mapping" in value:
        found["mapping"] = _with_references(mapping, names)
    return found
