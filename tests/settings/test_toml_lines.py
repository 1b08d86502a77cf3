from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.settings.toml_lines import key_lines, line_of

TEXT = """\
# settings
top = 1

[gateway]           # the process
port = 8000
"quoted key" = 1
aliases.a = "b"
list = [
  "a=b",
  { id = "x" },
]
[gateway.placement]
headroom = "1GiB"
[[gateway.placement.devices]]
id = "a"
[[gateway.placement.devices]]
id = "b"
[models."team/llama-3.1"]
slots = 2
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("top",), 2),
        (("gateway",), 4),
        (("gateway", "port"), 5),
        (("gateway", "quoted key"), 6),
        (("gateway", "aliases", "a"), 7),
        (("gateway", "list"), 8),
        (("gateway", "placement", "headroom"), 13),
        (("gateway", "placement", "devices", "1", "id"), 17),
        (("models", "team/llama-3.1", "slots"), 19),
        (("gateway", "aliases", "a", "deeper"), 7),
        (("nothing",), None),
    ],
)
def test_a_key_is_found_on_its_line_or_its_tables(key: tuple[str, ...], line: int | None) -> None:
    assert line_of(key_lines(TEXT), key) == line


@given(st.text(alphabet="ab.=\"'[]{}#\\ \n1", max_size=60))
@example("[#]")
def test_any_text_is_scanned_and_lines_are_lines_of_it(text: str) -> None:
    lines = key_lines(text)
    assert all(1 <= line <= len(text.splitlines()) for line in lines.values())


NAMES = st.text(alphabet="ab_-", min_size=1, max_size=3)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers(0, 9), max_size=3), max_size=3))
def test_every_key_of_a_plain_file_is_found(tables: dict[str, dict[str, Any]]) -> None:
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in table.items()) for name, table in tables.items()
    )
    assert tomllib.loads(text) == tables
    lines, written = key_lines(text), text.splitlines()
    for name, table in tables.items():
        assert written[lines[(name,)] - 1] == f"[{name}]"
        for key, value in table.items():
            assert written[lines[(name, key)] - 1] == f"{key} = {value}"
