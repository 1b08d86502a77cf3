"""`ps` and `top` say whose worker a process is, and nothing else of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.runners.process import ProcessReplica

from .confined import confined
from .started import KITCHEN, METHODS, Started, started, write

pytestmark = pytest.mark.anyio


def command_of(pid: int | None) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")


def name_of(pid: int | None) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def test_ps_and_top_show_whose_worker_it_is_and_the_models_code_does_not_see_that(tmp_path: Path) -> None:
    spec = {"name": "team/a-long-name-of-a-model", "environment": {"TOKEN": "hunter22"}, "secrets": ("key",)}
    async with started(tmp_path, KITCHEN, *METHODS, spec=spec, secrets={"key": "hunter23"}) as found:
        command = command_of(found.replica.pid)
        assert command[-2:] == ["gateway.worker", "team/a-long-name-of-a-model"]
        assert "hunter" not in " ".join(command)
        assert name_of(found.replica.pid) == "gw:team/a-long-"
        assert len((await found.ask("look"))["argv"]) == 1


async def test_a_second_replica_says_which_one_it_is(tmp_path: Path) -> None:
    found = Started(write(tmp_path, {"model/model.py": KITCHEN}), METHODS, spec={"replicas": 2})
    found.replica = ProcessReplica(replace(found.launch, index=1))
    try:
        await found.replica.start()
        assert command_of(found.replica.pid)[-2:] == ["m", "1"]
    finally:
        await found.replica.kill("the test is over")


@confined
async def test_a_strict_worker_shows_its_model_too(tmp_path: Path) -> None:
    async with started(tmp_path, KITCHEN, *METHODS, spec={"sandbox": "strict"}) as found:
        assert command_of(found.replica.pid)[-1] == "m"
        assert name_of(found.replica.pid) == "gw:m"
