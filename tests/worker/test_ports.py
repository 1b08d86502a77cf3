"""Which ports a model's servers hold, and that a load took another's server for its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.spec import ModelSpec
from gateway.worker.loading.ports import Asked, advice, foreign, listening

SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def child(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server in a process of its own, with a group of its own."""
    command = [sys.executable, "-c", SERVER, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def test_the_ports_of_a_process_are_those_of_its_children_too(child: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        found = listening(os.getpid())
        assert {child, listener.getsockname()[1]} <= found
        assert client.getsockname()[1] not in found
    assert listener.fileno() == -1 and child in listening(os.getpid())


def test_the_ports_of_others_are_not(child: int) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as other:
        assert child not in listening(other.pid)
        other.kill()


def test_a_connection_to_one_of_the_ports_on_this_machine_is_heard_until_the_end(child: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = listener.getsockname()
        asked = Asked([child])
        socket.create_connection(other).close()
        assert asked.found == set()
        socket.create_connection(("localhost", child)).close()
        assert asked.found == {child}

        late = Asked([other[1]])
        late.end()
        socket.create_connection(other).close()
        assert late.found == set()


def spec(root: Path, **variables: str) -> ModelSpec:
    return ModelSpec(name="m", target="model:Model", root=root, environment=variables)


@pytest.mark.parametrize(
    ("asked", "own", "text", "expected"),
    [
        ([18499], [], "", 18499),  # it asked, and what answered is not its own
        ([18499], [18499], "", None),  # its own listens there too
        ([], [], "x = 1", None),  # new code that has no server any more
        ([], [], "URL = 'http://127.0.0.1:18499/health'", 18499),  # asked by means that cannot be heard
        ([], [], "x = 118499 + 18499.5", None),
    ],
)
def test_a_port_is_foreign_when_the_load_asks_it_and_does_not_hold_it(
    tmp_path: Path, asked: list[int], own: list[int], text: str, expected: int | None
) -> None:
    (tmp_path / "model.py").write_text(text)
    assert foreign(spec(tmp_path), [18499], asked, own) == expected


def test_a_port_is_found_in_a_model_below_a_hidden_directory_and_not_in_its_own_hidden_ones(tmp_path: Path) -> None:
    root = tmp_path / ".models" / "m"
    (root / ".git").mkdir(parents=True)
    (root / ".git" / "old.py").write_text("PORT = 18498")
    (root / "model.py").write_text("PORT = 18499")
    (root / "gone.py").symlink_to("nowhere.py")
    assert foreign(spec(root), [18498, 18499], [], []) == 18499


def test_a_port_may_be_written_in_the_environment(tmp_path: Path) -> None:
    assert foreign(spec(tmp_path, MY_PORT="18499"), [18499], [], []) == 18499
    assert foreign(spec(tmp_path, MY_PORT="18499"), [], [], []) is None


@pytest.mark.parametrize(("name", "table"), [("m", "[models.m]"), ("team/llama-3.1", '[models."team/llama-3.1"]')])
def test_the_advice_names_the_table(name: str, table: str) -> None:
    assert f'reload = "replace" in {table}' in advice(name, 1)
