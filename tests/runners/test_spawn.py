"""What a process is started with: secrets that its log hides, and where else they are hidden."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.runners.process import ProcessReplica
from gateway.runners.replica import Launch, LoadError
from gateway.runners.spawn import Child
from gateway.spec import ModelSpec
from gateway.system.begun import Begun
from gateway.telemetry import model_output
from gateway.telemetry.redaction import Redactor


def child(tmp_path: Path, secrets: dict[str, str], written: dict[str, str | None], found: list[str]) -> Child:
    spec = ModelSpec(
        name="m", target="m:M", root=tmp_path, config={"secrets": written}, secrets=tuple(written), format="skops"
    )
    return Child(Launch(spec=spec, index=0, secrets=secrets, on_log=found.append))


def test_what_a_config_writes_is_hidden_in_the_log_of_its_model_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a directory could hide any text of the audit log: names of models, orders, keys."""
    known = Redactor((), (8, 8))
    monkeypatch.setattr(model_output, "KNOWN", known)
    found: list[str] = []
    written = {"a": "audit: unload of", "b": None, "c": "given here"}
    secrets = {"a": "audit: unload of", "b": "hunter2222", "c": "set elsewhere"}
    started = child(tmp_path, secrets, written, found)
    started.hide(secrets)
    line = "audit: unload of m with hunter2222 and given here, set elsewhere"
    assert known(line) == "audit: unload of m with *** and given here, ***"
    started.log.feed(f"{line}\n".encode(), last=True)
    assert found == ["*** m with *** and given here, ***"]


def test_secrets_are_made_ready_to_be_hidden_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    hide = model_output.LineReader.hide

    def hidden(*arguments: Any) -> None:
        threads.append(threading.current_thread())
        hide(*arguments)

    async def none(*arguments: Any, **options: Any) -> None:
        assert threads and threads[-1] is not threading.main_thread()
        raise OSError("no process")

    monkeypatch.setattr(model_output, "KNOWN", Redactor())
    started = child(tmp_path, {"a": "hunter2222"}, {"a": None}, [])
    monkeypatch.setattr(model_output.LineReader, "hide", hidden)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", none)
    with pytest.raises(LoadError, match="no process"):
        asyncio.run(started.spawn(Begun.new()))
    assert started.log.redact("hunter2222") == "***"


def test_before_a_process_is_started_the_secrets_of_others_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def none(*arguments: Any, **options: Any) -> None:
        done.append("started")
        raise OSError("no process")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", none)
    spec = ModelSpec(name="m", target="m:M", root=tmp_path, format="skops")
    started = Child(Launch(spec=spec, index=0, hide_others=lambda: done.append(threading.current_thread().name)))
    with pytest.raises(LoadError, match="no process"):
        asyncio.run(started.spawn(Begun.new()))
    thread, end = done
    assert end == "started"
    assert thread != threading.main_thread().name


async def _updated(replica: ProcessReplica) -> None:
    replica.update({"a": "hunter3333"}, None)
    await asyncio.gather(*replica._tasks)


def test_secrets_that_change_are_made_ready_beside_the_loop_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(Child, "hide", lambda *_: threads.append(threading.current_thread()))

    async def main() -> None:
        spec = ModelSpec(name="m", target="m:M", root=tmp_path, format="skops")
        await _updated(ProcessReplica(Launch(spec=spec, index=0)))

    asyncio.run(main())
    assert threads and threads[0] is not threading.main_thread()
