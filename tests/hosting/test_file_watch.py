"""`serve --reload`: which changes of files concern which model, and that no flood of them is the loop's."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.hosting import file_watch
from gateway.hosting.file_watch import NOBODY, Files, Owners, places
from gateway.spec import ModelSpec

pytestmark = pytest.mark.anyio


def spec(root: Path, name: str, data: str = "data") -> ModelSpec:
    (root / name).mkdir(parents=True, exist_ok=True)
    return ModelSpec(name=name, target="model:Model", root=root / name, data_dir=root / name / data)


@pytest.mark.parametrize(
    "path, concerns",
    [
        ("good/model.py", True),
        ("good/weights.bin", True),
        ("good/notes.md", False),
        ("bad/weights.bin", True),  # it could not be read, so anything may mend it
        ("new", True),
        ("good", True),  # the directory itself
        ("good/database/settings.json", True),
    ],
)
def test_a_change_concerns_a_model_by_its_kind_and_the_roots_whatever_it_is(
    tmp_path: Path, path: str, concerns: bool
) -> None:
    assert Owners([spec(tmp_path, "good")]).concerns(str(tmp_path / path)) is concerns


def test_of_a_model_that_could_not_be_loaded_any_file_counts_but_its_data(tmp_path: Path) -> None:
    owners = Owners([spec(tmp_path, "good"), spec(tmp_path, "ill")], {"ill"})
    assert owners.concerns(str(tmp_path / "ill/words.md")) and not owners.concerns(str(tmp_path / "good/words.md"))
    assert not owners.concerns(str(tmp_path / "ill/data/words.md"))


def test_what_a_model_writes_to_its_data_reloads_nothing(tmp_path: Path) -> None:
    owners = Owners([spec(tmp_path, "good"), spec(tmp_path, "other", data=".")])
    for name in ("state.json", "deep/inside/module.py"):
        assert not owners.concerns(str(tmp_path / "good/data" / name))
    assert owners.concerns(str(tmp_path / "other/model.py"))  # it says that all of it is data, and has its code there


def test_a_file_is_of_the_model_whose_directory_is_nearest_by_either_name(tmp_path: Path) -> None:
    outer, inner = spec(tmp_path, "outer"), spec(tmp_path, "outer/inner")
    (tmp_path / "link").symlink_to(tmp_path / "outer")
    linked = ModelSpec(name="linked", target="model:Model", root=tmp_path / "link")
    owners = Owners([outer, inner])
    assert owners.of(str(tmp_path / "outer/a/b/c.py")) == "outer"
    assert owners.of(str(tmp_path / "outer/inner/a/b/c.py")) == "outer/inner"
    assert owners.of(str(tmp_path / "outer")) == owners.of(str(tmp_path / "else/c.py")) == NOBODY
    assert (
        Owners([linked]).of(str(tmp_path / "link/c.py"))
        == Owners([linked]).of(str(tmp_path / "outer/c.py"))
        == "linked"
    )


def test_links_are_followed_once_for_all_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = []
    resolve = Path.resolve
    monkeypatch.setattr(Path, "resolve", lambda path: followed.append(path) or resolve(path))
    owners = Owners([spec(tmp_path, name) for name in "abc"])
    for number in range(1000):
        assert owners.of(f"{tmp_path}/b/{number}/model.py") == "b"
    assert len(followed) == 3


async def test_paths_are_looked_at_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, concerns = set(), Owners.concerns

    def noting(owners: Owners, path: str) -> bool:
        where.add(threading.current_thread())
        return concerns(owners, path)

    monkeypatch.setattr(Owners, "concerns", noting)
    good = spec(tmp_path, "good")
    files = Files([tmp_path], places([tmp_path], [good]))
    try:
        number = 0
        while not (changed := await files.changed([good])).models:  # nothing says that it has begun to look
            number += 1
            (tmp_path / "good/model.py").write_text(f"# {number}\n")
    finally:
        files.close()
    assert changed.models == {"good"} and changed.places == {tmp_path, tmp_path / "good"}
    assert where and threading.current_thread() not in where


def test_what_a_model_writes_to_is_not_watched_and_neither_is_what_nobody_reads(tmp_path: Path) -> None:
    good = spec(tmp_path, "good")
    for name in ("data/a/b", "src/part", "__pycache__", ".git/objects", "more/data"):
        (tmp_path / "good" / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "good")
    inner = ("", "src", "src/part", "more", "more/data")
    assert places([tmp_path], [good]) == {tmp_path, *(tmp_path / "good" / name for name in inner)}


def test_no_more_directories_than_may_be_watched_are_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "MOST_WATCHED", 10)
    for number in range(30):
        (tmp_path / f"m/{number}").mkdir(parents=True)
    assert len(places([tmp_path], [])) == 11


async def test_a_directory_that_goes_and_comes_again_is_watched_anew(tmp_path: Path) -> None:
    good = spec(tmp_path, "good")
    (tmp_path / "good/src").mkdir()
    files = Files([tmp_path], places([tmp_path], [good]))
    try:
        await files.changed([good])  # from here on it looks
        (tmp_path / "good/src").rmdir()
        (tmp_path / "good/src").mkdir()
        while not (changed := await files.changed([good])).came:
            pass
    finally:
        files.close()
    assert tmp_path / "good/src" in changed.places


class Enough(Exception):
    """The test has seen what it wanted."""


@pytest.mark.parametrize("which", ["ours", "the system's"])
async def test_directories_that_cannot_be_watched_are_told_once_and_looked_at_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    reloaded: list[frozenset[str]] = []

    async def look(hub: Any) -> None:
        pass

    def changed(follows: Any, names: frozenset[str]) -> None:
        reloaded.append(names)
        if len(reloaded) == 3:
            raise Enough

    def full(*places: Any, **options: Any) -> Any:
        raise OSError("OS file watch limit reached. about ...")
        yield

    monkeypatch.setattr(file_watch, "NOW_AND_THEN", 0.01)
    monkeypatch.setattr(file_watch, "_look", look)
    monkeypatch.setattr(file_watch.Following, "changed", changed)
    if which == "ours":
        monkeypatch.setattr(file_watch, "MOST_WATCHED", 0)
    else:
        monkeypatch.setattr("watchfiles.watch", full)
    good = spec(tmp_path, "good")
    (tmp_path / "good/model.py").write_text("# first\n")
    model = SimpleNamespace(
        name="good", spec=good, is_gone=False, state="loading", note="", is_under_way=True, since=0.0
    )
    gateway = SimpleNamespace(models=[tmp_path])
    hub: Any = SimpleNamespace(
        catalog=SimpleNamespace(models={"good": model}), settings=SimpleNamespace(gateway=gateway)
    )
    loaded = file_watch.FilesAtLoad()
    await loaded.changed(hub.catalog.models)
    (tmp_path / "good/model.py").write_text("# second, and longer\n")
    with caplog.at_level(logging.WARNING), pytest.raises(Enough):
        await file_watch.watch(hub, loaded)
    assert reloaded == [{"good"}, frozenset(), frozenset()]
    (line,) = (record.getMessage() for record in caplog.records)
    assert "models are reloaded 0.01 s after a change, not at once: " in line
    assert ("more than 0 directories" if which == "ours" else "fs.inotify.max_user_watches") in line
