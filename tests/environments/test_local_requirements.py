"""Lines of requirements, however long and odd they are."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.directories.code import requirements
from gateway.environments import local_requirements
from gateway.environments.distributions import required


@pytest.mark.parametrize(
    "line", ["a{}", "a[{}", "-r{}", "a{}@ x", "a @ ./x{}y", "./x[{}", "git+https://h/{}", "a ; {}"]
)
@pytest.mark.parametrize("run", [" ", "\t", "[", "(", "/", "://", "@", "--", "\xa0", "a["])
def test_a_line_is_read_in_a_time_that_grows_with_its_length(line: str, run: str, tmp_path: Path) -> None:
    """By the square of the length, the least of them would take ten times as long."""
    text = line.format(run * (32_768 // len(run)))
    before = time.process_time()
    local_requirements.local(text, tmp_path, tmp_path, {})
    local_requirements.is_of_an_index(text)
    required("torch", [text])
    assert time.process_time() - before < 0.5


def test_a_marker_that_nobody_could_read_is_an_odd_requirement(tmp_path: Path) -> None:
    line = "a ; " + "(" * 5000
    assert not local_requirements.is_of_an_index(line)
    assert requirements._parse(line) == "it is nested too deeply"
