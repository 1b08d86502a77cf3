"""What the tests of all clients share. They run in environments without the gateway, see `__main__.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import anthropic
import openai
import pytest

from .asking import PATIENCE


@pytest.fixture(scope="session")
def url() -> str:
    return os.environ["CLIENTS_URL"]


@pytest.fixture(scope="session")
def key() -> str:
    return os.environ["CLIENTS_KEY"]


@pytest.fixture
def client(url: str, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as made:
        yield made


@pytest.fixture
def claude(url: str, key: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=PATIENCE) as made:
        yield made
