"""What the tests of all clients share. They run in environments without the gateway, see `__main__.py`.

Not every environment has every SDK, so each is imported by the fixture that needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .asking import PATIENCE

if TYPE_CHECKING:
    import anthropic
    import openai


@pytest.fixture(scope="session")
def url() -> str:
    return os.environ["CLIENTS_URL"]


@pytest.fixture(scope="session")
def key() -> str:
    return os.environ["CLIENTS_KEY"]


@pytest.fixture(scope="session")
def place() -> Path:
    """The directory of the environment."""
    return Path(os.environ["CLIENTS_PLACE"])


@pytest.fixture
def client(url: str, key: str) -> Iterator[openai.OpenAI]:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as made:
        yield made


@pytest.fixture
def claude(url: str, key: str) -> Iterator[anthropic.Anthropic]:
    import anthropic

    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=PATIENCE) as made:
        yield made
