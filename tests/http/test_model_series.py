"""What models register: merged and labelled, or left out with a reason; no model breaks the scrape of all."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import PATIENT
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway.http.model_series import MAX_LINE, MAX_LINES, merge


class Collected:
    def __init__(self, families: list[Any]) -> None:
        self.families = families

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> list[Any]:
        return self.families


def written(families: list[Any]) -> bytes:
    registry = CollectorRegistry()
    registry.register(Collected(families))
    generate_openmetrics(registry)
    text: bytes = generate_latest(registry)
    list(text_string_to_metric_families(text.decode()))
    return text


def test_series_of_several_models_are_one_family() -> None:
    text = b"# TYPE calls_total counter\ncalls_total 1\n"
    families, left_out = merge([({"model": "a"}, text), ({"model": "b", "replica": "1"}, text)])
    assert left_out == []
    (family,) = families
    assert [(sample.name, sample.labels) for sample in family.samples] == [
        ("calls_total", {"model": "a"}),
        ("calls_total", {"model": "b", "replica": "1"}),
    ]


def test_names_that_are_ours_stay_ours() -> None:
    families, _ = merge([({"model": "a"}, b"gateway_requests_total 5\nvllm:x 1\npython_info 1\nprocess_x 1\nown 1\n")])
    assert [family.name for family in families] == ["own"]
    families, _ = merge([({"model": "a"}, b'own{model="b"} 1\n')])
    assert families[0].samples[0].labels == {"model": "a"}


@pytest.mark.parametrize(
    "text",
    [
        b"a 1\n" * (MAX_LINES + 1),
        b"\n" * (MAX_LINES + 1),
        b'a{b="' + b"x" * MAX_LINE + b'"} 1\n',
        b"a " + b"9" * 4000 + b"\n",
        b"a{b=",
        b"a",
        b'a{"b c"="1"} 1\n',
        b'{"a b"} 1\n',
        b"# TYPE a histogram\n# TYPE a counter\na 1\n# TYPE\n",
        b"\xff\xfe\n",
    ],
    ids=range(10),
)
def test_what_is_too_much_or_no_such_text_is_left_out_and_said(text: bytes) -> None:
    families, left_out = merge([({"model": "bad"}, text), ({"model": "good"}, b"fine 1\n")])
    assert [family.name for family in families] == ["fine"]
    assert all(reason.startswith("bad: ") and len(reason) <= 512 for reason in left_out) and left_out
    written(families)


def test_a_metric_that_another_model_has_as_something_else_is_left_out() -> None:
    gauge, histogram = b"# TYPE x gauge\nx 1\n", b'# TYPE x histogram\nx_bucket{le="1"} 1\n'
    families, left_out = merge([({"model": "a"}, gauge), ({"model": "b"}, histogram)])
    assert [sample.labels["model"] for family in families for sample in family.samples] == ["a"]
    assert left_out == ["b: its metric 'x' is left out: it is a gauge of another model"]


@pytest.mark.parametrize("stamp", ["inf", "nan", "1e300", "5"])
def test_a_time_that_a_model_makes_up_is_not_written(stamp: str) -> None:
    families, left_out = merge([({"model": "m"}, f"a 1 {stamp}\n".encode())])
    assert not left_out
    assert b'a{model="m"} 1.0\n' in written(families)


NAMES = ["a", "a_total", "b_bucket", "# TYPE a counter", "# TYPE b histogram", "# HELP a", "é", ""]
LABELS = ["", "{}", '{x="1"}', '{le="1"}', '{x="\\"}', "{", '{x="\\n"}', '{"x y"="1"}']
lines = st.builds(
    lambda name, label, value, stamp: f"{name}{label} {value}{stamp}\n",
    st.sampled_from(NAMES),
    st.sampled_from(LABELS) | st.text(max_size=8),
    st.sampled_from(["1", "nan", "-inf", "1e999", "9" * 400, "", "x"]),
    st.sampled_from(["", " inf", " nan", " 5", " 1e300", ' # {x="1"} 1']),
)


@PATIENT
@given(st.lists(lines, max_size=8).map("".join))
def test_whatever_a_model_says_the_scrape_can_be_written_and_read(text: str) -> None:
    families, _ = merge([({"model": "m"}, text.encode("utf-8", "replace")), ({"model": "good"}, b"fine 1\n")])
    assert b'fine{model="good"} 1.0' in written(families)
