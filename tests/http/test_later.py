"""What is imported behind the first answer: Litestar, its routes, and nothing that a call of a model waits for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Model, Served

from gateway.http.later import Later
from gateway.http.route_table import OF_LITESTAR

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("module", "later", "flags"),
    [
        ("gateway.http.app", "litestar pydantic yaml rich", ()),
        ("gateway.worker.server", "importlib.metadata email yaml", ()),
        ("gateway.worker.sandbox.confine", "typing pathlib re signal contextlib", ("-I", "-S")),
    ],
)
def test_a_start_does_not_wait_for_the_import_of_what_it_does_not_need(
    module: str, later: str, flags: tuple[str, ...]
) -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = {{*sys.modules}}; import {module}; "
    script += f"print(*{{*{later!r}.split()}} & {{*sys.modules}} - before)"
    out = subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == []


def test_a_model_answers_before_the_other_routes_are_built_and_the_first_other_request_builds_them(
    serve: Callable[..., Served],
) -> None:
    served = serve({"m": Model({"predict": lambda body: b"{}"})})
    assert served.post("/v1/models/m:predict", {}).status == 200
    assert served.app.others._app is None
    assert served.get("/readyz").status == 200
    assert {route.path for route in served.app.others.build().routes if not route.path_parameters} == OF_LITESTAR


def test_requests_at_the_same_time_build_once() -> None:
    built: list[int] = []
    answered: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        answered.append(scope)

    def build() -> Any:
        built.append(threading.get_ident())
        return app

    async def main() -> None:
        later = Later(build)
        await asyncio.gather(*(later(name, None, None) for name in "abc"))

    asyncio.run(main())
    assert len(built) == 1 and built[0] != threading.get_ident()
    assert sorted(answered) == ["a", "b", "c"]
