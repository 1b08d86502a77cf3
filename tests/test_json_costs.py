"""JSON takes at most about what it was counted to cost, whatever its numbers look like."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import json_costs
from gateway.http.body import decode_json

MIDDLE = "9007199254740993"  # between two floats
FORMS = (
    *("1", "1.5", "-0.1234567", "1.1102230246251565e-16", "9e23", "1e22", "0e308", "1.2345678901234567e-7"),
    *(f"{MIDDLE}e0", f"{MIDDLE}e-0", f"{MIDDLE}.0", MIDDLE, "9007199254740995e-1", "9007199254740993000e-3"),
    *("562949953421312.0625", "4503599627370496.5", "1e23", "9007199254740992." + "9" * 80),
    *("1e308", "9E307", "1e+00289", "1e-308", "-5E-324", "2.2250738585072011e-308"),
    *("1.0000000000000000834404457354e-99", "1" + "7" * 150, "1" + "7" * 150 + ".0", "0." + "1" * 4000, "1" * 4000),
    *("true", '""', '"a"', '"é"', '"' + "\\n" * 100 + '"', "[]", "{}", '{"a":1}'),
)


def least(value: str) -> tuple[float, float]:
    """The nanoseconds that many of these take at least, and those that were counted."""
    body = ("[" + f"{value}," * (10_000 // len(value)) + "1]").encode()
    amount, taken = json_costs.amount(body), []
    for _ in range(3):
        before = time.thread_time_ns()
        json_costs.decode(body, amount)
        taken.append(time.thread_time_ns() - before)
    return min(taken), amount.cost


@pytest.mark.parametrize("value", FORMS, ids=[form[:24] for form in FORMS])
def test_values_take_about_what_they_were_counted_to_cost(value: str) -> None:
    taken, counted = least(value)
    assert taken < 10 * counted  # on a machine that does other things; uncounted they take 50 times as much


digits = st.text("0123456789", min_size=1, max_size=25)
whole = st.builds(str, st.integers(-(10**25), 10**25)) | st.just(MIDDLE)
fraction = digits.map(".{}".format) | st.just("")
exponent = st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-", "-0"]), st.integers(0, 290))
numbers = st.builds("{}{}{}".format, whole, fraction, exponent | st.just(""))


@given(numbers)
@example("9007199254740993e-4")
def test_whatever_a_number_looks_like_it_takes_what_was_counted(number: str) -> None:
    taken, counted = least(number)
    assert taken < 10 * counted


@given(st.lists(numbers, min_size=40, max_size=60))
@example(["1e999"] * 40)
@example(["1e308", "-0.0", "1"] * 20)
def test_numbers_that_can_be_slow_are_read_to_the_same_values(given: list[str]) -> None:
    def read(body: bytes, amount: Any) -> Any:
        try:
            return [(type(value), str(value)) for value in json_costs.decode(body, amount)]
        except ValueError as error:
            return str(error)

    body = f"[{','.join(given)}]".encode()
    assert read(body, json_costs.amount(body)) == read(body, None)


@pytest.mark.parametrize("number", ["1e308", "1e23", f"{MIDDLE}e0", "1" + "7" * 20])
def test_a_short_body_is_counted_too(number: str) -> None:
    """Some kilobytes of them would take a tenth of a second, on the loop."""
    body = ("[" + f"{number}," * 400 + "1]").encode()
    assert json_costs.amount(body).is_slow
    few = ("[" + f"{number}," * json_costs.FEW + "1]").encode()
    assert not json_costs.amount(few).is_slow


def test_other_threads_run_while_numbers_that_can_be_slow_are_read() -> None:
    """They run when a function of Python's begins, and not in a function of C."""
    body = b"[" + b"1e308," * (json_costs.FEW + 8) + b"1]"
    begun: list[str] = []
    sys.setprofile(lambda frame, event, _: begun.append(frame.f_code.co_name) if event == "call" else None)
    try:
        json_costs.decode(body, json_costs.amount(body))
    finally:
        sys.setprofile(None)
    assert begun.count("_float") == json_costs.FEW + 8


def test_no_step_of_counting_reads_more_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step holds the interpreter's lock, and with it the loop."""
    read: list[int] = []
    add = json_costs.Amount.add

    def watched(amount: Any, outside: bytes, quotes: int) -> None:
        read.append(len(outside))
        add(amount, outside, quotes)

    monkeypatch.setattr(json_costs.Amount, "add", watched)
    decode_json(b"[" + b"1," * (2 * json_costs.PIECE) + b"1]")
    assert sum(read) == 4 * json_costs.PIECE + 3 and max(read) <= json_costs.PIECE


texts = st.lists(st.text('ab"\\é[', max_size=9), max_size=30).map(json.dumps)


@given(texts | texts.map(lambda text: f'{{"a\\\\": {text}}}'), st.integers(1, 20))
def test_what_is_outside_of_strings_is_found_wherever_a_piece_ends(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_costs, "PIECE", size)
        found = list(json_costs.outside_strings(text.encode()))
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    assert b"".join(outside for outside, _ in found) == plain.encode()
    assert sum(quotes for _, quotes in found) == 2 * len(re.findall(r'"(?:[^"\\]|\\.)*"', text))
