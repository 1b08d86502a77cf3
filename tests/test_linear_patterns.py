from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.linear_patterns import linear

ATOMS = st.sampled_from(r"a b \n . [ab] [^a] \d \D \w \W \s \S ^ - [a-c\d_] [^\s]".split())
REPEATED = st.sampled_from("* + ? {2} {1,3} {0,2} *? +? {2,}".split())


def larger(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(parts, max_size=4).map("".join),
        st.tuples(parts, REPEATED).map(lambda both: "(?:{}){}".format(*both)),
        st.lists(parts, min_size=1, max_size=3).map(lambda each: f"({'|'.join(each)})"),
    )


@given(st.recursive(ATOMS, larger, max_leaves=8), st.text("abc1 _-\n\r", max_size=8))
def test_a_pattern_finds_what_pythons_finds(pattern: str, text: str) -> None:
    assert linear(pattern)(text) == (re.search(pattern, text) is not None)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(?=a)b", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        ("(", "unclosed group"),
        ("(a{1000}){1000}", "exceeds size limit"),
    ],
)
def test_what_has_no_bound_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        linear(pattern)
