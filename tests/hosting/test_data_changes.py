"""`serve --reload`: files that are no code load their model anew, once they are whole, and never in a circle."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import VirtualLoop

from gateway.directories import model_files
from gateway.hosting.data_changes import STILL, Touched
from gateway.spec import ModelSpec

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


class Looked:
    """A model over a directory, and what looks at it. Times of files are from before its load, unless said."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async def at_once(work: Any) -> Any:
            found = work()
            self.meanwhile()
            return found

        monkeypatch.setattr(asyncio, "to_thread", at_once)
        self.root = place / "m"
        self.root.mkdir()
        spec = ModelSpec(name="m", target="model:Model", root=self.root, data_dir=self.root / "data")
        self.loading: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None  # done once files have been looked at
        self.model = SimpleNamespace(
            name="m", spec=spec, state="loading", note="", is_gone=False, is_under_way=False, since=0.0
        )
        self.model.replicas = SimpleNamespace(loading=lambda: self.loading)
        self.models: Any = {"m": self.model}
        self.touched = Touched()

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    async def begins(self) -> None:
        """To load, for the first time."""
        await self.touched.look(self.models)

    def ends(self, state: str = "ready") -> None:
        """Its load, later than what has been written so far."""
        newest = max((path.stat().st_ctime for path in self.root.rglob("*")), default=time.time())
        self.model.state, self.model.since = state, newest + 1e-6

    async def counts(self, seen: Collection[str] = ("m",)) -> bool:
        """Whether what is there is loaded, now or when it has not been written to for a while."""
        first = await self.touched.look(self.models, seen)
        await asyncio.sleep(STILL)
        return bool(first or await self.touched.look(self.models))


@pytest.fixture
def looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looked:
    return Looked(tmp_path, monkeypatch)


async def test_weights_that_were_loaded_and_are_others_now_are_loaded_once(looked: Looked) -> None:
    looked.write("weights.bin", "one")
    await looked.begins()
    looked.ends()
    assert not await looked.counts()
    looked.write("weights.bin", "another")
    assert await looked.counts()
    assert not await looked.counts()


@pytest.mark.parametrize("name", ["new.bin", "run.log", "state.db", "data/weights.bin", ".cache/weights.bin"])
async def test_of_a_model_that_serves_nothing_else_counts(looked: Looked, name: str) -> None:
    if name != "new.bin":
        looked.write(name, "one")
    await looked.begins()
    looked.ends()
    assert not await looked.counts()
    looked.write(name, "another")
    assert not await looked.counts()


async def test_what_is_still_written_to_does_not_count_yet(looked: Looked) -> None:
    looked.write("weights.bin", "")
    await looked.begins()
    looked.ends()
    assert not await looked.counts()
    for size in range(1, 5):
        looked.write("weights.bin", "x" * size)
        assert not await looked.touched.look(looked.models, ["m"])
        await asyncio.sleep(STILL)
    assert await looked.touched.look(looked.models) == {"m"}  # nothing was written since the last look


async def test_what_a_model_writes_while_it_loads_does_not_count(looked: Looked) -> None:
    looked.write("weights.bin", "one")
    await looked.begins()
    for state in ("ready", "failed"):
        looked.model.state = "loading"
        looked.write("weights.bin", f"its own, {state}")
        looked.write(f"{state}.bin", "its own")
        assert not await looked.counts()
        looked.ends(state)
        assert not await looked.counts()


async def test_what_changed_right_after_the_load_counts_though_the_first_look_came_later(looked: Looked) -> None:
    looked.write("weights.bin", "one")
    await looked.begins()
    looked.ends()
    looked.write("weights.bin", "another")
    os.utime(looked.root / "weights.bin", (1, 1))  # as a copy that keeps the times of its source
    looked.model.since = (looked.root / "weights.bin").stat().st_ctime - 1e-3
    assert await looked.counts(seen=())


@pytest.mark.parametrize("name", ["weights.bin", "words.md", "deep/of.no_kind"])
async def test_any_file_mends_a_model_that_failed(looked: Looked, name: str) -> None:
    await looked.begins()
    looked.ends("failed")
    assert not await looked.counts()
    looked.write(name, "there")
    assert await looked.counts()
    assert not await looked.counts()


async def test_a_file_that_is_new_mends_a_reload_that_failed_and_a_log_of_the_old_code_does_not(looked: Looked) -> None:
    looked.write("run.log", "one line")
    await looked.begins()
    looked.ends()
    looked.model.note = "the reload failed"
    assert not await looked.counts()
    looked.write("run.log", "one line more")
    assert not await looked.counts()
    looked.write("words.md", "there")
    assert await looked.counts()


async def test_a_model_of_which_something_loads_is_left_alone(looked: Looked) -> None:
    looked.write("weights.bin", "one")
    await looked.begins()
    looked.ends()
    assert not await looked.counts()
    looked.write("weights.bin", "another")
    looked.loading = ["a replica"]
    assert not await looked.counts()


async def test_no_more_files_than_may_be_looked_at_are_kept(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "MOST", 10)
    for number in range(30):
        looked.write(f"{number}/words.md", "there")
    assert len(model_files.files_of(looked.model.spec)) == 10


async def test_a_load_that_begins_while_files_are_looked_at_is_no_reason_for_another(looked: Looked) -> None:
    looked.write("weights.bin", "one")
    await looked.begins()
    looked.ends()
    assert not await looked.counts()
    looked.write("weights.bin", "another")
    assert not await looked.touched.look(looked.models, ["m"])
    await asyncio.sleep(STILL)  # of the virtual clock: at the next look it counts, but for the load
    looked.meanwhile = lambda: setattr(looked.model, "state", "loading")
    assert not await looked.touched.look(looked.models, ["m"])
    looked.meanwhile = lambda: looked.write("weights.bin", "its own")
    assert not await looked.touched.look(looked.models, ["m"])
    looked.meanwhile = lambda: None
    looked.ends()
    assert not await looked.counts()
