"""What others wrote cannot move the cursor, begin a line or turn the order around, wherever it is shown."""

from __future__ import annotations

import sys
import unicodedata

import click
import pytest

from gateway.cli.tables import show, table, tell
from gateway.telemetry.printable import lines, one_line

EVERY = list(map(chr, range(sys.maxunicode + 1)))
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
MARKS = "\u200e\u200f\u061c"


def is_odd(char: str) -> bool:
    """As Unicode's own tables say: a control, a surrogate, an end of a line or paragraph, or what turns the order."""
    category, direction = unicodedata.category(char), unicodedata.bidirectional(char)
    return category in ("Cc", "Cs", "Zl", "Zp") or direction in TURNING or char in MARKS


def test_of_all_characters_those_are_written_out_and_no_others() -> None:
    # `ascii`: a surrogate in the report of a failure would be no text either
    assert [ascii(char) for char in EVERY if (one_line(char) != char) is not is_odd(char)] == []
    assert [char for char in EVERY if lines(char) != one_line(char)] == ["\t", "\n"]


def test_what_is_taken_out_can_still_be_read() -> None:
    assert one_line("a\x1b[31mb\n\u202ec\u05d0") == r"a\x1b[31mb\n\u202ec" + "\u05d0"
    assert lines("a\tb\n\x9b1m") == "a\tb\n\\x9b1m"
    assert ascii(one_line("\ud800")) == ascii(lines("\ud800")) == ascii(r"\ud800")


def test_messages_and_tables_of_the_commands_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    tell("a \x1b[2Jline")
    tell("an \u202eerror", err=True)
    show(table(("model", "reason"), [("m", "its \x1b]0;title\x07 \u2066reason")]))
    out, err = capsys.readouterr()
    assert r"a \x1b[2Jline" in click.unstyle(out) and r"an \u202eerror" in err
    assert r"its \x1b]0;title\x07 \u2066reason" in out
    assert not any(is_odd(char) for char in (out + err).replace("\n", ""))
