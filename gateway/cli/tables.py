"""Tables and JSON on stdout, the same from every command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from .. import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE = 200  # columns where no terminal says how many there are: a pipe should not break lines
ENDLESS = 100_000  # columns of a table that is not to be broken at all


def table(
    columns: Sequence[str] | None, rows: Iterable[Sequence[str]], *, fold: bool = True, several: bool = False
) -> Table:
    """A table without lines. `columns` of None leaves out the head; without `fold` each row is one line, however
    narrow it is. Line ends in a cell are spaces unless there may be `several` lines."""
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
    """Print a table to stdout, plain where that is no terminal or NO_COLOR is set; `wide`: whatever its width is."""
    _console(ENDLESS if wide else None).print(found)


def is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def room() -> int:
    """The columns that a table may have."""
    return _console().width


def width_of(found: Table) -> int:
    """The columns that a table would have, were there room."""
    return _console(ENDLESS).measure(found).maximum


def text_of(found: Table) -> str:
    """What `show` would print."""
    console = _console()
    with console.capture() as captured:
        console.print(found)
    return captured.get()


def _console(width: int | None = None) -> Console:
    from rich.console import Console

    return Console(width=width or (None if is_terminal() else WIDE), highlight=False)


def tell(text: str, *, err: bool = False) -> None:
    """Print a line in which others had a say: names of files, reasons of models."""
    click.echo(printable.lines(text), err=err)


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))
