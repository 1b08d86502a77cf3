"""What to paste to call a model: for the terminal, the start page and the API page, so that all of them show the same.

For a chat model, an embedding model, a predict model, else for whatever route a model answers. With keys on, the key
comes from the environment of whoever pastes.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .dialects.foreign import completed
from .dialects.oip_schema import metadata
from .dialects.oip_tensors import measured
from .example_values import MAX_TEXT, example
from .learned import Learned

if TYPE_CHECKING:
    from .hosted import HostedModel
    from .hub import Hub

MESSAGES = [{"role": "user", "content": "Say hello."}]
INPUT = ["one", "two"]
PASTE_KEY = "# with a key of yours in GATEWAY_API_KEY, as `gateway keys add NAME` prints it\n"

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
            tensors.append({"name": name, "datatype": described["datatype"], "shape": shape, "data": data})
    return {"inputs": tensors}


# An input of the model's predict: the one that its config.yaml shows, else one that its schema takes.
predict_input: Learned[Any] = Learned("the example", _input, dict)
# The tensors that it takes and those that it gives, in the words of the Open Inference Protocol.
tensors_of = Learned("what is said of the tensors", _tensors, lambda: ([], []))
# The same input as a request of that protocol.
predict_tensors = Learned("the example", _as_request, lambda: {"inputs": []})


def _is_short_json(value: Any) -> bool:
    try:
        return len(json.dumps(value, allow_nan=False)) <= MAX_TEXT
    except (TypeError, ValueError, RecursionError):
        return False


def calls(hub: Hub, models: Iterable[HostedModel], url: str, cert: Path | None = None) -> Iterator[str]:
    """The lines for each kind of these models, the most telling kind first; nothing while none is ready.

    Of several models of a kind it is the one that reads the longest texts: a language model before a toy. `cert` is a
    file that whoever calls must trust.
    """
    ready = [model for model in models if model.state == "ready"]
    shown = False
    for method, template in METHODS.items():
        if (model := best(ready, method)) is not None:
            shown = True
            yield _fill(template, hub, model, url, cert)
    if not shown:
        yield from _endpoint(hub, ready, url, cert)


def best(models: Iterable[HostedModel], method: str) -> HostedModel | None:
    having = [model for model in models if any(known.name == method for known in model.capabilities.methods)]
    return max(having, key=lambda model: model.capabilities.max_model_len or 0, default=None)


def _endpoint(hub: Hub, ready: list[HostedModel], url: str, cert: Path | None) -> Iterator[str]:
    """The first route that a ready model answers and whose dialect has an example."""
    dialects = hub.plugins.dialects()
    for endpoint in hub.endpoints:
        shown = completed(dialects[endpoint.dialect]).request_schema.get("example")
        serving = [model for model in ready if hub.serves(model, endpoint)]
        if serving and shown is not None:
            body = {"model": serving[0].name, **shown}
            yield _fill(ENDPOINT, hub, serving[0], url, cert, body=body, path=endpoint.path)
            return


def _fill(
    template: str,
    hub: Hub,
    model: HostedModel,
    url: str,
    cert: Path | None,
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
    has_key = hub.keys.is_required
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
    """Where the shell and Python find the key."""
    if os.environ.get("GATEWAY_API_KEY_FILE"):
        return '$(cat "$GATEWAY_API_KEY_FILE")', 'open(os.environ["GATEWAY_API_KEY_FILE"]).read().strip()'
    return "$GATEWAY_API_KEY", 'os.environ["GATEWAY_API_KEY"]'
