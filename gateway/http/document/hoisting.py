"""Move the definitions in schemas of models to the components of the API document, under unique names.

Pydantic writes `#/$defs/Node` for references, but inside a document that path points nowhere. Inlining the definitions
would work for flat schemas; a recursive one with four fields would grow beyond 30 MB.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, MutableMapping
from typing import Any

Json = dict[str, Any]
PLACE = "#/components/schemas/"  # where the document has its schemas
MAX_DEFINITIONS = 4096  # of one schema; no real class has more
_START = "#/$defs/"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


def hoist(schema: Mapping[str, Any], prefix: str, components: MutableMapping[str, Any]) -> Json:
    """Return the schema with references into the document, and add its definitions to `components`.

    Any other reference becomes a schema that allows anything, so a model cannot send readers of the document elsewhere.
    The same applies to a schema that is nested too deep or has too many definitions.
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
    """Choose a name in the document for each definition: its own, escaped, with a number if that is taken."""
    names: dict[str, str] = {}
    found: set[str] = set()
    last: dict[str, int] = {}  # the last number tried: thousands of names may be equal after escaping
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
