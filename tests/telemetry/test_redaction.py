"""Secrets are taken out of texts in a time that grows with the text alone, whatever the secrets are."""

from __future__ import annotations

import pytest
from costs import least_seconds, seconds
from fakes import PATIENT
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.redaction import MARK, UNSURE, Redactor, _in_order, _Search


def test_many_secrets_are_made_ready_in_a_time_that_grows_with_their_number() -> None:
    values = [f'v{number:08}"x' for number in range(10_000)]
    redact = Redactor()
    assert seconds(lambda: redact.hide(values)) < 2  # 0.1 s; it was 3 s each time, and more for other values
    assert least_seconds(lambda: redact.hide(values), enough=0.1) < 0.1  # 1 ms
    assert redact(f"a {values[7]} b {values[-1]!r}") == f"a {MARK} b '{MARK}'"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([f"v{number:08}" for number in range(10_000)], "v0000" * 800),
        ([f"v{number:08}" for number in range(10_000)], "a line of a log " * 256),
        ([f"aaaa{number:05}" for number in range(9000)], "a" * 4096),
        (["a" * 8 + f"{number:04}" + "b" * (number % 200) for number in range(1000)], "a" * 4096),
        (["a" * size for size in range(8, 170)], "a" * 4096),
        (["a" * size for size in range(8, 170)], ("a" * 169 + "b") * 24),
    ],
    ids=range(6),
)
def test_a_line_takes_a_time_that_grows_with_its_length_alone(values: list[str], line: str) -> None:
    redact = Redactor(values)
    # 10 ms at most; looking at all values at each place takes up to 4 s.
    assert least_seconds(lambda: redact(line), enough=0.4) < 0.4


@PATIENT
@given(st.lists(st.text(alphabet='ab"c', min_size=1, max_size=9), max_size=8), st.text(alphabet='ab"c', max_size=60))
def test_every_character_of_every_secret_is_hidden_and_no_other(values: list[str], text: str) -> None:
    shown = Redactor(values)(text)
    forms = {form for value in values for form in (value, value.replace('"', '\\"')) if len(value) >= 4}
    hidden = {
        place
        for form in forms
        for start in range(len(text))
        if text.startswith(form, start)
        for place in range(start, start + len(form))
    }
    assert shown.replace(MARK, "") == "".join(text[place] for place in range(len(text)) if place not in hidden)


def test_of_secrets_that_overlap_nothing_is_shown() -> None:
    assert Redactor(["abcd", "bcdefgh"])("xabcdefghy abcd") == f"x{MARK}y {MARK}"


def test_one_that_was_cut_hides_its_line_though_another_begins_as_it_does() -> None:
    begun = "ab" * (UNSURE // 2)
    redact = Redactor([begun + "1", begun + "2345"])
    assert redact(f"{begun}1 x\ny") == f"{MARK}\ny"
    assert redact(f"{begun}2345 x\n{begun[1:]}") == f"{MARK}\n{begun[1:]}"
    assert redact(f"a {begun}") == f"a {MARK}"


def test_a_long_secret_makes_no_text_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """At no place more of it is compared than a cut leaves out, and none is looked at in what is hidden to its end."""
    looks: list[tuple[int, int]] = []
    look = _Search._longest_at

    def counted(self: _Search, text: str, start: int) -> str:
        looks.append((start, self._longest))
        return look(self, text, start)

    monkeypatch.setattr(_Search, "_longest_at", counted)
    redact = Redactor(["a" * 20_000 + "b"])
    assert redact("a" * 20_000 + "\n" + "a" * 3000) == f"{MARK}\n{MARK}"
    assert looks == [(0, UNSURE), (20_001, UNSURE)]


def test_while_values_are_sorted_others_have_their_turn() -> None:
    values = [f"{number * 7919 % 100_003:06}" for number in range(20_000)]
    assert _in_order(values) == sorted(values)
    assert _in_order([]) == []
