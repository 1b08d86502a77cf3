from __future__ import annotations

from gateway.directories.repeated_problems import MOST_ALIKE, first_of_each_kind
from gateway.spec import Problem


def test_the_first_of_each_kind_are_told_in_their_order_and_the_others_are_counted() -> None:
    some = [Problem(where="m", what=f"{at}", code="many", model="m") for at in range(MOST_ALIKE + 5)]
    other = Problem(where="m", what="once", code="other", level="warning", model="m")

    told = list(first_of_each_kind([some[0], other, *some[1:]]))

    assert [each.what for each in told[:3]] == ["0", "once", "1"]
    assert len(told) == MOST_ALIKE + 2
    assert (told[-1].code, told[-1].level, told[-1].model) == ("many", "error", "m")
    assert told[-1].what == "5 more of this kind"


def test_the_count_of_one_would_be_no_shorter_and_what_was_bounded_is_bounded_the_same() -> None:
    some = [Problem(where="m", what=f"{at}", model="m") for at in range(MOST_ALIKE + 1)]
    assert list(first_of_each_kind(some)) == some
    once = list(first_of_each_kind([*some, *some]))
    assert list(first_of_each_kind(once)) == once


def test_each_model_has_its_own_and_a_warning_hides_no_error() -> None:
    some = [Problem(where=name, what="x", level="warning", model=name) for name in "ab" for _ in range(MOST_ALIKE)]
    error = Problem(where="b", what="x", model="b")
    assert list(first_of_each_kind([*some, error])) == [*some, error]


def test_no_text_is_longer_than_anybody_reads() -> None:
    (told,) = first_of_each_kind([Problem(where="m", what="x" * 100_000, fix="y" * 100_000)])
    assert len(told.what) < 3000
    assert len(told.fix) < 3000
    assert told.what.endswith("… (100000 characters)")
