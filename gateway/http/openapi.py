"""The OpenAPI document: what Litestar knows of its own routes and of plugins', and beside it the routes of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request
from litestar.enums import MediaType
from litestar.openapi.plugins import OpenAPIRenderPlugin

from .components import SCHEMAS, TAGS
from .exchange import sees_of
from .guards import OPEN
from .operations import paths

if TYPE_CHECKING:
    from ..hub import Hub, Sees

Json = dict[str, Any]
KEPT = 8  # documents: the last one, and those that other callers see
KEYS: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "As OpenAI's clients send a key"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "As Anthropic's do"},
}


class Document(OpenAPIRenderPlugin):
    """Renders the document, anew whenever models come, go or load. All that is served below its path."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(path="/", media_type=MediaType.JSON)
        self._hub = hub
        self._rendered: dict[tuple[Any, ...], tuple[list[Any], bytes]] = {}  # with what the keys are the ids of

    def has_path(self, path: str) -> bool:
        return True  # so that Litestar adds no copy of its own

    def render(self, request: Request[Any, Any, Any], openapi_schema: Json) -> bytes:
        hub, sees = self._hub, sees_of(request.scope)
        seen = hub.seen(sees)
        of_models = [one for model in seen for one in (model.name, model.state, model.capabilities, model.spec)]
        aliases = tuple((alias, name) for alias, name in hub.aliases.items() if sees(name))
        key = (hub.keys.is_required, aliases, *map(id, of_models))
        if key not in self._rendered:
            if len(self._rendered) >= KEPT:
                self._rendered.clear()
            self._rendered[key] = of_models, msgspec.json.encode(document(openapi_schema, hub, sees))
        return self._rendered[key][1]


def document(base: Json, hub: Hub, sees: Sees) -> Json:
    """The whole document for one caller. `base` is Litestar's and stays as it is."""
    components = {**base.get("components", {})}
    components["schemas"] = {**components.get("schemas", {}), **SCHEMAS}
    ours = dict(paths(hub, hub.seen(sees), components["schemas"]))
    found = {**ours, **{path: _tagged(operations) for path, operations in base.get("paths", {}).items()}}
    if hub.keys.is_required:
        components["securitySchemes"] = KEYS
        base = {**base, "security": [{name: []} for name in KEYS]}
        for path in OPEN & found.keys():
            found[path] = {verb: {**operation, "security": []} for verb, operation in found[path].items()}
    used = {tag for operations in found.values() for operation in operations.values() for tag in operation["tags"]}
    tags = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    tags += [{"name": name} for name in sorted(used - TAGS.keys())]
    return {**base, "tags": tags, "paths": found, "components": components}


def _tagged(operations: Json) -> Json:
    """Routes of Litestar's, which are the gateway's own where a plugin does not say otherwise."""
    return {verb: {**operation, "tags": operation.get("tags") or ["gateway"]} for verb, operation in operations.items()}
