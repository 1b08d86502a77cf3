"""Bodies of Arrow IPC give the rows of the table that was written, and never much more than they are."""

from __future__ import annotations

import base64
import datetime
import io
import random
import struct
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from gateway_tabular import arrow_rows
from gateway_tabular.arrow_messages import stream_of
from gateway_tabular.arrow_rows import FILE, STREAM, read_arrow
from gateway_tabular.columns import Column, Columns
from gateway_tabular.model import Scores, TabularModel
from tabular_cases import FRAME, TABLE, records

from gateway import BadRequest, HTTPError
from gateway.worker.loading.descriptor import describe as inspected

pa = pytest.importorskip("pyarrow")


def written(table: Any, kind: str = STREAM, **options: Any) -> bytes:
    body = io.BytesIO()
    new = pa.ipc.new_stream if kind == STREAM else pa.ipc.new_file
    with new(body, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=64)
    return body.getvalue()


class Echo(TabularModel):
    def open(self, root: Any) -> None:
        self.columns = COLUMNS

    def compute(self, table: Any) -> Scores:
        return Scores([list(row) for row in table.tolist()])


COLUMNS = Columns([Column("width"), Column("colour", "known", {"blue": 0.0, "red": 2.0})])


@pytest.fixture(scope="module")
def echo() -> Any:
    model = Echo({})
    model.load()
    return model


def answer(model: Any, body: bytes, kind: str = STREAM) -> Any:
    """The answer to a body, read as the worker reads it."""
    method = inspected(model, frozenset()).methods["predict"]
    found = method.function(method.readers[kind](body, kind))["predictions"]
    return [[None if value != value else value for value in row] for row in found]


@pytest.mark.parametrize("kind", [STREAM, FILE])
def test_a_table_of_pandas_is_read_as_it_was(kind: str) -> None:
    table = pa.Table.from_pandas(FRAME.set_index(FRAME.index * 2))
    names, rows = read_arrow(written(table, kind))
    assert names == list(FRAME)
    wanted = [tuple(record.values()) for record in records(FRAME)]
    assert [tuple(None if value != value else value for value in row) for row in rows] == wanted


@pytest.mark.parametrize("kind", [STREAM, FILE])
def test_columns_come_by_name_in_any_order(kind: str, echo: Any) -> None:
    table = pa.table({"colour": pa.array(["red", None, "blue"]).dictionary_encode(), "width": [1.5, 2.0, None]})
    assert answer(echo, written(table, kind), kind) == [[1.5, 2.0], [2.0, None], [None, 0.0]]


def test_every_type_of_a_column_is_read() -> None:
    day = datetime.datetime(2026, 11, 28, 12)
    columns = {
        "half": (pa.array(np.array([0.5, 2], np.float16)), [0.5, 2.0]),
        "whole": (pa.array([2**62 + 1, None]), [2**62 + 1, None]),
        "small": (pa.array([200, 3], pa.uint8()), [200, 3]),
        "flag": (pa.array([True, None]), [True, None]),
        "text": (pa.array(["a", ""], pa.large_string()), ["a", ""]),
        "view": (pa.array(["a rather long text that is not inline", None], pa.string_view()),
                 ["a rather long text that is not inline", None]),
        "numbers": (pa.array([5, 7, 5][:2]).dictionary_encode(), [5, 7]),
        "price": (pa.array([Decimal("1.25"), None]), [1.25, None]),
        "day": (pa.array([day.date(), None]), ["2026-11-28", None]),
        "time": (pa.array([day, None], pa.timestamp("s")), ["2026-11-28 12:00:00", None]),
        "none": (pa.nulls(2), [None, None]),
    }  # fmt: skip
    names, rows = read_arrow(written(pa.table({name: array for name, (array, _) in columns.items()})))
    for name, found in zip(names, zip(*rows, strict=True), strict=True):
        assert list(found) == columns[name][1], name


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([[1], [2]]), "list"),
        (pa.array([{"a": 1}, None]), "struct"),
        (pa.array([b"a", b"b"]), "binary"),
        (pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array([1])), "run_end_encoded"),
        (pa.array([b"a" * 16] * 2, pa.uuid()), "extension"),
    ],
)
def test_a_type_that_no_column_has_is_refused_with_its_name(array: Any, kind: str) -> None:
    with pytest.raises(BadRequest, match=rf"the column 'x' has the type .*{kind}.*: send numbers, texts"):
        read_arrow(written(pa.table({"x": array})))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"width": [1.0]}), "the schema of the body lacks colour"),
        (pa.table([[1.0], ["red"], [2]], names=["width", "colour", "width"]), "has width more than once"),
        (pa.table({"width": ["1"], "colour": ["red"]}), r"rows\[0\]\['width'\] is a text \('1'\)"),
        (pa.table({"width": [1.0], "colour": ["violet"]}), "an unknown category"),
        (pa.table({"width": pa.array([], pa.float64()), "colour": pa.array([], pa.string())}), "rows is empty"),
    ],
)
def test_wrong_tables_are_told_what_is_wrong(table: Any, message: str, echo: Any) -> None:
    with pytest.raises(BadRequest, match=message):
        answer(echo, written(table))


@pytest.mark.parametrize("kind", [STREAM, FILE])
@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_buffers_are_refused_before_they_are_unpacked(codec: str, kind: str) -> None:
    bomb = pa.table({"x": np.zeros(1_000_000)})
    with pytest.raises(BadRequest, match="compressed: write it with compression=None"):
        stream_of(written(bomb, kind, compression=codec))
    coded = pa.table({"x": pa.array(["long" * 999] * 9).dictionary_encode()})
    with pytest.raises(BadRequest, match="compressed"):
        stream_of(written(coded, kind, compression=codec))


def test_a_column_of_nulls_is_not_longer_than_its_body() -> None:
    body = written(pa.table({"x": pa.nulls(5)}))
    record = body.rindex(struct.pack("<q", 5))
    places = [place for place in range(len(body) - 8) if body[place : place + 8] == struct.pack("<q", 5)]
    assert record in places
    for place in places:
        body = body[:place] + struct.pack("<q", 10**6) + body[place + 8 :]
    with pytest.raises(BadRequest, match=r"the body has more than [\d,]+ values"):
        read_arrow(body)


def shared(count: int) -> Any:
    """A column of texts of 500 bytes, which all are the same bytes."""
    _, views, *data = pa.array(["x" * 500], pa.string_view()).buffers()
    return pa.Array.from_buffers(pa.string_view(), count, [None, pa.py_buffer(views.to_pybytes()[:16] * count), *data])


def test_texts_that_share_their_bytes_are_not_very_long_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway_tabular.arrow_rows.MOST_TEXT", 1000)
    with pytest.raises(BadRequest, match="the body has more than 1,000 bytes of text"):
        read_arrow(written(pa.table({"x": shared(3)})))


# A hundred zeros as a version of Arrow before 1.0 compressed them: metadata of the message says how.
OLD_COMPRESSION = base64.b64decode(
    "/////3gAAAAQAAAAAAAKAAwACgAJAAQACgAAABAAAAAAAQMACAAIAAAABAAIAAAABAAAAAEAAAAUAAAAEAAUABAADwAOAAgAAAAEABAAAAAQAAAAGAAAAA"
    "AAAwEYAAAAAAAAAAAABgAIAAYABgAAAAAAAgABAAAAeAAAAAAAAAD/////4AAAABgAAAAAAAAAAAAOABoAGAAXABAACAAEAA4AAAB4AAAAIAAAAAAAAAAU"
    "AAAAAAAAAwMACgAYAAwACAAEAAoAAAAsAAAAEAAAAGQAAAAAAAAAAAAAAAEAAABkAAAAAAAAAAAAAAAAAAAAAAAAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAbAAAAAAAAAAAAAAABAAAADAAAAAgADAAIAAQACAAAAAgAAAAQAAAABAAAAHpzdGQAAAAAHgAAAEFSUk9XOmV4cGVyaW1lbnRhbF9jb21wcmVz"
    "c2lvbgAAIAMAAAAAAAAotS/9YCACTQAAEAAAAQAbK4AFAAAAAAD/////AAAAAA=="
)


def test_what_metadata_says_to_be_compressed_is_refused_before_it_is_unpacked() -> None:
    assert pa.ipc.open_stream(OLD_COMPRESSION).read_all().to_pydict() == {"x": [0.0] * 100}  # pyarrow unpacks it
    with pytest.raises(BadRequest, match="a message has metadata of its own"):
        read_arrow(OLD_COMPRESSION)


def replaced(body: bytes, old: int, new: int) -> bytes:
    assert struct.pack("<q", old) in body
    return body.replace(struct.pack("<q", old), struct.pack("<q", new))


def test_a_dictionary_of_nulls_has_no_more_values_than_its_body_may_have() -> None:
    table = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([0, 6, None], pa.int32()), pa.nulls(7))})
    assert read_arrow(written(table))[1] == [(None,)] * 3
    with pytest.raises(BadRequest, match=r"the dictionaries of the body have more than [\d,]+ values"):
        read_arrow(replaced(written(table), 7, 10**6))


def test_a_dictionary_is_read_once_for_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"a rather long word {number}" for number in range(100)]
    table = pa.table({"x": pa.array(words * 20).dictionary_encode()})
    body = written(table)  # in 32 batches
    monkeypatch.setattr("gateway_tabular.arrow_rows.MOST_TEXT", 1)  # each byte of text as often as the body has it
    assert [row[0] for row in read_arrow(body)[1]] == words * 20
    monkeypatch.setattr("gateway_tabular.arrow_messages.MOST_CHECKED", 50_000)
    with pytest.raises(BadRequest, match="many batches of large dictionaries: write larger batches"):
        read_arrow(body)


def test_a_dictionary_that_is_added_to_is_refused_because_each_addition_copies_it() -> None:
    body, several = io.BytesIO(), ([b"ab"], [b"ab", b"cd"])
    kind = pa.dictionary(pa.int32(), pa.string())
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_stream(body, pa.schema([("x", kind)]), options=options) as writer:
        for words in several:
            array = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array(words).cast(pa.string()))
            writer.write_batch(pa.record_batch([array], names=["x"]))
    with pytest.raises(BadRequest, match="a dictionary is added to: write whole dictionaries"):
        read_arrow(body.getvalue())


def test_columns_that_share_their_bytes_have_no_more_text_together_than_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway_tabular.arrow_rows.MOST_TEXT", 1)
    texts = ["x" * 500] * 4
    for kind in (pa.string_view(), pa.string(), pa.large_string()):
        column = pa.array(texts, kind)
        assert [arrow_rows._text(pa.types, each) for each in (column, column[1:3])] == [2000, 1000]
    assert len(read_arrow(written(pa.table({"x": texts})))[1]) == 4
    body = written(pa.table({"x": shared(4), "y": shared(4)}))
    assert len(body) < 4000
    with pytest.raises(BadRequest, match="bytes of text: send several requests"):
        read_arrow(body)


@pytest.mark.parametrize(
    ("bound", "says"),
    [("MOST_FIELDS", "it has too many columns"), ("LARGEST_SCHEMA", "its schema has too much metadata")],
)
def test_a_schema_is_weighed_before_it_is_made(bound: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = pa.struct([("a", pa.int64()), ("b", pa.timestamp("s", tz="Europe/Oslo"))])
    schema = pa.schema([pa.field("x", inner, metadata={"k": "v" * 100})], metadata={"long": "text" * 100})
    body = io.BytesIO()
    pa.ipc.new_stream(body, schema).close()
    monkeypatch.setattr(f"gateway_tabular.arrow_messages.{bound}", 2 if bound == "MOST_FIELDS" else 600)
    with pytest.raises(BadRequest, match=says):
        read_arrow(body.getvalue())
    monkeypatch.setattr(f"gateway_tabular.arrow_messages.{bound}", 3 if bound == "MOST_FIELDS" else 800)
    with pytest.raises(BadRequest, match="has the type struct"):
        read_arrow(body.getvalue())


def test_a_column_has_no_more_buffers_than_its_batch() -> None:
    body = written(pa.table({"x": pa.array(["a rather long text that is not inline"] * 3, pa.string_view())}))
    count = struct.pack("<Iq", 1, 1)  # of one column: one buffer
    assert body.count(count) == 1
    with pytest.raises(BadRequest, match="a column has more buffers than its batch"):
        read_arrow(body.replace(count, struct.pack("<Iq", 1, 1000)))


def test_a_body_of_very_many_messages_or_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    body = written(pa.table({"x": np.zeros(1000)}))
    monkeypatch.setattr("gateway_tabular.arrow_messages.MOST_MESSAGES", 5)
    with pytest.raises(BadRequest, match="more than 5 messages"):
        read_arrow(body)
    monkeypatch.undo()
    monkeypatch.setattr("gateway_tabular.arrow_rows.MOST_CELLS", 999)
    with pytest.raises(BadRequest, match="more than 999 values"):
        read_arrow(body)


def test_whatever_bytes_are_changed_or_cut_it_is_answered_or_refused(echo: Any) -> None:
    table = pa.table({"width": TABLE[:9, 0], "colour": pa.array(["red", "blue", None] * 3).dictionary_encode()})
    for kind in (STREAM, FILE):
        whole, choose = written(table, kind), random.Random(7)
        for _ in range(250):
            body = bytearray(whole)
            for _ in range(choose.randint(1, 4)):
                body[choose.randrange(len(body))] = choose.choice((0, 1, 127, 128, 255, choose.randrange(256)))
            cut = bytes(body[: choose.choice((len(body), choose.randrange(len(body))))])
            try:
                answer(echo, cut, kind)
            except BadRequest as error:
                assert error.message


@pytest.mark.parametrize("body", [b"", b"ARROW1\0\0", b"\xff" * 8, b'{"inputs": []}', b"\xff\xff\xff\xff\0\0\0\0"])
def test_what_is_no_arrow_is_a_bad_request(body: bytes, echo: Any) -> None:
    with pytest.raises(BadRequest, match="Arrow IPC"):
        answer(echo, body)


def test_without_pyarrow_the_command_is_told(monkeypatch: pytest.MonkeyPatch, echo: Any) -> None:
    body = written(pa.table({"width": [1.0], "colour": ["red"]}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HTTPError, match=r"run: pip install 'model-gateway\[arrow\]'") as caught:
        answer(echo, body)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")
