"""The page that says which call of a worker has begun last."""

from __future__ import annotations

import os

import pytest

from gateway.system.begun import Begun


def test_what_one_end_marks_the_other_reads() -> None:
    ours = Begun.new()
    theirs = Begun(os.dup(ours.descriptor))
    assert ours.last == 0
    theirs.mark(0xFFFFFFFF)
    assert ours.last == 0xFFFFFFFF


def test_the_page_stays_when_its_file_is_closed_and_what_it_said_when_it_is_closed_too() -> None:
    page = Begun.new()
    theirs = Begun(os.dup(page.descriptor))
    page.close_file()
    page.close_file()
    theirs.mark(7)
    assert (page.last, page.descriptor) == (7, -1)
    page.close_page()
    page.close_page()
    assert page.last == 7


def test_the_page_cannot_be_cut_off_under_its_reader() -> None:
    page = Begun.new()
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(page.descriptor, size)
