"""`serve` starts a gateway with scripted models for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from served import Served


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(models: dict[str, object], **options: object) -> Served:
            return stack.enter_context(Served(models, **options))  # type: ignore[arg-type]

        yield start
