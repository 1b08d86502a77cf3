"""The fixture `serve` of tests/http, and a gateway in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import Gateway

sys.path.insert(0, str(Path(__file__).parents[1] / "http"))

from served import Served

ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:
        yield lambda models, **options: stack.enter_context(Served(models, **options))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """A function that starts the real command over `models` (source by name) in an empty directory."""
    with ExitStack() as stack:

        def run(models: dict[str, str], settings: str = "", **options: Any) -> Gateway:
            for name, source in models.items():
                (tmp_path / "models" / name).mkdir(parents=True)
                (tmp_path / "models" / name / "model.py").write_text(source)
            (tmp_path / "gateway.toml").write_text(settings)
            return stack.enter_context(Gateway("models", cwd=tmp_path, **options))

        yield run


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    return "asyncio", {"use_uvloop": True}
