"""Tables and JSON on stdout, in one format for all commands."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..telemetry import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE = 200  # columns when no terminal defines a width: lines in a pipe should not be wrapped
ENDLESS = 100_000  # columns of a table that must not be wrapped


def table(
    columns: Sequence[str] | None, rows: Iterable[Sequence[str]], *, fold: bool = True, several: bool = False
) -> Table:
    """Return a table without lines.

    `columns` of None leaves out the header. Without `fold` each row is one line, however narrow the table is. Newlines
    in a cell become spaces unless `several` lines are allowed.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    padding = (0, 1) if fold else (0, 1, 0, 0)
    head = box.SIMPLE_HEAD if columns else None
    found = Table(box=head, show_header=columns is not None, pad_edge=False, padding=padding)
    for column in columns or ():
        found.add_column(column, overflow="fold" if fold else "ellipsis", no_wrap=not fold)
    for row in rows:
        found.add_row(*(Text(_cell(cell, several=several)) for cell in row))  # Text: no cell is markup
    return found


def _cell(text: str, *, several: bool) -> str:
    return printable.lines(text if several else " ".join(text.splitlines()))


def show(found: Table, *, wide: bool = False) -> None:
    """Print a table to stdout, as plain text if that is no terminal or NO_COLOR is set. `wide` ignores the width."""
    _console(ENDLESS if wide else None).print(found)


def is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def room() -> int:
    """Return the number of columns available for a table."""
    return _console().width


def width_of(found: Table) -> int:
    """Return the number of columns that a table needs."""
    return _console(ENDLESS).measure(found).maximum


def text_of(found: Table) -> str:
    """Return what `show` would print."""
    console = _console()
    with console.capture() as captured:
        console.print(found)
    return captured.get()


def _console(width: int | None = None) -> Console:
    from rich.console import Console

    return Console(width=width or (None if is_terminal() else WIDE), highlight=False)


def tell(text: str, *, err: bool = False) -> None:
    """Print a line with text from outside the gateway, such as file names or reasons of models, made printable."""
    click.echo(printable.lines(text), err=err)


def answers() -> Callable[[bytes], None]:
    """Return a function that writes pieces of a model's answer to stdout as they are, or printable on a terminal."""
    if not sys.stdout.isatty():
        return _write_bytes
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a piece may end inside a character
    return lambda piece: _write_bytes(printable.lines(decoder.decode(piece)).encode("utf-8", "replace"))


def _write_bytes(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))
