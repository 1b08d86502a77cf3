"""What models register: merged and labelled, or left out with a reason; no model breaks the scrape of all."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import PATIENT
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strictly_read
from prometheus_client.parser import text_string_to_metric_families

from gateway.http.metrics.series import MAX_LINE, MAX_LINES, merge


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
    list(strictly_read(generate_openmetrics(registry, escaping="allow-utf-8").decode()))
    text: bytes = generate_latest(registry)
    list(text_string_to_metric_families(text.decode()))
    return text


def test_series_of_several_models_are_one_family() -> None:
    text = b"# TYPE calls_total counter\ncalls_total 1\n"
    families, left_out = merge([({"model": "a"}, text), ({"model": "b", "replica": "1"}, text)])
    assert left_out == {}
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
    assert left_out[0].startswith("bad: ") and len(left_out[0]) <= 512 and list(left_out) == [0]
    written(families)


def test_a_metric_that_another_model_has_as_something_else_is_left_out() -> None:
    gauge, histogram = b"# TYPE x gauge\nx 1\n", b'# TYPE x histogram\nx_bucket{le="1"} 1\n'
    families, left_out = merge([({"model": "a"}, gauge), ({"model": "b"}, histogram)])
    assert [sample.labels["model"] for family in families for sample in family.samples] == ["a"]
    assert left_out == {
        1: "b: 1 metric of this replica left out of /metrics: 'x': it is of type gauge in another model"
    }


@pytest.mark.parametrize("stamp", ["inf", "nan", "1e300", "5"])
def test_a_time_that_a_model_makes_up_is_not_written(stamp: str) -> None:
    families, left_out = merge([({"model": "m"}, f"a 1 {stamp}\n".encode())])
    assert not left_out
    assert b'a{model="m"} 1.0\n' in written(families)


NAMES = ["a", "a_total", "b", "b_sum", "b_bucket", "# TYPE a counter", "# TYPE b histogram", "# HELP a", "é", ""]
TEXTS = [
    '# HELP "ev il" doc\n# TYPE "ev il" gauge\n',
    '# TYPE "gateway.model_state" histogram\n',
    '# TYPE "a\\n# EOF\\n" gauge\n',
    "# TYPE gateway counter\ngateway_total 1\n",
    "# TYPE gateway summary\ngateway_count 1\n",
    "# TYPE foo counter\nfoo_total 1\n# TYPE foo_total gauge\n",
    "# TYPE foo counter\nfoo 1\n",
    "# TYPE foo_total counter\nfoo_total -1\n",
    "# TYPE foo counter\nfoo nan\n",
    "# TYPE foo_total gauge\nfoo_total 1\n",
    "# TYPE foo gauge\nfoo 1\n",
    "foo 1\n",
    "# TYPE foo_created gauge\nfoo_created 1\n",
    "# TYPE foo_count gauge\nfoo_count 1\n",
    "# TYPE foo_bucket gauge\n",
    '# TYPE foo histogram\nfoo_bucket{le="x"} 1\nfoo_count 1\n',
    '# TYPE foo histogram\nfoo_bucket{le="inf"} 1\nfoo_count 1\nfoo_sum 1\n',
    '# TYPE foo histogram\nfoo_bucket{le="2"} 3\nfoo_bucket{le="inf"} 1\n',
    '# TYPE foo histogram\nfoo_bucket{le="-1"} 1\nfoo_bucket{le="+Inf"} 1\nfoo_count 1\nfoo_sum 1\n',
    "# TYPE foo histogram\nfoo_bucket 1\n",
    '# TYPE foo summary\nfoo{quantile="x"} 1\n',
    '# TYPE foo summary\nfoo{quantile="0.5"} 1\nfoo_count 1\nfoo_sum 2\n',
    '# TYPE foo info\nfoo_info{a="b"} 1\n',
    '# TYPE foo stateset\nfoo{foo="a"} 1\n',
    "# TYPE foo info\nfoo 1\n",
    'foo{a="1"} 1\nfoo{a="2"} 1\nfoo{a="1"} 2\n',
    'foo{model="1"} 1\nfoo{model="2"} 1\n',
    '# TYPE b counter\nb_total{x="1"} 1\nb_total{x="2"} 1\nb_total{x="1"} 1\n',
    "# HELP foo a \0b\nfoo 1\n",
]


@pytest.mark.parametrize("first", TEXTS)
def test_whatever_two_models_register_a_strict_reader_reads_the_scrape(first: str) -> None:
    """One name that means two things has it refuse the metrics of all models, and of the gateway."""
    for second in TEXTS:
        texts = [({"model": "a"}, first.encode()), ({"model": "b"}, second.encode()), ({"model": "c"}, b"fine 1\n")]
        families, _ = merge(texts)
        assert b'fine{model="c"} 1.0' in written(families)
        assert not [family.name for family in families if family.name.startswith("gateway")]


def test_metrics_of_prometheus_clients_own_kinds_are_all_taken() -> None:
    registry = CollectorRegistry()
    Counter("calls", "Calls.", ["kind"], registry=registry).labels("a").inc()
    Histogram("seconds", "Seconds.", ["kind"], registry=registry).labels("a").observe(3)
    Summary("size", "Sizes.", registry=registry).observe(3)
    Gauge("level", "Level.", registry=registry).set(-1)
    Info("build", "Build.", registry=registry).info({"version": "1"})
    Enum("phase", "Phase.", states=["on", "off"], registry=registry).state("on")
    text = generate_latest(registry)
    assert b"calls_created" in text
    families, left_out = merge([({"model": "a"}, text), ({"model": "b"}, text)])
    assert left_out == {}
    names = {family.name for family in families}
    assert names == {"calls", "seconds", "size", "level", "build_info", "phase"}
    written(families)


def test_what_is_left_out_of_one_replica_is_one_line_with_its_number() -> None:
    families, left_out = merge([({"model": "m"}, "".join(f'f{n}{{"a b"="1"}} 1\n' for n in range(9000)).encode())])
    assert families == []
    assert list(left_out) == [0] and len(left_out[0]) < 512
    assert left_out[0].startswith(
        "m: 9000 metrics of this replica left out of /metrics: 'f0': a label whose name is none"
    )


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
