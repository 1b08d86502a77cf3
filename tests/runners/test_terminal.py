"""What asks for a terminal in a worker hears at once where there is one."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import ModelError
from gateway.runners.replica import LoadError
from gateway.spec import ModelSpec
from gateway.worker.loading import terminal

from .confined import confined
from .started import Started, started, write

pytestmark = pytest.mark.anyio

MODEL = """
    import code, getpass, os, pdb, sys, multiprocessing

    def quietly():
        found = sys.stdin.read()
        os._exit(0 if found == "" else 1)

    class Model:
        def predict(self, x): return x
        def stop(self, x):
            breakpoint()
            return "went on"
        async def stop_async(self, x):
            breakpoint()
            return "went on"
        def stop_stream(self, x):
            yield 1
            breakpoint()
        def trace(self, x):
            pdb.set_trace()
            return "went on"
        def ask(self, x): return input("your name? ")
        def read(self, x): return sys.stdin.read()
        def lines(self, x): return list(sys.stdin)
        def password(self, x): return getpass.getpass()
        def console(self, x): code.interact(local={}); return "went on"
        def catch(self, x):
            try: return input()
            except EOFError: return "nobody"
        def stdin(self, x): return [sys.stdin.isatty(), sys.stdin.fileno(), sys.stdin.buffer.read()]
        def process(self, x):
            child = multiprocessing.get_context("fork").Process(target=quietly)
            child.start(); child.join()
            return child.exitcode
    """
METHODS = (
    *("stop", "stop_async", "stop_stream", "trace", "ask", "read", "lines", "password", "console", "catch", "stdin"),
    "process",
)
ADVICE = "gateway run m"


@pytest.fixture(scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Started]:
    async with started(tmp_path_factory.mktemp("terminal"), MODEL, *METHODS, debug=True) as found:
        yield found


@pytest.mark.parametrize("method", ["stop", "stop_async", "ask", "read", "lines"])
async def test_what_asks_for_a_terminal_fails_with_the_place_and_the_way_to_one(worker: Started, method: str) -> None:
    worker.log.lines.clear()
    with pytest.raises(ModelError, match=f"model/model.py.*{ADVICE}"):
        await worker.ask(method)
    line = await worker.log.find(ADVICE)
    assert "model/model.py, line " in line


async def test_a_stream_that_stops_at_a_breakpoint_breaks_off_with_the_same_words(worker: Started) -> None:
    with pytest.raises(ModelError, match=ADVICE), worker.open("stop_stream") as call:
        await worker.read(call)


@pytest.mark.parametrize("method", ["trace", "password", "console"])
async def test_debuggers_and_consoles_of_their_own_end_and_the_log_has_the_way(worker: Started, method: str) -> None:
    worker.log.lines.clear()
    try:
        await worker.ask(method)
    except ModelError:
        pass
    await worker.log.find(ADVICE)
    assert await worker.ask("predict", 1) == 1


async def test_code_that_expects_no_input_and_child_processes_find_what_they_did(worker: Started) -> None:
    assert await worker.ask("catch") == "nobody"
    assert await worker.ask("stdin") == [False, 0, b""]
    assert await worker.ask("process") == 0


@pytest.mark.parametrize("own_code", [True, False])
def test_a_debugger_runs_no_file_of_a_directory_that_is_only_data(
    own_code: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".pdbrc").write_text("!open('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal, "_examines", True)
    monkeypatch.setattr("sys.stdin", io.StringIO("q\n"))
    try:
        raise ValueError
    except ValueError as error:
        terminal.examine(error, ModelSpec(name="m", target="m:M", root=tmp_path, own_code=own_code))
    assert (tmp_path / "ran").exists() is own_code


@pytest.mark.parametrize("stop", ["breakpoint()", "__import__('pdb').set_trace()"])
async def test_a_load_that_stops_at_a_breakpoint_is_tried_once_and_its_reason_has_the_way(
    tmp_path: Path, stop: str
) -> None:
    write(tmp_path, {"model/model.py": f"class Model:\n    def load(self): {stop}\n    def predict(self, x): ..."})
    found = Started(tmp_path)
    with pytest.raises(LoadError, match=f"line 2.*{ADVICE}") as caught:
        await found.replica.start()
    assert caught.value.fatal
    assert not [line for line in found.log.lines if "trying again" in line]


async def test_the_way_finds_a_model_wherever_the_command_is_run(tmp_path: Path) -> None:
    root = tmp_path / "my models" / "m"
    write(root, {"model/model.py": "class Model:\n    def load(self): breakpoint()\n    def predict(self, x): ..."})
    with pytest.raises(LoadError) as caught:
        await Started(root).replica.start()
    assert str(caught.value).endswith(f"gateway run m --models '{root.parent}'")


async def test_a_breakpoint_that_the_settings_send_elsewhere_goes_there(tmp_path: Path) -> None:
    source = 'import os\ndef note(): print("noted")\nclass Model:\n    def predict(self, x): breakpoint(); return x'
    async with started(tmp_path, source, spec={"environment": {"PYTHONBREAKPOINT": "model.model.note"}}) as found:
        assert await found.ask("predict", 2) == 2
        await found.log.find("noted")


@confined
async def test_a_strict_worker_says_so_too(tmp_path: Path) -> None:
    async with started(tmp_path, MODEL, *METHODS, spec={"sandbox": "strict"}) as found:
        with pytest.raises(ModelError):
            await found.ask("ask")
        await found.log.find(ADVICE)
