"""The changelog keeps its form when several changes to it are merged."""

from __future__ import annotations

import re

from pages import ROOT

TEXT = (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_entries_are_grouped_by_what_users_do_and_none_stands_twice() -> None:
    """A merge that keeps the lines of both sides brings back old text: take the new file, and add your entry again."""
    _, _, unreleased = TEXT.partition("\n## Unreleased\n")
    groups = re.findall(r"^### (.+)$", re.split(r"^## ", unreleased, flags=re.MULTILINE)[0], re.MULTILINE)
    assert groups[0] == "What you have to change"
    assert len(groups) == len(set(groups))
    assert not {"Added", "Changed", "Fixed"} & set(groups), "write your entry into the group of what it is about"
    entries = re.findall(r"^- .+$", TEXT, re.MULTILINE)
    assert [line for line in entries if entries.count(line) > 1] == []
