"""Store responses that clients may fetch or continue later, in SQLite: in memory or in a file.

The store is bounded by age and size. When it is full, the caller that uses the most space loses its oldest responses
first, so that nobody is evicted by a caller that stores more. All access runs on one dedicated thread, so that requests
never wait for the disk on the event loop. If a response cannot be stored, the request is still answered. Callers cannot
see each other's responses.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import json_costs
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..settings.schema import ResponsesSettings

T = TypeVar("T")
OVERHEAD = 256  # bytes counted for a row in addition to its content
ITEM = 160  # bytes counted for an item in addition to its id, which is in a table and its index
BUSY = 5.0  # seconds to wait while another gateway writes to the same file

# Triggers keep the totals: several gateways may share a file, and summing it up each time would read all of it.
_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA secure_delete = ON;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS responses (
    number INTEGER PRIMARY KEY, owner TEXT NOT NULL, id TEXT NOT NULL, previous TEXT, model TEXT NOT NULL,
    created REAL NOT NULL, size INTEGER NOT NULL, input BLOB NOT NULL, response BLOB NOT NULL,
    UNIQUE (owner, id)
);
CREATE INDEX IF NOT EXISTS responses_created ON responses (created);
CREATE TABLE IF NOT EXISTS total (size INTEGER NOT NULL);
INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS kept AFTER INSERT ON responses
    BEGIN UPDATE total SET size = size + new.size; END;
CREATE TRIGGER IF NOT EXISTS gone AFTER DELETE ON responses
    BEGIN UPDATE total SET size = size - old.size; END;
CREATE INDEX IF NOT EXISTS responses_owner ON responses (owner);
CREATE TABLE IF NOT EXISTS owners (owner TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS owners_size ON owners (size);
INSERT INTO owners SELECT owner, sum(size) FROM responses WHERE NOT EXISTS (SELECT 1 FROM owners) GROUP BY owner;
CREATE TRIGGER IF NOT EXISTS owner_kept AFTER INSERT ON responses BEGIN
    INSERT INTO owners VALUES (new.owner, new.size) ON CONFLICT (owner) DO UPDATE SET size = size + new.size;
END;
CREATE TRIGGER IF NOT EXISTS owner_gone AFTER DELETE ON responses BEGIN
    UPDATE owners SET size = size - old.size WHERE owner = old.owner;
    DELETE FROM owners WHERE owner = old.owner AND size <= 0;
END;
CREATE TABLE IF NOT EXISTS items (
    owner TEXT NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (owner, id, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_number ON items (number);
CREATE TRIGGER IF NOT EXISTS items_gone AFTER DELETE ON responses
    BEGIN DELETE FROM items WHERE number = old.number; END;
COMMIT;
"""
# The oldest response of the owner with the most stored bytes.
_NEXT_TO_GO = (
    "SELECT min(number) FROM responses WHERE owner = (SELECT owner FROM owners ORDER BY size DESC, owner LIMIT 1)"
)
_FIELDS = "id, previous, model, input, response"
_SIZE = "length(input) + length(response)"  # SQLite knows the length of a blob without reading it
_ONE = "FROM responses WHERE owner = ? AND id = ? AND created >= ?"
_LAST = (  # the newest response that contains an item
    "SELECT max(number) FROM items JOIN responses USING (number, owner)"
    " WHERE owner = ? AND items.id = ? AND created >= ?"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """One response. `input` is the JSON of its own input items, `response` that of the response object.

    `item_ids` are the ids of the items in both, for lookup; they are empty when it was read back.
    """

    id: str
    previous: str | None
    model: str
    input: bytes
    response: bytes
    item_ids: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def input_items(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json_costs.read(self.input, inf)
        return items

    @property
    def size(self) -> int:
        """Size of the content in bytes."""
        return len(self.input) + len(self.response)

    @property
    def parts(self) -> tuple[int, int]:
        """The JSON arrays and objects in it, and the nanoseconds to read it."""
        amounts = [json_costs.amount(part) for part in (self.input, self.response)]
        return sum(each.items for each in amounts), sum(each.cost for each in amounts)

    @property
    def output_items(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json_costs.read(self.response, inf)["output"]
        return items


@dataclass(frozen=True, slots=True)
class Found:
    """A response that is stored, without its content. `size` is the bytes of the response object."""

    number: int
    id: str
    model: str
    created: float
    size: int


class TooManyParts(Exception):
    """The requested items would take too long and too much memory to decode."""


class _Full(Exception):
    """There is only room if the response that was just stored is dropped."""


class ResponsesStore:
    """The store of responses.

    `owner` is the caller that may see a response. Every method may raise `sqlite3.Error`, or OSError for the file.
    """

    def __init__(self, settings: ResponsesSettings, clock: Callable[[], float] = time.time) -> None:
        self._path, self._max_size, self._max_age = settings.path, settings.max_size, settings.max_age
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="responses")
        self._closed = False

    @property
    def keeps(self) -> bool:
        """Whether anything is stored at all."""
        return self._max_size > 0

    def open(self) -> None:
        """Open the file before the first request.

        Raises:
            ConfigError: it cannot be used.
        """
        if not self.keeps:
            return
        try:
            self._thread.submit(self._db).result()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"[gateway.responses] path = {str(self._path)!r} cannot be used: {error}") from error

    def close(self) -> None:
        """Close the file; later responses are not stored. May be called again."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._close)
            self._thread.shutdown()

    async def keep(self, owner: str, kept: Kept) -> bool:
        """Store a response; it replaces one with the same id.

        Returns False, and changes nothing, if there is no room: it is too large by itself, or its owner would be the
        one to be evicted.
        """
        return await self._run(self._keep, owner, kept)

    async def find(self, owner: str, identity: str) -> Found | None:
        """Return what is known of a response without reading it."""
        return await self._run(self._find, owner, identity)

    async def piece(self, found: Found, start: int, size: int) -> bytes | None:
        """Return some bytes of a response object; None if the response is not stored any more."""
        return await self._run(self._piece, found, start, size)

    async def weigh(self, owner: str, identity: str | None, items: list[str]) -> int:
        """Return the bytes of a response and those that it continues, and of the responses that contain these items.

        None of them is read for it.
        """
        return await self._run(self._weigh, owner, identity, items)

    async def chain(self, owner: str, identity: str) -> tuple[list[Kept], str | None]:
        """Return a response after those it continues, oldest first; and the id of the first missing one, if any."""
        return await self._run(self._chain, owner, identity)

    async def items(
        self, owner: str, identities: list[str], most: tuple[int, int]
    ) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return items by their ids, each with the model of its response. Stops at the first id that is not found.

        Raises:
            TooManyParts: the responses that contain them have more than `most`, of what `Kept.parts` counts.
        """
        return await self._run(self._items, owner, identities, most)

    async def delete(self, owner: str, identity: str) -> None:
        await self._run(self._delete, owner, identity)

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        if self._closed:
            raise sqlite3.ProgrammingError("the store of responses is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args))

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────────

    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._file(), timeout=BUSY, isolation_level=None)
            try:
                connection.executescript(_SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _file(self) -> str:
        if self._path is None:
            return ":memory:"
        path = Path(self._path)
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # mode 600; SQLite's other files follow it
        try:
            if os.fstat(opened).st_mode & 0o077:
                raise PermissionError(f"the file is accessible to other users; run: chmod 600 {path}")
        finally:
            os.close(opened)
        return str(path)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _keep(self, owner: str, kept: Kept) -> bool:
        size = OVERHEAD + len(kept.input) + len(kept.response)
        size += sum(ITEM + 2 * len(identity.encode()) for identity in kept.item_ids)
        if size > self._max_size:
            return False
        db = self._db()
        row = (owner, kept.id, kept.previous, kept.model, self._clock(), size, kept.input, kept.response)
        try:
            with _transaction(db):
                self._insert(db, row, kept)
        except _Full:
            return False
        return True

    def _insert(self, db: sqlite3.Connection, row: tuple[Any, ...], kept: Kept) -> None:
        db.execute("DELETE FROM responses WHERE owner = ? AND id = ?", row[:2])
        db.execute("DELETE FROM responses WHERE created < ?", (self._oldest(),))
        made = db.execute(
            "INSERT INTO responses (owner, id, previous, model, created, size, input, response)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        names = [(row[0], identity, made.lastrowid) for identity in kept.item_ids]
        db.executemany("INSERT INTO items (owner, id, number) VALUES (?, ?, ?)", names)
        while db.execute("SELECT size FROM total").fetchone()[0] > self._max_size:
            number = db.execute(_NEXT_TO_GO).fetchone()[0]
            if number == made.lastrowid:
                raise _Full
            db.execute("DELETE FROM responses WHERE number = ?", (number,))

    def _get(self, owner: str, identity: str) -> Kept | None:
        if not self.keeps:
            return None
        found = self._db().execute(
            f"SELECT {_FIELDS} {_ONE}",
            (owner, identity, self._oldest()),
        )
        row = found.fetchone()
        return None if row is None else Kept(*row)

    def _find(self, owner: str, identity: str) -> Found | None:
        if not self.keeps:
            return None
        row = (
            self._db()
            .execute(f"SELECT number, id, model, created, length(response) {_ONE}", (owner, identity, self._oldest()))
            .fetchone()
        )
        return None if row is None else Found(*row)

    def _piece(self, found: Found, start: int, size: int) -> bytes | None:
        db = self._db()
        with _transaction(db, "BEGIN"):  # or another gateway could replace it in between
            row = db.execute(
                "SELECT id, model, created, length(response) FROM responses WHERE number = ?", (found.number,)
            ).fetchone()
            if row != (found.id, found.model, found.created, found.size):  # numbers are used again
                return None
            with db.blobopen("responses", "response", found.number, readonly=True) as blob:
                blob.seek(start)
                return blob.read(size)

    def _weigh(self, owner: str, identity: str | None, items: list[str]) -> int:
        if not self.keeps:
            return 0
        db, total, seen = self._db(), 0, set[str]()
        while identity is not None and identity not in seen:
            seen.add(identity)
            row = db.execute(f"SELECT {_SIZE}, previous {_ONE}", (owner, identity, self._oldest())).fetchone()
            size, identity = row or (0, None)
            total += size
        numbers = {db.execute(_LAST, (owner, item, self._oldest())).fetchone()[0] for item in items}
        for number in numbers:
            row = db.execute(f"SELECT {_SIZE} FROM responses WHERE number = ?", (number,)).fetchone()
            total += row[0] if row else 0
        return total

    def _chain(self, owner: str, identity: str) -> tuple[list[Kept], str | None]:
        found: dict[str, Kept] = {}
        following: str | None = identity
        while following is not None and following not in found:  # two responses may have the same id
            kept = self._get(owner, following)
            if kept is None:
                break
            found[following] = kept
            following = kept.previous
        return list(found.values())[::-1], None if following in found else following

    def _items(self, owner: str, identities: list[str], most: tuple[int, int]) -> dict[str, tuple[str, dict[str, Any]]]:
        if not self.keeps:
            return {}
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        read: dict[int, tuple[str, dict[Any, dict[str, Any]]]] = {}  # the items of a conversation are in few responses
        wanted, parts, cost = frozenset(identities), 0, 0
        for identity in identities:
            number = self._db().execute(_LAST, (owner, identity, self._oldest())).fetchone()[0]
            if number is None:
                break
            if number not in read:
                query = f"SELECT {_FIELDS} FROM responses WHERE number = ?"
                row = self._db().execute(query, (number,)).fetchone()
                if row is None:  # another gateway has just deleted it from the shared file
                    break
                kept = Kept(*row)
                more = kept.parts
                parts, cost = parts + more[0], cost + more[1]
                if parts > most[0] or cost > most[1]:
                    raise TooManyParts
                whole = (*kept.input_items, *kept.output_items)
                ids = ((item.get("id"), item) for item in whole)
                read[number] = kept.model, {key: item for key, item in ids if isinstance(key, str) and key in wanted}
            model, items = read[number]
            found[identity] = model, items[identity]
        return found

    def _delete(self, owner: str, identity: str) -> None:
        self._db().execute("DELETE FROM responses WHERE owner = ? AND id = ?", (owner, identity))

    def _oldest(self) -> float:
        """Return the creation time before which responses have expired."""
        return self._clock() - self._max_age


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    db.execute(begin)
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
