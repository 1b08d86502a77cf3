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


def test_the_page_stays_when_its_file_is_closed() -> None:
    page = Begun.new()
    page.mark(7)
    page.close()
    page.close()
    assert (page.last, page.descriptor) == (7, -1)


def test_the_page_cannot_be_cut_off_under_its_reader() -> None:
    page = Begun.new()
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(page.descriptor, size)
