"""What the real command and its workers say when something is wrong: `wire_errors`, walked for a path of each shape.

tests/http walks the same rows for every route.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from wire_errors import (
    KEY,
    MAX_BODY,
    METHODS,
    MODELS,
    ORIGIN,
    PREDICT,
    UNKNOWN,
    Client,
    Row,
    an_unknown_path_is_an_error_in_the_shape_of_its_neighbours,
    name_of,
    wait_for,
    walk,
)

from gateway.testing import Gateway

from .conftest import write_models

SHAPES = ("/v1/chat/completions", "/v1/messages", PREDICT)  # OpenAI's, Anthropic's and Truss's


def all_methods(body: str, head: str = "async def") -> str:
    """A class all of whose methods do the same; `body` is one line."""
    lines = [f"    {head} {name}(self, inputs):\n        {body}\n" for name in (*METHODS, "predict")]
    return "import asyncio, json, pathlib\nfrom gateway import HTTPError\nclass Model:\n" + "".join(lines)


SOURCES = {
    "raises": all_methods("raise ValueError('secret details')"),
    "refuses": all_methods("raise HTTPError(422, 'not like this', code='odd', param='p')"),
    "shapeless": all_methods("return 1.5"),
    "slow": all_methods("await asyncio.sleep(600)"),
    "full": all_methods("await asyncio.sleep(600)"),
    "loading": all_methods("return None") + "    async def load(self):\n        await asyncio.sleep(600)\n",
    "broken": all_methods("return None") + "    def load(self):\n        raise SystemExit('it cannot be')\n",
    "narrow": "class Model:\n    def predict(self, inputs):\n        return inputs\n",
}
SETTINGS = f"""
[gateway]
allowed_origins = ["{ORIGIN}"]
[gateway.limits]
max_body = {MAX_BODY}
[models.slow]
slots = 4
request_timeout = 0.2
first_item_timeout = 0.2
[models.full]
max_queue = 0
[models.broken]
required = false
[models.loading]
required = false
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("wire")
    write_models(root / "models", {name: {"model.py": SOURCES[name]} for name in MODELS})
    (root / "gateway.toml").write_text(SETTINGS)
    with Gateway(root / "models", cwd=root, env={"GATEWAY_API_KEY": KEY}, until="accepting") as running:
        made = Client(running.url)
        settled = [f"/v1/models/{name}" for name in MODELS if name != "loading"]
        wait_for(lambda: all(b"loading" not in made.send("GET", path).body for path in settled), "the models settle")
        yield made


@pytest.mark.parametrize(("row", "path"), walk(SHAPES), ids=name_of)
def test_an_error_has_the_shape_of_its_path(client: Client, row: Row, path: str) -> None:
    row(client, path)


def test_an_unknown_path_is_an_error_in_the_shape_of_its_neighbours(client: Client) -> None:
    an_unknown_path_is_an_error_in_the_shape_of_its_neighbours(client, UNKNOWN[0])
