from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.settings import kinds
from gateway.settings.kinds import Kind


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (kinds.text, "a", "a"),
        (kinds.whole(1), 3, 3),
        (kinds.flag, False, False),
        (kinds.seconds, 30, 30.0),
        (kinds.seconds, 0.5, 0.5),
        (kinds.seconds, "500ms", 0.5),
        (kinds.seconds, "5m", 300.0),
        (kinds.seconds, "2 h", 7200.0),
        (kinds.size, 1024, 1024),
        (kinds.size, "32MiB", 32 * 1024**2),
        (kinds.choice("a", "b"), "b", "b"),
        (kinds.texts, ["a", "b"], ("a", "b")),
        (kinds.texts, "a,b", ("a,b",)),
        (kinds.paths, ["a"], (Path("a"),)),
        (kinds.file, "a/b", Path("a/b")),
        (kinds.directory, "a/b", Path("a/b")),
        (kinds.table, {"a": "b"}, {"a": "b"}),
        (kinds.variables, {"a": 1, "b": True}, {"a": "1", "b": "true"}),
        (kinds.devices, "auto", "auto"),
        (kinds.devices, "2xL4:24GiB", "2xL4:24GiB"),
        (kinds.devices, [{"id": "a", "memory": "1GiB"}], ({"id": "a", "memory": "1GiB"},)),
        (kinds.gpus, 2, 2),
        (kinds.gpus, [0, "GPU-a"], ("0", "GPU-a")),
        (kinds.gpus, [[0], [1]], (("0",), ("1",))),
        (kinds.gpu_memory, "20GiB", "20GiB"),
        (kinds.gpu_memory, "50%", "50%"),
    ],
)
def test_what_a_file_says_becomes_a_value(kind: Kind, value: Any, expected: Any) -> None:
    assert kind(value, False) == expected


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (kinds.whole(0), "8", 8),
        (kinds.flag, "Yes", True),
        (kinds.flag, "0", False),
        (kinds.seconds, "30", 30.0),
        (kinds.size, "1024", 1024),
        (kinds.texts, "a, b", ("a", "b")),
        (kinds.paths, "a,b", (Path("a"), Path("b"))),
    ],
)
def test_a_text_from_outside_may_be_a_number_a_flag_or_a_list(kind: Kind, value: str, expected: Any) -> None:
    assert kind(value, True) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (kinds.text, ""),
        (kinds.text, 1),
        (kinds.whole(1), 0),
        (kinds.whole(0), True),
        (kinds.whole(0), "8"),
        (kinds.whole(0, 5), 6),
        (kinds.flag, "true"),
        (kinds.flag, 1),
        (kinds.seconds, "30"),
        (kinds.seconds, -1),
        (kinds.seconds, float("nan")),
        (kinds.seconds, float("inf")),
        (kinds.seconds, True),
        (kinds.size, "32"),
        (kinds.size, True),
        (kinds.size, -1),
        (kinds.choice("a", "b"), "c"),
        (kinds.choice("a", "b"), ["a"]),
        (kinds.texts, [1]),
        (kinds.file, ""),
        (kinds.directory, ""),
        (kinds.table, {"a": 1}),
        (kinds.variables, {"a": {}}),
        (kinds.anything, []),
        (kinds.devices, "some"),
        (kinds.devices, [{"id": "a"}]),
        (kinds.devices, 3),
        (kinds.gpus, True),
        (kinds.gpus, []),
        (kinds.gpus, [[0], [1, 2]]),
        (kinds.gpus, [[]]),
        (kinds.gpus, [0.5]),
        (kinds.gpu_memory, "0%"),
        (kinds.gpu_memory, "half"),
        (kinds.gpu_memory, 20),
    ],
)
def test_what_makes_no_sense_is_refused(kind: Kind, value: Any) -> None:
    with pytest.raises((ValueError, ConfigError)):
        kind(value, False)
