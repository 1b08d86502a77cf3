from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway import values
from gateway.errors import ConfigError
from gateway.values import Kind


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (values.text, "a", "a"),
        (values.whole(1), 3, 3),
        (values.flag, False, False),
        (values.seconds, 30, 30.0),
        (values.seconds, 0.5, 0.5),
        (values.seconds, "500ms", 0.5),
        (values.seconds, "5m", 300.0),
        (values.seconds, "2 h", 7200.0),
        (values.size, 1024, 1024),
        (values.size, "32MiB", 32 * 1024**2),
        (values.choice("a", "b"), "b", "b"),
        (values.texts, ["a", "b"], ("a", "b")),
        (values.texts, "a,b", ("a,b",)),
        (values.paths, ["a"], (Path("a"),)),
        (values.file, "a/b", Path("a/b")),
        (values.directory, "a/b", Path("a/b")),
        (values.table, {"a": "b"}, {"a": "b"}),
        (values.variables, {"a": 1, "b": True}, {"a": "1", "b": "true"}),
        (values.devices, "auto", "auto"),
        (values.devices, "2xL4:24GiB", "2xL4:24GiB"),
        (values.devices, [{"id": "a", "memory": "1GiB"}], ({"id": "a", "memory": "1GiB"},)),
        (values.gpus, 2, 2),
        (values.gpus, [0, "GPU-a"], ("0", "GPU-a")),
        (values.gpus, [[0], [1]], (("0",), ("1",))),
        (values.gpu_memory, "20GiB", "20GiB"),
        (values.gpu_memory, "50%", "50%"),
    ],
)
def test_what_a_file_says_becomes_a_value(kind: Kind, value: Any, expected: Any) -> None:
    assert kind(value, False) == expected


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (values.whole(0), "8", 8),
        (values.flag, "Yes", True),
        (values.flag, "0", False),
        (values.seconds, "30", 30.0),
        (values.size, "1024", 1024),
        (values.texts, "a, b", ("a", "b")),
        (values.paths, "a,b", (Path("a"), Path("b"))),
    ],
)
def test_a_text_from_outside_may_be_a_number_a_flag_or_a_list(kind: Kind, value: str, expected: Any) -> None:
    assert kind(value, True) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (values.text, ""),
        (values.text, 1),
        (values.whole(1), 0),
        (values.whole(0), True),
        (values.whole(0), "8"),
        (values.whole(0, 5), 6),
        (values.flag, "true"),
        (values.flag, 1),
        (values.seconds, "30"),
        (values.seconds, -1),
        (values.seconds, float("nan")),
        (values.seconds, float("inf")),
        (values.seconds, True),
        (values.size, "32"),
        (values.size, True),
        (values.size, -1),
        (values.choice("a", "b"), "c"),
        (values.choice("a", "b"), ["a"]),
        (values.texts, [1]),
        (values.file, ""),
        (values.directory, ""),
        (values.table, {"a": 1}),
        (values.variables, {"a": {}}),
        (values.anything, []),
        (values.devices, "some"),
        (values.devices, [{"id": "a"}]),
        (values.devices, 3),
        (values.gpus, True),
        (values.gpus, []),
        (values.gpus, [[0], [1, 2]]),
        (values.gpus, [[]]),
        (values.gpus, [0.5]),
        (values.gpu_memory, "0%"),
        (values.gpu_memory, "half"),
        (values.gpu_memory, 20),
    ],
)
def test_what_makes_no_sense_is_refused(kind: Kind, value: Any) -> None:
    with pytest.raises((ValueError, ConfigError)):
        kind(value, False)
