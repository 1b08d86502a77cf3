"""Every row of the page of threats names tests, and they exist."""

from __future__ import annotations

import re
import sys

from pages import ROOT

sys.path.insert(0, str(ROOT / "tests" / "security"))

from mutations import MUTATIONS

PAGE = ROOT / "docs" / "security-tests.md"
ROWS = re.findall(r"^\| (T\d+) [^|]*\|[^|]*\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)


def test_every_threat_has_a_row_and_each_row_a_mutation() -> None:
    names = [name for name, _ in ROWS]
    assert len(names) == len(set(names)) and {f"T{number}" for number in range(1, 35)} <= set(names)
    assert set(names) == {mutation.row for mutation in MUTATIONS}


def test_every_mutation_has_its_one_place() -> None:
    """Or nobody would learn that a protection is not looked at any more until the run of all of them."""
    for mutation in MUTATIONS:
        found = (ROOT / "gateway" / mutation.file).read_text().count(mutation.old)
        assert found == 1, f"{mutation.row}: {found} places of {mutation.old!r} in {mutation.file}"


def test_every_test_that_is_named_exists() -> None:
    tests: set[str] = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE):
            tests.add(f"{file.name}::{name}")
    for name, cell in ROWS:
        named = re.findall(r"`([^`]+)`", cell)
        assert named, name
        assert set(named) <= tests, f"{name}: {set(named) - tests}"
