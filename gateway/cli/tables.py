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


def table(columns: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> Table:
    """A table without lines. `columns` of None leaves out the head."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE_HEAD if columns else None, show_header=columns is not None, pad_edge=False)
    for column in columns or ():
        found.add_column(column, overflow="fold")
    for row in rows:
        found.add_row(*(Text(printable.lines(cell)) for cell in row))  # Text: no cell is markup
    return found


def show(found: Table) -> None:
    """Print a table to stdout, plain where that is no terminal or NO_COLOR is set."""
    _console().print(found)


def text_of(found: Table) -> str:
    """What `show` would print."""
    console = _console()
    with console.capture() as captured:
        console.print(found)
    return captured.get()


def _console() -> Console:
    from rich.console import Console

    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(width=None if is_terminal else WIDE, highlight=False)


def tell(text: str, *, err: bool = False) -> None:
    """Print a line in which others had a say: names of files, reasons of models."""
    click.echo(printable.lines(text), err=err)


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))
