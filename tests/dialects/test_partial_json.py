from __future__ import annotations

import json
import time
from typing import Any

import jiter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.partial_json import begun_object

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), values, max_size=4), st.booleans(), st.sampled_from([None, 2]), st.data())
def test_an_object_is_read_as_far_as_it_came_like_anthropics_sdk_reads_it(
    value: dict[str, Any], ascii: bool, indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    cut = text[: data.draw(st.integers(1, len(text)))]
    assert begun_object(cut) == jiter.from_json(cut.encode(), partial_mode=True)


@pytest.mark.parametrize(
    "text", ["", "no", "[1", '"a', "5", '{"a" 1', '{"a": 1 2', '{"a": 1}}', '{"a": 1} no', "{]", "{no", '{"a":' * 9999]
)
def test_what_is_no_beginning_of_an_object_is_none(text: str) -> None:
    assert begun_object(text) is None


@pytest.mark.parametrize(
    ("head", "unit", "tail"),
    [('{"a":[', "1,", ""), ('{"a":', '{"a":', ""), ('{"a":', "[", ""), ('{"a":"', "a", ""), ('{"a":"', '\\"', "")],
)
def test_what_a_model_began_is_read_in_a_time_that_grows_with_its_length(head: str, unit: str, tail: str) -> None:
    """By the square of the length, it would take minutes."""
    text = head + unit * (1_000_000 // len(unit)) + tail
    before = time.process_time()
    begun_object(text)
    assert time.process_time() - before < 5


def test_an_object_of_very_many_values_is_not_read_and_one_of_a_long_text_is() -> None:
    assert begun_object('{"a":[' + "1," * 30_000) == {"a": [1] * 30_000}
    assert begun_object('{"a":[' + "1," * 40_000) is None
    assert begun_object('{"a":"' + "1," * 1_000_000 + '","b') == {"a": "1," * 1_000_000}
