"""`serve` starts a gateway with scripted models for one test; `lines` are those of its access log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from lines import Lines
from served import Served

from gateway.http.access_log import log as requests


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(models: dict[str, object], **options: object) -> Served:
            return stack.enter_context(Served(models, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def lines() -> Iterator[Lines]:
    found, before = Lines(), requests.level
    requests.addHandler(found)
    yield found
    requests.removeHandler(found)
    requests.setLevel(before)
