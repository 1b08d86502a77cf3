"""What is kept of responses: in memory and in a file, for one owner, for a while, and not too much of it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.errors import ConfigError
from gateway.hosting.stored_responses import ITEM, OVERHEAD, Kept, ResponsesStore
from gateway.settings.schema import ResponsesSettings

T = TypeVar("T")
MOST = (1000, 10**9)  # JSON arrays and objects, and nanoseconds to read them
NOW = 1_000_000.0


def kept(identity: str, previous: str | None = None, text: str = "hi") -> Kept:
    response = json.dumps({"id": identity, "output": [{"said": text}]}).encode()
    return Kept(identity, previous, "m", json.dumps([{"asked": text}]).encode(), response)


SIZE = OVERHEAD + len(kept("a").input) + len(kept("a").response)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Callable[..., ResponsesStore]]:
    made: list[ResponsesStore] = []

    def store(**settings: Any) -> ResponsesStore:
        made.append(ResponsesStore(ResponsesSettings(**settings), clock))
        return made[-1]

    yield store
    for each in made:
        each.close()


def run(work: Awaitable[T]) -> T:
    async def wait() -> T:
        return await work

    return asyncio.run(wait())


def got(store: ResponsesStore, owner: str, identity: str) -> Kept | None:
    chain, _ = run(store.chain(owner, identity))
    return chain[-1] if chain else None


def ids(store: ResponsesStore, *candidates: str) -> list[str]:
    return [name for name in candidates if got(store, "", name) is not None]


@pytest.mark.parametrize("in_file", [False, True])
def test_what_is_kept_is_there_until_it_is_deleted(
    make: Callable[..., ResponsesStore], tmp_path: Path, in_file: bool
) -> None:
    store = make(path=tmp_path / "here" / "responses.db" if in_file else None)
    assert run(store.keep("", kept("a")))
    found = got(store, "", "a")
    assert found == kept("a") and found.input_items == [{"asked": "hi"}] and found.output_items == [{"said": "hi"}]
    run(store.delete("", "a"))
    run(store.delete("", "a"))
    assert got(store, "", "a") is None


def test_a_response_is_found_and_read_in_pieces_until_it_is_deleted_or_replaced(
    make: Callable[..., ResponsesStore], clock: Clock
) -> None:
    store = make()
    run(store.keep("", kept("a")))
    found, whole = run(store.find("", "a")), kept("a").response
    assert (found.id, found.model, found.size) == ("a", kept("a").model, len(whole))
    assert run(store.piece(found, 0, 5)) == whole[:5] and run(store.piece(found, 5, 1 << 20)) == whole[5:]
    clock.now += 1
    run(store.keep("", kept("a")))  # and gets the same number
    assert run(store.find("", "a")).number == found.number and run(store.piece(found, 0, 5)) is None
    run(store.delete("", "a"))
    assert run(store.piece(found, 0, 5)) is None and run(store.find("", "a")) is None


def test_what_one_owner_keeps_does_not_exist_for_another(make: Callable[..., ResponsesStore]) -> None:
    store = make()
    run(store.keep("one", kept("a", text="mine")))
    run(store.keep("two", kept("a", text="yours")))
    run(store.delete("three", "a"))
    assert got(store, "one", "a") == kept("a", text="mine")
    assert got(store, "two", "a") == kept("a", text="yours")
    assert got(store, "", "a") is None and run(store.chain("three", "a")) == ([], "a")


def test_a_conversation_is_followed_back_to_its_beginning_or_to_what_is_gone(
    make: Callable[..., ResponsesStore],
) -> None:
    store = make()
    for identity, previous in (("a", None), ("b", "a"), ("c", "b"), ("x", "a")):
        run(store.keep("", kept(identity, previous)))
    assert run(store.chain("", "c")) == ([kept("a"), kept("b", "a"), kept("c", "b")], None)
    run(store.delete("", "a"))
    assert run(store.chain("", "c")) == ([kept("b", "a"), kept("c", "b")], "a")
    run(store.keep("", kept("b", "c")))  # a model that gives ids twice
    assert run(store.chain("", "c")) == ([kept("b", "c"), kept("c", "b")], None)


def test_the_oldest_go_first_when_there_is_too_much(make: Callable[..., ResponsesStore]) -> None:
    store = make(max_size=3 * SIZE)
    for name in "abcd":
        run(store.keep("", kept(name)))
    assert ids(store, *"abcd") == ["b", "c", "d"]
    run(store.keep("", kept("b")))  # anew
    run(store.keep("", kept("e")))
    assert ids(store, *"abcde") == ["b", "d", "e"]
    assert run(store.keep("", kept("f", text="x" * 2 * SIZE))) is False
    assert ids(store, *"bdef") == ["b", "d", "e"]
    run(store.delete("", "d"))
    run(store.keep("", kept("g")))
    assert ids(store, *"bdeg") == ["b", "e", "g"]


@pytest.mark.parametrize("in_file", [False, True])
def test_whoever_keeps_most_pays_and_nobody_else(
    make: Callable[..., ResponsesStore], tmp_path: Path, in_file: bool
) -> None:
    store = make(max_size=10 * SIZE, path=tmp_path / "file" if in_file else None)

    def theirs(owner: str, names: str) -> list[str]:
        return [name for name in names if got(store, owner, name) is not None]

    for name in "abcd":
        run(store.keep("modest", kept(name)))
    for name in "abcdefghijkl":
        assert run(store.keep("flood", kept(name)))
    assert theirs("modest", "abcd") == list("abcd") and theirs("flood", "abcdefghijkl") == list("ghijkl")
    run(store.keep("late", kept("a")))  # there is room for those who come later
    run(store.keep("modest", kept("e")))
    assert theirs("late", "a") == ["a"] and theirs("modest", "abcde") == list("abcde")
    assert theirs("flood", "ghijkl") == list("ijkl")


def test_one_that_only_others_could_make_room_for_is_not_kept_and_costs_nothing(
    make: Callable[..., ResponsesStore],
) -> None:
    store = make(max_size=10 * SIZE)
    for owner in ("one", "two", "three"):
        for name in "ab":
            run(store.keep(owner, kept(name)))
    run(store.keep("flood", kept("a")))
    assert run(store.keep("flood", kept("b", text="x" * 7 * SIZE))) is False
    assert got(store, "flood", "a") is not None and got(store, "flood", "b") is None
    assert all(got(store, owner, name) is not None for owner in ("one", "two", "three") for name in "ab")


def test_a_file_from_before_knows_what_each_owner_keeps(make: Callable[..., ResponsesStore], tmp_path: Path) -> None:
    store = make(path=tmp_path / "file", max_size=4 * SIZE)
    for name in "abc":
        run(store.keep("flood", kept(name)))
    run(store.keep("modest", kept("a")))
    store.close()
    with sqlite3.connect(tmp_path / "file") as file:
        file.executescript("DROP TRIGGER owner_kept; DROP TRIGGER owner_gone; DROP TABLE owners; VACUUM")
    again = make(path=tmp_path / "file", max_size=4 * SIZE)
    run(again.keep("modest", kept("b")))
    run(again.delete("flood", "c"))
    with sqlite3.connect(tmp_path / "file") as file:
        found = dict(file.execute("SELECT owner, size FROM owners").fetchall())
    assert found == {"flood": SIZE, "modest": 2 * SIZE}


def test_what_is_too_old_is_gone_though_nothing_new_came(make: Callable[..., ResponsesStore], clock: Clock) -> None:
    store = make(max_age=60.0)
    run(store.keep("", kept("a")))
    clock.now = NOW + 50
    run(store.keep("", kept("b", "a")))
    assert ids(store, "a", "b") == ["a", "b"]
    clock.now = NOW + 61
    assert ids(store, "a", "b") == ["b"] and run(store.chain("", "b")) == ([kept("b", "a")], "a")


def test_what_is_too_old_leaves_the_file_with_the_next_one(
    make: Callable[..., ResponsesStore], clock: Clock, tmp_path: Path
) -> None:
    store = make(path=tmp_path / "file", max_age=60.0)
    run(store.keep("", kept("a")))
    clock.now = NOW + 61
    run(store.keep("", kept("b")))
    with sqlite3.connect(tmp_path / "file") as file:
        assert file.execute("SELECT id FROM responses").fetchall() == [("b",)]
        assert file.execute("SELECT size FROM total").fetchone() == (SIZE,)


def test_nothing_is_kept_where_there_is_no_room_at_all(make: Callable[..., ResponsesStore]) -> None:
    store = make(max_size=0)
    store.open()
    assert not store.keeps
    assert run(store.keep("", kept("a"))) is False and got(store, "", "a") is None
    assert run(store.chain("", "a")) == ([], "a")


def test_a_file_outlives_the_gateway_and_is_its_owners_alone(
    make: Callable[..., ResponsesStore], tmp_path: Path
) -> None:
    path = tmp_path / "responses.db"
    store = make(path=path)
    store.open()
    run(store.keep("", kept("a")))
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    store.close()
    store.close()
    with pytest.raises(sqlite3.Error):
        got(store, "", "a")
    other = make(path=path)
    assert ids(other, "a") == ["a"]


def test_a_file_that_others_may_read_is_refused(make: Callable[..., ResponsesStore], tmp_path: Path) -> None:
    """Once what it holds was theirs to read; whoever made it so is told, and not the callers of this gateway."""
    path = tmp_path / "responses.db"
    path.touch()
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=rf"the file is accessible to other users; run: chmod 600 {path}"):
        make(path=path).open()
    path.chmod(0o600)
    make(path=path).open()


def test_two_gateways_may_share_a_file(make: Callable[..., ResponsesStore], tmp_path: Path) -> None:
    one, two = (make(path=tmp_path / "file", max_size=2 * SIZE) for _ in range(2))
    for store, name in ((one, "a"), (two, "b"), (one, "c"), (two, "d")):
        run(store.keep("", kept(name)))
    assert ids(one, *"abcd") == ids(two, *"abcd") == ["c", "d"]


def test_a_file_that_cannot_be_used_is_told_at_the_start(make: Callable[..., ResponsesStore], tmp_path: Path) -> None:
    (tmp_path / "no").write_bytes(b"this is no database " * 100)
    for path in (tmp_path / "no", tmp_path / "no" / "file"):
        with pytest.raises(ConfigError, match=r"\[gateway.responses\] path = .*no"):
            make(path=path).open()


def test_what_was_deleted_is_not_in_the_file_any_more(make: Callable[..., ResponsesStore], tmp_path: Path) -> None:
    store = make(path=tmp_path / "file")
    run(store.keep("", kept("a", text="a secret of mine")))
    run(store.delete("", "a"))
    store.close()
    assert all(b"a secret of mine" not in file.read_bytes() for file in tmp_path.iterdir())


# ── items ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_items(identity: str, given: list[Any], said: list[Any]) -> Kept:
    response = json.dumps({"id": identity, "output": said}).encode()
    names = frozenset(item["id"] for item in (*given, *said))
    return Kept(identity, None, "m", json.dumps(given).encode(), response, names)


def test_an_item_is_found_in_the_newest_response_that_has_it(make: Callable[..., ResponsesStore], clock: Clock) -> None:
    store = make(max_age=100)
    old, new, other = ({"id": name, "text": text} for name, text in (("a", "old"), ("a", "new"), ("b", "b")))
    run(store.keep("", with_items("one", [other], [old])))
    clock.now += 50
    run(store.keep("", with_items("two", [new], [])))
    assert run(store.items("", ["b", "a"], MOST)) == {"a": ("m", new), "b": ("m", other)}
    assert run(store.items("key:x", ["a"], MOST)) == {}
    run(store.delete("", "two"))
    assert run(store.items("", ["a", "c", "b"], MOST)) == {"a": ("m", old)}
    clock.now += 51
    assert run(store.items("", ["a"], MOST)) == {}


def test_items_go_with_their_response_and_count_for_its_size(
    make: Callable[..., ResponsesStore], tmp_path: Path
) -> None:
    path = tmp_path / "r.db"
    first = with_items("one", [], [{"id": "a"}])
    size = OVERHEAD + len(first.input) + len(first.response) + ITEM + 2
    store = make(path=path, max_size=size)
    assert run(store.keep("", first)) and run(store.keep("", with_items("two", [], [{"id": "b"}])))
    assert run(store.items("", ["a"], MOST)) == {} and list(run(store.items("", ["b"], MOST))) == ["b"]
    assert not run(store.keep("", with_items("three", [{"id": "c"}], [{"id": "d"}])))
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT id FROM items").fetchall() == [("b",)]


def test_an_item_counts_with_its_id_in_the_index_too(make: Callable[..., ResponsesStore]) -> None:
    one = with_items("one", [], [{"id": "a" * 10_000}])
    size = OVERHEAD + len(one.input) + len(one.response)
    assert not run(make(max_size=size + 2 * 10_000).keep("", one))
    assert run(make(max_size=size + 2 * 10_000 + ITEM).keep("", one))


def test_an_item_that_another_gateway_deletes_meanwhile_is_gone(
    make: Callable[..., ResponsesStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(path=tmp_path / "r.db")
    run(store.keep("", with_items("one", [], [{"id": "a"}])))
    # found, and not there any more when it is read
    monkeypatch.setattr(
        "gateway.hosting.stored_responses._LAST", "SELECT 99 WHERE ? = '' AND ? = 'a' AND ? IS NOT NULL"
    )
    assert run(store.items("", ["a"], MOST)) == {}


def test_a_file_from_before_there_were_items_is_read_on(make: Callable[..., ResponsesStore], tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    store = make(path=path)
    run(store.keep("", kept("a")))
    store.close()
    with sqlite3.connect(path) as db:
        db.executescript("DROP TRIGGER items_gone; DROP TABLE items;")
    again = make(path=path)
    assert got(again, "", "a") == kept("a") and run(again.items("", ["x"], MOST)) == {}
    assert run(again.keep("", with_items("b", [], [{"id": "x"}]))) and list(run(again.items("", ["x"], MOST))) == ["x"]


def test_where_nothing_is_kept_there_are_no_items(make: Callable[..., ResponsesStore]) -> None:
    assert run(make(max_size=0).items("", ["a"], MOST)) == {}
