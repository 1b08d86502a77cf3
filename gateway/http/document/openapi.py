"""The OpenAPI document: Litestar's own routes and those of plugins, and the routes of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request
from litestar.enums import MediaType
from litestar.openapi.plugins import OpenAPIRenderPlugin

from ..exchange import sees_of
from ..route_table import OPEN
from .components import SCHEMAS, TAGS
from .operations import paths

if TYPE_CHECKING:
    from ...access.permits import KeyRing
    from ...dialects.base import Dialect
    from ...hosting.catalog import Catalog, Sees

Json = dict[str, Any]
KEPT = 8  # documents in the cache, for different callers
KEYS: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "As OpenAI's clients send it"},
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "As Anthropic's clients send it",
    },
}


class Document(OpenAPIRenderPlugin):
    """Renders the document, again whenever models are added, removed or loaded."""

    def __init__(self, catalog: Catalog, dialects: Mapping[str, Dialect], keys: KeyRing) -> None:
        super().__init__(path="/", media_type=MediaType.JSON)
        self._catalog, self._dialects, self._keys = catalog, dialects, keys
        self._rendered: dict[tuple[Any, ...], tuple[list[Any], bytes]] = {}  # keeps alive the objects in the key

    def has_path(self, path: str) -> bool:
        return True  # keeps Litestar from adding a copy of its own

    def render(self, request: Request[Any, Any, Any], openapi_schema: Json) -> bytes:
        catalog, keys, sees = self._catalog, self._keys, sees_of(request.scope)
        seen = catalog.seen(sees)
        of_models = [one for model in seen for one in (model.name, model.state, model.capabilities, model.spec)]
        aliases = tuple((alias, name) for alias, name in catalog.aliases.items() if sees(name))
        key = (keys.is_required, aliases, *map(id, of_models))
        if key not in self._rendered:
            if len(self._rendered) >= KEPT:
                self._rendered.clear()
            found = document(openapi_schema, catalog, self._dialects, sees, has_keys=keys.is_required)
            self._rendered[key] = of_models, msgspec.json.encode(found)
        return self._rendered[key][1]


def document(base: Json, catalog: Catalog, dialects: Mapping[str, Dialect], sees: Sees, *, has_keys: bool) -> Json:
    """Return the whole document for one caller. `base` is Litestar's document and stays unchanged."""
    components = {**base.get("components", {})}
    components["schemas"] = {**components.get("schemas", {}), **SCHEMAS}
    ours = dict(paths(catalog, dialects, catalog.seen(sees), components["schemas"]))
    found = {**ours, **{path: _tagged(operations) for path, operations in base.get("paths", {}).items()}}
    if has_keys:
        components["securitySchemes"] = KEYS
        base = {**base, "security": [{name: []} for name in KEYS]}
        for path in OPEN & found.keys():
            found[path] = {verb: {**operation, "security": []} for verb, operation in found[path].items()}
    used = {tag for operations in found.values() for operation in operations.values() for tag in operation["tags"]}
    tags = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    tags += [{"name": name} for name in sorted(used - TAGS.keys())]
    return {**base, "tags": tags, "paths": found, "components": components}


def _tagged(operations: Json) -> Json:
    """Tag Litestar's routes. Without a tag from a plugin they belong to the gateway."""
    return {verb: {**operation, "tags": operation.get("tags") or ["gateway"]} for verb, operation in operations.items()}
