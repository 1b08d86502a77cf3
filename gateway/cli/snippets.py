"""Lines to paste once the gateway is up: curl, and the OpenAI SDK, for a model that is ready.

For a chat model, else an embedding model, else a predict model, else whatever route a model answers. With keys on, the
key comes from the environment.
"""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub

CHAT = """\
curl -N {url}/v1/chat/completions {key}-H 'Content-Type: application/json' \\
  -d {body}

from openai import OpenAI{imports}
client = OpenAI(base_url="{url}/v1", api_key={api_key})
stream = client.chat.completions.create(
    model={model}, messages=[{{"role": "user", "content": "Say hello."}}], stream=True)
for chunk in stream: print(chunk.choices[0].delta.content or "", end="", flush=True)
"""

EMBEDDINGS = """\
curl {url}/v1/embeddings {key}-H 'Content-Type: application/json' \\
  -d {body}

from openai import OpenAI{imports}
client = OpenAI(base_url="{url}/v1", api_key={api_key})
print(client.embeddings.create(model={model}, input="Hello.").data[0].embedding[:4])
"""

PREDICT = """\
curl -N {url}/v1/models/{name}:predict {key}-H 'Content-Type: application/json' \\
  -d {body}
"""

ENDPOINT = """\
curl {url}{path} {key}-H 'Content-Type: application/json' \\
  -d {body}
"""


def snippets(hub: Hub, url: str) -> str | None:
    """Return the lines, None when no model is ready.

    Of several models of a kind it is the one that reads the longest texts: a language model before a toy.
    """
    for method, template in (("chat_completions", CHAT), ("embeddings", EMBEDDINGS), ("predict", PREDICT)):
        ready = [
            model
            for model in hub.models.values()
            if model.state == "ready" and any(known.name == method for known in model.capabilities.methods)
        ]
        if ready:
            best = max(ready, key=lambda model: model.capabilities.max_model_len or 0)
            return _fill(template, best, url, has_key=hub.settings.gateway.api_key is not None)
    return _endpoint(hub, url)


def _endpoint(hub: Hub, url: str) -> str | None:
    """The first route that a ready model answers and whose dialect has an example."""
    dialects = hub.plugins.dialects()
    for endpoint in hub.endpoints:
        example = dialects[endpoint.dialect].request_schema.get("example")
        ready = [model for model in hub.models.values() if model.state == "ready" and hub.serves(model, endpoint)]
        if ready and example is not None:
            body = {"model": ready[0].name, **example}
            has_key = hub.settings.gateway.api_key is not None
            return _fill(ENDPOINT, ready[0], url, has_key=has_key, body=body, path=endpoint.path)
    return None


def _fill(
    template: str, model: HostedModel, url: str, *, has_key: bool, body: dict[str, Any] | None = None, path: str = ""
) -> str:
    bodies: dict[str, Any] = {
        ENDPOINT: body,
        CHAT: {"model": model.name, "stream": True, "messages": [{"role": "user", "content": "Say hello."}]},
        EMBEDDINGS: {"model": model.name, "input": "Hello."},
        PREDICT: example(model.capabilities.input_schema or {}),
    }
    shell, python = _key_from() if has_key else ("", '"unused"')
    return template.format(
        url=url,
        path=path,
        key=f'-H "Authorization: Bearer {shell}" ' if has_key else "",
        imports="\nimport os" if has_key else "",
        api_key=python,
        model=json.dumps(model.name),
        name=model.name,
        body=shlex.quote(json.dumps(bodies[template])),
    )


def _key_from() -> tuple[str, str]:
    """Where the shell and Python find the key."""
    if os.environ.get("GATEWAY_API_KEY_FILE"):
        return '$(cat "$GATEWAY_API_KEY_FILE")', 'open(os.environ["GATEWAY_API_KEY_FILE"]).read().strip()'
    return "$GATEWAY_API_KEY", 'os.environ["GATEWAY_API_KEY"]'


def example(schema: Any, defs: Any = None) -> Any:
    """Return a value of a JSON schema: its examples and defaults where it has them, the required properties only."""
    if not isinstance(schema, dict):
        return {}
    defs = schema.get("$defs", defs)
    if "$ref" in schema and isinstance(defs, dict):
        return example(defs.get(schema["$ref"].rpartition("/")[2]), defs)
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example(schema[key][0], defs)
    if schema.get("type") == "array":
        return [example(schema.get("items"), defs)]
    plain = {"string": "Hello.", "integer": 1, "number": 1.0, "boolean": True, "null": None}
    if schema.get("type") in plain:
        return plain[schema["type"]]
    properties = schema.get("properties", {})
    return {name: example(properties.get(name), defs) for name in schema.get("required", ())}
