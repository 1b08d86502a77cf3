"""New code that comes in without an order is told: after a crash, at a request, after an unload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import VirtualLoop, turns
from test_model import Hosted, hosted

from gateway.directories.model_files import Stat
from gateway.hosting.loaded_files import NAMED, Files, LoadedFiles
from gateway.spec import ModelSpec

pytestmark = pytest.mark.anyio
Audits = Callable[[], list[tuple[Any, ...]]]


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def audits(caplog: pytest.LogCaptureFixture) -> Audits:
    def told() -> list[tuple[Any, ...]]:
        found = [vars(record) for record in caplog.records if record.name == "gateway.audit"]
        return [(one["action"], one["model"], one["actor"], one["outcome"]) for one in found]

    return told


class Directory(LoadedFiles):
    """One whose files a test writes."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, Stat] = {}
        self.write("model.py")

    def write(self, *names: str) -> None:
        self.files |= {f"/nowhere/{name}": Stat(1, 1, len(self.files) + 1) for name in names}

    async def look(self, spec: ModelSpec) -> Files:
        return dict(self.files)


async def crash(found: Hosted, index: int = -1) -> None:
    found.fakes.replicas[index].die("it crashed")
    await turns()
    await asyncio.sleep(100)  # of a clock that nobody waits for: it is loaded again by then
    assert len(found.model.replicas.ready()) == found.model.spec.replicas


def told(who: str, *names: str) -> tuple[Any, ...]:
    return "read", "m", who, "other files than at its last load: " + ", ".join(f"'{name}'" for name in names)


async def test_a_restart_tells_of_files_that_changed_meanwhile_and_only_then(audits: Audits) -> None:
    directory = Directory()
    async with hosted(files=directory) as found:
        await crash(found)
        assert audits() == []
        directory.write("new.py", "model.py")
        await crash(found)
        assert audits() == [told("its restart", "model.py", "new.py")]
        await crash(found)
        assert len(audits()) == 1


async def test_a_file_that_is_gone_is_told(audits: Audits) -> None:
    directory = Directory()
    async with hosted(files=directory) as found:
        directory.files.clear()
        await crash(found)
        assert audits() == [told("its restart", "model.py")]


async def test_a_load_after_an_unload_tells_of_files_that_changed_meanwhile(audits: Audits) -> None:
    directory = Directory()
    async with hosted(files=directory) as found:
        await found.model.stop(0)
        directory.write("sub/model.py")
        found.model.start()
        await found.model.settled()
        assert audits() == [told("its load", "sub/model.py")]


async def test_a_reload_is_an_order_whose_own_line_tells_of_it(audits: Audits) -> None:
    directory = Directory()
    async with hosted(files=directory) as found:
        directory.write("model.py")
        await found.model.reload(replace(found.model.spec))
        directory.write("model.py")
        await found.model.replace(replace(found.model.spec), 0)
        await crash(found)
        assert audits() == []


async def test_one_of_several_replicas_that_has_other_code_now_is_told_once(audits: Audits) -> None:
    directory = Directory()
    async with hosted(files=directory, replicas=2) as found:
        directory.write("model.py")
        await crash(found, 0)
        await crash(found, 1)
        assert audits() == [told("its restart", "model.py")]


async def test_of_many_files_a_few_are_named(audits: Audits) -> None:
    directory = Directory()
    names = [f"{number}.py" for number in range(NAMED + 2)]
    async with hosted(files=directory) as found:
        directory.write(*names)
        await crash(found)
        ((*_, outcome),) = audits()
        assert outcome.endswith(f"'{names[NAMED - 1]}' and 2 more")


def test_a_load_looks_at_code_and_weights(tmp_path: Path) -> None:
    for name in ("model.py", "config.yaml", "weights.safetensors", "run.log"):
        (tmp_path / name).write_text("")
    found = asyncio.run(LoadedFiles().look(ModelSpec(name="m", target="model:Model", root=tmp_path)))
    assert {Path(path).name for path in found} == {"model.py", "config.yaml", "weights.safetensors"}
