"""The real command over real directories. `gateway` is shared by tests that leave it as it was."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.testing import Gateway

from .trusses import Trusses

ROOT = Path(__file__).parent.parent.parent
LIGHT = "shout,text-stats,ticker"  # demo models that need no framework


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """A gateway with the light demo models, all ready."""
    with Gateway(ROOT / "models", options=["--only", LIGHT], cwd=ROOT) as running:
        yield running


@pytest.fixture(scope="session")
def demo() -> Iterator[Gateway]:
    """A gateway with every demo model, all ready."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("the demo models need torch")
    with Gateway(ROOT / "models", cwd=ROOT, timeout=300) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The OpenAI SDK, which does not try again, for the `gateway` of the test file."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def truss(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trusses]:
    """A gateway over the trusses that the test file lists: `TRUSSES`, with `SETTINGS` and `ENV` if it has them."""
    here = tmp_path_factory.mktemp("truss")
    (here / "shared").mkdir()
    write_models(here / "models", request.module.TRUSSES)
    (here / "gateway.toml").write_text(getattr(request.module, "SETTINGS", ""))
    env = getattr(request.module, "ENV", {})
    with Gateway(here / "models", cwd=here, env=env, until="settled", timeout=300) as running:
        yield Trusses(running, here / "shared")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """A function that starts a gateway over `models` (file name → text, by directory) for this test alone."""
    started: list[Gateway] = []

    def start(models: dict[str, dict[str, str]], *options: str, **more: Any) -> Gateway:
        root = tmp_path / "models"
        write_models(root, models)
        running = Gateway(root, options=options, cwd=tmp_path, **{"timeout": 150, **more})
        started.append(running)
        return running.__enter__()

    yield start
    for running in started:
        if running.process.poll() is None:
            running.kill()


def write_models(root: Path, models: dict[str, dict[str, str]]) -> None:
    for name, files in models.items():
        for file, text in files.items():
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
