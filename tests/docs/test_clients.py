"""The page on clients says which versions are really tested, and where."""

from __future__ import annotations

import json

from pages import ROOT, codes, table

CLIENTS = ROOT / "tests" / "clients"
OURS = {"pytest", "pytest-timeout", "mcp"}  # no clients: what runs them, and what one of them needs


def test_every_client_is_in_the_table_with_its_version() -> None:
    pinned: dict[tuple[str, str], list[str]] = {}
    for path in sorted(CLIENTS.glob("*.txt")):
        wanted, _, _ = path.read_text().partition("\n\n")  # behind it comes what these bring along
        for line in wanted.splitlines()[1:]:
            client, _, version = line.partition("#")[0].strip().partition("==")
            if client not in OURS:
                pinned.setdefault((client, version), []).append(path.stem)
    for path in sorted(CLIENTS.glob("node/*/package.json")):
        for client, version in json.loads(path.read_text())["dependencies"].items():
            pinned.setdefault((client, version), []).append(path.parent.name)
    rows = {
        (codes(client)[0], version): sorted(codes(where))
        for client, version, where, _ in table(ROOT / "docs" / "clients.md", "Tested clients")
    }
    assert rows == pinned


def test_versions_for_node_are_exact_and_nothing_names_where_they_come_from() -> None:
    for path in CLIENTS.glob("node/*/package.json"):
        for client, version in json.loads(path.read_text())["dependencies"].items():
            assert version[0].isdigit() and version.replace(".", "").isdigit(), f"{path}: {client} {version}"
    assert not [*CLIENTS.rglob("package-lock.json"), *CLIENTS.rglob(".npmrc")]


def test_every_environment_has_tests_and_every_test_file_an_environment() -> None:
    from tests.clients.__main__ import ENVIRONMENTS

    made = {path.stem for path in CLIENTS.glob("*.txt")} | {path.parent.name for path in CLIENTS.glob("node/*/*.json")}
    assert made == set(ENVIRONMENTS)
    files = {path.stem.removeprefix("test_") for path in CLIENTS.glob("test_*.py")}
    assert files == {file for listed in ENVIRONMENTS.values() for file in listed}
