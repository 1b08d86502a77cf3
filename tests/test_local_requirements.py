"""Lines of requirements, however long and odd they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import local_requirements, requirements
from gateway.distributions import required


@pytest.mark.parametrize(
    "line", ["a{}", "a[{}", "-r{}", "a{}@ x", "a @ ./x{}y", "./x[{}", "git+https://h/{}", "a ; {}"]
)
@pytest.mark.parametrize("run", [" ", "\t", "[", "(", "/", "://", "@", "--", "\xa0", "a["])
def test_a_line_is_read_in_a_time_that_grows_with_its_length(line: str, run: str, tmp_path: Path) -> None:
    """Four times the length took sixteen times as long, and a line of a megabyte an hour: here it would never end."""
    text = line.format(run * (300_000 // len(run)))
    local_requirements.local(text, tmp_path, tmp_path, {})
    local_requirements.is_of_an_index(text[:50_000])
    required("torch", [text])


def test_a_marker_that_nobody_could_read_is_an_odd_requirement(tmp_path: Path) -> None:
    line = "a ; " + "(" * 5000
    assert not local_requirements.is_of_an_index(line)
    assert requirements._parse(line) == "it is nested too deeply"
