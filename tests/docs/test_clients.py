"""The page on clients says which versions are really tested, and where."""

from __future__ import annotations

from pages import ROOT, codes, table

CLIENTS = ROOT / "tests" / "clients"
OURS = {"pytest", "pytest-timeout", "mcp"}  # no clients: what runs them, and what one of them needs


def test_every_client_is_in_the_table_with_its_version() -> None:
    pinned: dict[tuple[str, str], list[str]] = {}
    for name in ("openai2", "openai3"):
        wanted, _, _ = (CLIENTS / f"{name}.txt").read_text().partition("\n\n")  # behind it comes what these bring along
        for line in wanted.splitlines()[1:]:
            client, _, version = line.partition("#")[0].strip().partition("==")
            if client not in OURS:
                pinned.setdefault((client, version), []).append(name)
    rows = {
        (codes(client)[0], version): codes(where) or ["openai2", "openai3"]
        for client, version, where, _ in table(ROOT / "docs" / "clients.md", "What is tested")
    }
    assert rows == pinned
