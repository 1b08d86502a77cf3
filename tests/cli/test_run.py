"""`gateway run` is a model in a terminal: its code can ask and be stopped and looked at; the terminal is as before."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import command as in_process
from confining import why_not

MODEL = """
import json, sys

def helper(text):
    marker = "of the model"
    return json.loads(text)

class Model:
    def preprocess(self, x):
        print("preprocessed")
        return x
    def predict(self, x):
        if x == "stop":
            breakpoint()
            return "went on"
        if x == "ask":
            return {"hello": input("your name? ")}
        if x == "fail":
            return helper("not json")
        if x == "die":
            import os; os._exit(3)
        if x == "bytes":
            return b"\\x00\\xff"
        return {"got": x}
    async def chat_completions(self, x):
        for word in ("one ", "two"):
            yield word
    def embeddings(self, x):
        yield {"a": 1}
        yield {"b": x}
"""
BROKEN = "class Model:\n    def load(self):\n        secret = 'in load'\n        raise ImportError('no weights')\n"
BROKEN += "    def predict(self, x): return x\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, text in (("m", MODEL), ("broken", BROKEN)):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.py").write_text(text)
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", "run", *arguments]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | {"TERM": "dumb"}


def run(place: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        command(*arguments), cwd=place, env=environment(), input=typed.encode(), capture_output=True, timeout=60
    )
    assert b"Traceback" not in done.stdout
    return done


class Screen:
    """A terminal with the command in it."""

    def __init__(self, place: Path, *arguments: str) -> None:
        self.fd, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self.seen = ""
        self._theirs = theirs
        self.process = subprocess.Popen(
            command(*arguments), cwd=place, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
        )

    def until(self, text: str) -> str:
        """What it shows up to this, from where the last look ended."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            assert select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))[0], self.seen
            self.seen += os.read(self.fd, 65536).decode("utf-8", "replace")
        found, _, self.seen = self.seen.partition(text)
        return found

    def type(self, line: str) -> None:
        os.write(self.fd, line.encode() + b"\n")

    @property
    def attributes(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._theirs)
        os.close(self.fd)


@contextlib.contextmanager
def screen(place: Path, *arguments: str) -> Iterator[Screen]:
    found = Screen(place, *arguments)
    try:
        yield found
    finally:
        found.close()


# ── with a terminal ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sandbox", ["basic", "strict"])
def test_a_breakpoint_stops_in_the_terminal_and_the_call_goes_on_from_there(place: Path, sandbox: str) -> None:
    (place / "gateway.toml").write_text(f'[models.m]\nsandbox = "{sandbox}"\n')
    with screen(place, "m", "--data", '"stop"') as shown:
        if sandbox == "strict" and why_not():
            shown.until('sandbox = "strict" is not available')
            assert shown.process.wait(30) == 1
            return
        shown.until("(Pdb) ")
        shown.type("p x * 2")
        shown.until("'stopstop'")
        if sandbox == "strict":  # the terminal of others to read is no file that it may open to all
            shown.until("(Pdb) ")
            shown.type("p __import__('os').fchmod(0, 0o666)")
            shown.until("Read-only file system")
        shown.until("(Pdb) ")
        shown.type("c")
        shown.until("went on")
        assert shown.process.wait(30) == 0
        assert shown.attributes == shown.before


def test_input_asks_in_the_terminal(place: Path) -> None:
    with screen(place, "m", "--data", '"ask"') as shown:
        shown.until("your name? ")
        shown.type("Ada")
        shown.until('{"hello": "Ada"}')
        assert shown.process.wait(30) == 0


def test_a_model_in_a_terminal_without_data_answers_line_after_line(place: Path) -> None:
    with screen(place, "m") as shown:
        shown.until("Ctrl-D ends it")
        shown.type("[1]")
        shown.until('{"got": [1]}')
        shown.type('"stop"')
        shown.until("(Pdb) ")
        shown.type("c")
        shown.until("went on")
        os.write(shown.fd, b"\x04")
        assert shown.process.wait(30) == 0


def test_ctrl_c_at_the_prompt_of_a_debugger_ends_all_of_it_and_the_terminal_is_as_before(place: Path) -> None:
    with screen(place, "m", "--data", '"stop"') as shown:
        shown.until("(Pdb) ")
        shown.type("import os; print('worker', os.getpid(), 'it is')")
        shown.until("worker ")
        pid = int(shown.until(" it is"))
        shown.until("(Pdb) ")
        shown.process.send_signal(2)
        assert shown.process.wait(30) == 130
        assert not Path(f"/proc/{pid}").exists()
        assert shown.attributes == shown.before


@pytest.mark.parametrize(
    ("model", "variable", "value"), [("m", "marker", "'of the model'"), ("broken", "secret", "'in load'")]
)
def test_with_pdb_what_raises_is_looked_at_where_the_model_raised_it(
    place: Path, model: str, variable: str, value: str
) -> None:
    with screen(place, model, "--pdb", "--data", '"fail"') as shown:
        shown.until("(Pdb) ")
        shown.type(f"p {variable}")
        shown.until(value)
        shown.until("(Pdb) ")
        shown.type("q")
        shown.until("Error: ")
        assert shown.process.wait(30) == 1


# ── without one ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_answers_are_on_stdout_alone_in_the_form_that_they_have(place: Path) -> None:
    (place / "x.json").write_text('{"a": "ä"}')
    for arguments, answer in (
        (("--data", "@x.json"), b'{"got": {"a": "\\u00e4"}}\n'),
        (("--data", '"bytes"'), b"\x00\xff"),
        (("--method", "chat_completions", "--data", "{}"), b"one two\n"),
        (("--method", "embeddings", "--data", "[1]"), b'{"a": 1}\n{"b": [1]}\n'),
    ):
        done = run(place, "m", *arguments)
        assert (done.returncode, done.stdout) == (0, answer), done.stderr
    assert b"preprocessed" not in done.stdout


def test_commands_for_the_debugger_may_come_from_a_pipe(place: Path) -> None:
    done = run(place, "m", "--data", '"stop"', typed="p x + '!'\nc\n")
    assert (done.returncode, done.stdout) == (0, b'"went on"\n')
    assert b"'stop!'" in done.stderr and b"preprocessed" in done.stderr


def test_without_data_each_line_of_a_pipe_is_a_call_and_one_that_fails_counts(place: Path) -> None:
    done = run(place, "m", typed='[1]\n\n"fail"\nno json\n[2]')
    assert done.returncode == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"got": [1]}, {"got": [2]}]
    assert b"JSONDecodeError" in done.stderr and b"not valid JSON" in done.stderr
    assert run(place, "m", typed="[1]\n").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("broken", "--data", "1"), 1, "ImportError: no weights"),
        (("m", "--data", '"die"'), 1, "exited with status 3"),
        (("m", "--data", "1", "--method", "rerank"), 1, "has no method 'rerank' (have: "),
    ],
)
def test_what_goes_wrong_is_a_line_and_a_status(
    place: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = run(place, *arguments)
    assert done.returncode == status, done.stderr
    assert said in done.stderr.decode()
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("nobody", "--data", "1"), 1, "no model named 'nobody' (have: broken, m)"),
        (("m", "--data", "{"), 2, "--data is not JSON"),
        (("m", "--data", "@none.json"), 2, "No such file"),
        (("m", "--pdb"), 2, "--pdb needs --data"),
    ],
)
def test_what_is_wrong_before_a_worker_starts_is_told_alike(
    place: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = in_process(place, "run", *arguments)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert said in done.stderr
