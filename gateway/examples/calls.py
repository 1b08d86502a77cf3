"""Example calls of models for the terminal, the start page and the API page, so that all show the same.

There are examples for a chat model, an embedding model and a predict model, or else for any route that a model answers.
If keys are needed, the key is read from the user's environment.
"""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dialects.oip.schema import metadata
from ..dialects.oip.tensors import measured
from ..dialects.plugin_dialects import completed
from ..hosting.capability_cache import Learned
from .values import MAX_TEXT, example

if TYPE_CHECKING:
    from ..dialects.base import Dialect
    from ..hosting.catalog import Catalog
    from ..hosting.model import HostedModel
    from ..spec import Endpoint

MESSAGES = [{"role": "user", "content": "Say hello."}]
INPUT = ["one", "two"]
PASTE_KEY = "# set GATEWAY_API_KEY to your key, as printed by `gateway keys add NAME`\n"

CHAT = """\
curl -N {url}/v1/chat/completions {cacert}{key}-H 'Content-Type: application/json' \\
  -d {body}

from openai import OpenAI{imports}
client = OpenAI(base_url="{url}/v1", api_key={api_key}{trust})
stream = client.chat.completions.create(
    model={model}, messages=[{{"role": "user", "content": "Say hello."}}], stream=True)
for chunk in stream: print(chunk.choices[0].delta.content or "", end="", flush=True)
"""

EMBEDDINGS = """\
curl {url}/v1/embeddings {cacert}{key}-H 'Content-Type: application/json' \\
  -d {body}

from openai import OpenAI{imports}
client = OpenAI(base_url="{url}/v1", api_key={api_key}{trust})
print(client.embeddings.create(model={model}, input=["one", "two"]).data[0].embedding[:4])
"""

PREDICT = """\
curl -N {url}/v1/models/{name}:predict {cacert}{key}-H 'Content-Type: application/json' \\
  -d {body}
"""

ENDPOINT = """\
curl {url}{path} {cacert}{key}-H 'Content-Type: application/json' \\
  -d {body}
"""

# Elements of example tensors, if they are not numbers.
ELEMENTS = {"BOOL": True, "BYTES": "a"}
Described = list[dict[str, Any]]
METHODS = {"chat_completions": CHAT, "embeddings": EMBEDDINGS, "predict": PREDICT}


def _input(model: HostedModel) -> Any:
    told = model.spec.config.get("model_metadata")
    shown = told.get("example_model_input") if isinstance(told, Mapping) else None
    if shown is not None and _is_short_json(shown):
        return shown
    return example(model.capabilities.input_schema or {})


def _tensors(model: HostedModel) -> tuple[Described, Described]:
    capabilities = model.capabilities
    return metadata(capabilities.input_schema), metadata(capabilities.output_schema)


def _as_request(model: HostedModel) -> dict[str, Any]:
    given, taken = predict_input(model), tensors_of(model)[0]
    if not isinstance(given, dict):
        given = {taken[0]["name"]: given} if len(taken) == 1 else {}
    tensors = []
    for described in taken:
        name = described["name"]
        value = given.get(name)
        found = None if value is None else measured(value)
        if found is not None:
            shape, data = found
            if any(isinstance(each, Mapping) for each in data):  # of the ways to write a table, tensors only have rows
                shape = [max(size, 1) for size in described["shape"]]
                if math.prod(shape) > MAX_TEXT:
                    continue
                data = [ELEMENTS.get(described["datatype"], 0)] * math.prod(shape)
            tensors.append({"name": name, "datatype": described["datatype"], "shape": shape, "data": data})
    return {"inputs": tensors}


# An input of the model's predict: the example in its config.yaml, or one that matches its schema.
predict_input: Learned[Any] = Learned("the example", _input, dict)
# Its input and output tensors, in the terms of the Open Inference Protocol.
tensors_of = Learned("the description of the tensors", _tensors, lambda: ([], []))
# The same input as a request of that protocol.
predict_tensors = Learned("the example", _as_request, lambda: {"inputs": []})


def _is_short_json(value: Any) -> bool:
    try:
        return len(json.dumps(value, allow_nan=False)) <= MAX_TEXT
    except (TypeError, ValueError, RecursionError):
        return False


def calls(
    catalog: Catalog,
    dialects: Mapping[str, Dialect],
    models: Iterable[HostedModel],
    url: str,
    *,
    has_key: bool,
    cert: Path | None = None,
) -> Iterator[str]:
    """Yield example calls for each kind of ready model, chat first.

    Of several models of a kind, the one with the longest context is shown: a language model before a toy. `cert` is a
    certificate file that the client must trust. `has_key` says that calls need a key.
    """
    ready = [model for model in models if model.state == "ready"]
    shown = False
    for method, template in METHODS.items():
        if (model := best(ready, method)) is not None:
            shown = True
            yield _fill(template, model, url, cert, has_key)
    if not shown:
        found = _served(catalog, dialects, ready)
        if found is not None:
            endpoint, model, body = found
            yield _fill(ENDPOINT, model, url, cert, has_key, body=body, path=endpoint.path)


def best(models: Iterable[HostedModel], method: str) -> HostedModel | None:
    having = [model for model in models if any(known.name == method for known in model.capabilities.methods)]
    return max(having, key=lambda model: model.capabilities.max_model_len or 0, default=None)


def _served(
    catalog: Catalog, dialects: Mapping[str, Dialect], ready: list[HostedModel]
) -> tuple[Endpoint, HostedModel, dict[str, Any]] | None:
    """Return the first route that a ready model serves and that has an example, with the model and the body."""
    for endpoint in catalog.endpoints:
        shown = completed(dialects[endpoint.dialect]).request_schema.get("example")
        serving = [model for model in ready if catalog.serves(model, endpoint)]
        if serving and shown is not None:
            return endpoint, serving[0], {"model": serving[0].name, **shown}
    return None


def _fill(
    template: str,
    model: HostedModel,
    url: str,
    cert: Path | None,
    has_key: bool,
    *,
    body: dict[str, Any] | None = None,
    path: str = "",
) -> str:
    bodies: dict[str, Any] = {
        ENDPOINT: body,
        CHAT: {"model": model.name, "stream": True, "messages": MESSAGES},
        EMBEDDINGS: {"model": model.name, "input": INPUT},
        PREDICT: predict_input(model),
    }
    shell, python = _key_from() if has_key else ("", '"unused"')
    imports = "\nimport os" * has_key
    trust = ""
    if cert is not None:
        imports += "\nimport ssl, httpx"
        trust = f",\n    http_client=httpx.Client(verify=ssl.create_default_context(cafile={json.dumps(str(cert))}))"
    lines = template.format(
        url=url,
        path=path,
        cacert=f"--cacert {shlex.quote(str(cert))} " if cert is not None else "",
        key=f'-H "Authorization: Bearer {shell}" ' if has_key else "",
        imports=imports,
        api_key=python,
        trust=trust,
        model=json.dumps(model.name),
        name=model.name,
        body=shlex.quote(json.dumps(bodies[template])),
    )
    return PASTE_KEY * (has_key and not _has_one()) + lines


def _has_one() -> bool:
    return bool(os.environ.get("GATEWAY_API_KEY") or os.environ.get("GATEWAY_API_KEY_FILE"))


def _key_from() -> tuple[str, str]:
    """Return the shell and the Python expression that read the key."""
    if os.environ.get("GATEWAY_API_KEY_FILE"):
        return '$(cat "$GATEWAY_API_KEY_FILE")', 'open(os.environ["GATEWAY_API_KEY_FILE"]).read().strip()'
    return "$GATEWAY_API_KEY", 'os.environ["GATEWAY_API_KEY"]'
