"""The protections that `mutations` takes away are where it looks for them: a row that finds nothing tests nothing."""

from __future__ import annotations

from mutations import MUTATIONS, ROOT


def test_every_mutation_finds_its_one_place() -> None:
    found = {mutation: (ROOT / "gateway" / mutation.file).read_text().count(mutation.old) for mutation in MUTATIONS}
    assert [mutation for mutation, count in found.items() if count != 1] == []


def test_every_mutation_names_a_test_that_is_there() -> None:
    for mutation in MUTATIONS:
        file, _, name = mutation.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / file).read_text(), mutation.test
