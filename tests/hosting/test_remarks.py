"""What is odd about a model that serves is said while the gateway runs too: each thing once, until it is so again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import VirtualLoop, turns
from test_hub import no_reaper
from test_model_roots import GOOD, hub_over, write

from gateway.access.callers import everybody
from gateway.directories.describe import describe
from gateway.directories.model_warnings import Remarks, told_at_start
from gateway.hosting.hub import Hub
from gateway.hosting.model_roots import look_again
from gateway.hosting.reload import reload

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_reaper")]
assert no_reaper  # a fixture of the hub's tests
NEEDS = "import os\nclass Model:\n    def predict(self, x):\n        return os.environ['NO_SUCH_KEY_HERE']\n"


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said since the last time."""
    found = [record.getMessage() for record in caplog.records if hasattr(record, "code")]
    caplog.clear()
    return found


async def reloaded(hub: Hub) -> None:
    await reload(hub, hub.catalog.models["m"])
    await turns()


async def test_what_a_reload_reads_and_makes_nothing_of_is_said_once_until_it_is_so_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "m", GOOD)
    config, code = tmp_path / "m/config.yaml", tmp_path / "m/model.py"
    async with hub_over(tmp_path) as hub:
        config.write_text("model_nam: m\n")
        await reloaded(hub)
        (line,) = said(caplog)
        assert line == f"{config}: 1 unknown key: model_nam, did you mean model_name? (gateway check shows the lines)"
        code.write_text(NEEDS)
        await reloaded(hub)
        (line,) = said(caplog)
        assert line.startswith("m: model.py:4: NO_SUCH_KEY_HERE is needed and will not be set")
        code.write_text(f"\n\n{NEEDS}")
        await reloaded(hub)
        assert said(caplog) == []
        for text, found in (("model_name: m\n", 0), ("model_nam: m\n", 1), ("model_nam: m\nresource: {}\n", 1)):
            config.write_text(text)
            await reloaded(hub)
            assert len(said(caplog)) == found, text


async def test_what_is_odd_about_a_new_model_is_said_when_it_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "m", GOOD)
    async with hub_over(tmp_path) as hub:
        write(tmp_path, "new", GOOD)
        (tmp_path / "new/config.yaml").write_text("model_nam: m\n")
        await look_again(hub, everybody, "a test")
        await look_again(hub, everybody, "a test")
        (line,) = said(caplog)
        assert "new/config.yaml: 1 unknown key: model_nam" in line


async def test_what_the_start_has_said_is_not_said_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "m", GOOD)
    (tmp_path / "m/config.yaml").write_text("model_nam: m\n")
    async with hub_over(tmp_path) as hub:
        hub.remarks = Remarks(told_at_start(hub.catalog.models["m"].spec))
        await reloaded(hub)
        assert said(caplog) == []


def test_of_very_many_unknown_keys_the_first_are_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("".join(f"key{at}: 1\n" for at in range(500)))
    (tmp_path / "model.py").write_text("class Model:\n    def predict(self, x): return x\n")
    spec = describe(tmp_path, target="model:Model", format="python", overrides={}, own_code=True)
    (said,) = (problem.what for problem in told_at_start(spec) if problem.code == "unknown_key")
    assert said == f"more than 20 unknown keys: {'; '.join(f'key{at}' for at in range(10))}; …"
