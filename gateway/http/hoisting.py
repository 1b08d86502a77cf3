"""Schemas of models inside the API document: their definitions once, under names of the whole document.

Pydantic writes `#/$defs/Node` for what a schema refers to, and inside a document that path leads nowhere. Putting the
definitions in place of their references would do for flat ones; a recursive one with four fields grows beyond 30 MB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
PLACE = "#/components/schemas/"
_START = "#/$defs/"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


def hoist(schema: Mapping[str, Any], prefix: str, components: Json) -> Json:
    """The schema with references into the document; what they lead to is added to `components`.

    A reference to anything else lets in anything: nobody who reads the document is sent elsewhere by a model. So does
    a schema that nests too deep to be written.
    """
    given_components = {*components}
    try:
        return _hoist(schema, prefix, components)
    except RecursionError:
        for name in components.keys() - given_components:
            del components[name]
        return {}


def _hoist(schema: Mapping[str, Any], prefix: str, components: Json) -> Json:
    given = schema.get("$defs", {})
    definitions = given if isinstance(given, Mapping) else {}
    names: dict[str, str] = {}
    for name in definitions:
        base = wanted = f"{prefix}.{_NOT_IN_NAMES.sub('_', str(name))}"
        number = 1
        while wanted in components:
            number += 1
            wanted = f"{base}.{number}"
        components[wanted] = {}
        names[_START + name] = PLACE + wanted
    for name, definition in definitions.items():
        components[names[_START + name].removeprefix(PLACE)] = _with_references(definition, names)
    found = _with_references({key: value for key, value in schema.items() if key != "$defs"}, names)
    assert isinstance(found, dict)
    return found


def _with_references(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_with_references(item, names) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: _with_references(item, names) for key, item in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str):
        if reference in names:
            found["$ref"] = names[reference]
        else:
            del found["$ref"]
    mapping = value.get("mapping")  # of a discriminator: its values are references too
    if isinstance(mapping, Mapping):
        found["mapping"] = {
            key: names.get(item, item) if isinstance(item, str) else _with_references(item, names)
            for key, item in mapping.items()
        }
    return found
