"""Who is at the other end of the admin socket, read from a table of processes that is played."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.system import socket_peers


def play(proc: Path, parents: dict[str, str]) -> None:
    for process, parent in {**parents, "self": "0"}.items():
        (proc / process).mkdir()
        (proc / process / "status").write_text(f"PPid:\t{parent}\nNoNewPrivs:\t0\n")


@pytest.mark.parametrize("count, is_ours", [(9, False), (10, True), (50, True)])
def test_who_has_more_ancestors_than_are_looked_at_is_no_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, is_ours: bool
) -> None:
    monkeypatch.setattr(socket_peers, "PROC", tmp_path)
    monkeypatch.setattr(socket_peers, "MAX_DEPTH", 10)
    others = [number for number in range(1, count + 2) if number != os.getpid()]
    play(tmp_path, {str(number): str(number - 1) for number in others})
    assert socket_peers._is_ours(str(others[-1])) is is_ours


def test_what_binds_a_strict_model_is_told_without_its_ancestors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may be very many, and are read each time that it connects."""
    monkeypatch.setattr(socket_peers, "PROC", tmp_path)
    play(tmp_path, {"7": "6"})  # and of 6 nothing can be read
    (tmp_path / "7" / "status").write_text("PPid:\t6\nNoNewPrivs:\t1\n")
    assert socket_peers._is_ours("7")
    (tmp_path / "self" / "status").write_text("PPid:\t0\nNoNewPrivs:\t1\n")
    for process, network in (("7", "net:[2]"), ("self", "net:[1]")):
        (tmp_path / process / "ns").mkdir()
        (tmp_path / process / "ns" / "net").symlink_to(network)
    assert socket_peers._is_ours("7")
