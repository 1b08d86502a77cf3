"""No text of a directory or a model reaches a terminal as anything but text, whatever the command."""

from __future__ import annotations

import ast
import json
import os
import pty
import select
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import gateway.cli as package
from gateway.cli import new, tables
from gateway.telemetry import printable

ODD = "\x1b]0;pwn\x07\x1b[31mX\u202e\x9b31m"
LONE = f"{ODD}\ud800"  # which JSON may contain, and no encoding
TEXT = json.dumps(LONE)
TRANSFORMER = "sentence_transformers.models.Transformer"
CLASS = "class Model:\n    def predict(self, x): return x\n"


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(values: dict[str, str]) -> bytes:
    """A file with these texts in its header and one tensor of a kind that does not exist."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(values))
    pairs = b"".join(text(name) + struct.pack("<I", 8) + text(value) for name, value in values.items())
    return head + pairs + text(ODD) + struct.pack("<IQIQ", 1, 1, 99, 0) + b"\0" * 64


def write(models: Path) -> None:
    """Directories with control characters in every place that a command may show."""
    names = {"__class__": ODD, "__module__": ODD, "__loader__": ODD, "content": None, "__id__": 1, "protocol": 2}
    files: dict[str, str | bytes] = {
        "config/config.yaml": f"model_name: {TEXT}\n{TEXT}: 1\nsecrets: {{{TEXT}: null}}\n"
        f"environment_variables: {{{TEXT}: {TEXT}}}\nrequirements: [{TEXT}]\nsystem_packages: [{TEXT}]\n"
        f"resources: {{accelerator: {TEXT}}}\n",
        "config/model/model.py": CLASS,
        "yaml/config.yaml": "model_name: !!python/object:x\x85\u202e y\n",
        "yaml2/config.yaml": f"model_class_name: {TEXT}\nexternal_package_dirs: [{TEXT}]\n",
        "yaml2/model/model.py": CLASS,
        "sums/model.py": CLASS,
        "sums/SHA256SUMS": "0" * 64 + "  x\x1b[31mfile\n",
        "syntax/model.py": CLASS + "x = '\x1b[31m' 'unterminated\n",
        "variables/model.py": CLASS + "import os\nos.environ['\\x1b[31mVAR\u202e']\n",
        "requirements/model.py": CLASS,
        "requirements/requirements.txt": "a\x1b[31mb==1\n-r \x1b[31m.txt\n",
        "bert/config.json": json.dumps({"architectures": [LONE], "model_type": LONE, "auto_map": {"AutoModel": LONE}}),
        "bert/model.safetensors": struct.pack("<Q", 2) + b"{}",
        f"gguf/m{ODD}.gguf": gguf({"general.architecture": ODD, "general.name": ODD, "tokenizer.ggml.model": ODD}),
        f"pickle/model{ODD}.pkl": b"\x80\x04cos\x1b[31m\nsystem\x1b]0;x\x07\n.",
        f"unknown{ODD}/weights.bin": b"",
        f"onnx/{ODD}.onnx": b"\x08\x07",
        "vectors/modules.json": "[]",
        "vectors/config_sentence_transformers.json": f'{{"default_prompt_name": {TEXT}}}',
        "modules/modules.json": f'[{{"idx": 0, "name": "0", "path": {TEXT}, "type": "{TRANSFORMER}"}}]',
        f"name{chr(0xDCFF)}/model.pkl": b"\x80\x04cos\nsystem\n.",  # as Python reads a name that is not UTF-8
        "modelfile/Modelfile": "FROM \x1b[31m./x\u202e\n",
    }
    for name, content in files.items():
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (models / "skops").mkdir()
    with zipfile.ZipFile(models / f"skops/model{ODD}.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps(names))
    (models / "link").mkdir()
    (models / "link/model.py").write_text(CLASS)
    (models / f"link/a{ODD}").symlink_to("/etc/hosts")


def odd(shown: str) -> str:
    """What is in it that a terminal would act on."""
    return "".join(char for char in shown.replace("\r\n", "\n") if printable.lines(char) != char)


COMMANDS = [
    *(["check"], ["check", "--json"], ["models"], ["models", "--json"], ["plan"], ["plan", "--json"], ["settings"]),
    *(["doctor"], ["doctor", "--security"], ["plugins"], ["check", f"models/link/{ODD}"]),
]
PROCESSES = [
    *(["models"], ["serve", "--port", "0", "--only", ODD]),
    *(["run", name] for name in ("skops", "yaml", "pickle", "vectors", "modules", ODD)),
]


def command_id(arguments: list[str]) -> str:
    return " ".join(map(ascii, arguments))


@pytest.mark.parametrize("arguments", COMMANDS, ids=command_id)
def test_a_command_shows_no_control_character_of_a_directory(
    run: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """In this process, which has imported the frameworks already; `capfd` has what does not go through click."""
    write(tmp_path / "models")
    done, below = run(*arguments), capfd.readouterr()
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert odd(done.output + below.out + below.err) == ""
    assert done.output


@pytest.mark.parametrize("arguments", PROCESSES, ids=command_id)
def test_a_command_and_its_worker_show_none_either(
    run: Callable[..., Any], tmp_path: Path, arguments: list[str]
) -> None:
    write(tmp_path / "models")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert odd((done.stdout + done.stderr).decode()) == ""
    assert done.stdout + done.stderr


def test_on_a_terminal_a_run_shows_none_either(run: Callable[..., Any], tmp_path: Path) -> None:
    """There a model may write to it, but for one that is only data."""
    write(tmp_path / "models")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gateway", "run", "gguf", "--data", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "TERM": "dumb"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline and select.select([ours], [], [], 120)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the last of them has closed it
            break
        seen += piece
    os.close(ours)
    assert process.wait(30) != 0
    assert "pwn" in seen.decode() and odd(seen.decode()) == ""


def test_commands_write_texts_by_the_ways_that_make_them_printable() -> None:
    """`tell`, tables and JSON, `answers`; an `echo` has a text in `tables.py` alone."""
    for file in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in ("click.echo", "print", "click.secho"):
                shown = ast.unparse(node.args[0]) if node.args else ""
                assert file.name == "tables.py" or not shown or "printable." in shown, f"{file.name}:{node.lineno}"
            assert file.name == "tables.py" or not called.endswith(("stdout.write", "stdout.buffer.write")), file.name


def test_an_error_of_a_command_is_printable(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**options: Any) -> None:
        raise click.ClickException(f"a {ODD}")

    monkeypatch.setattr(new.command, "callback", fails)
    done = run("new", "m")
    assert done.exit_code == 1 and "pwn" in done.output and odd(done.output) == ""


def test_an_answer_is_written_as_it_is_and_on_a_terminal_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal in (False, True):
        written: list[bytes] = []
        monkeypatch.setattr(tables, "_write_bytes", written.append)
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal, raising=False)
        write_piece = tables.answers()
        for piece in (b"\xc3", b"\xa4 \x1b[31m", "\u202e\n".encode()):
            write_piece(piece)
        expected = "\xe4 \\x1b[31m\\u202e\n" if is_terminal else "\xe4 \x1b[31m\u202e\n"
        assert b"".join(written).decode() == expected
