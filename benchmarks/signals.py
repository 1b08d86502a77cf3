"""Signals: a gateway that is told to stop under load loses no request; one that is killed leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .ledger import MODEL, Client, Ledger
from .processes import ROOT, descendants, free_port
from .report import Row

STOPS, KILLS = 100, 20
CLIENTS = 16
GONE = 1.0  # seconds within which everything of a killed gateway is gone
MODELS = ("anton", "berta")
START = 60.0  # seconds


def run(quick: bool) -> list[Row]:
    stops, kills = (3, 2) if quick else (STOPS, KILLS)
    ledger = Ledger()
    with tempfile.TemporaryDirectory(prefix="gateway-signals-") as name:
        place = Path(name)
        for model in MODELS:
            (place / "models" / model).mkdir(parents=True)
            (place / "models" / model / "model.py").write_text(MODEL)
        port = free_port()  # the same one each time: it must be free again at once
        codes = [asyncio.run(_stop(place, port, ledger, signal.SIGTERM)) for _ in range(stops)]
        gone = [asyncio.run(_kill(place, port)) for _ in range(kills)]
    lost = ledger.count("lost", "torn", "wrong", "hung") + ledger.open
    bad = [code for code in codes if code != 0]
    slowest = max(gone)
    print("\n" + "\n".join(ledger.lines()) + "\n")
    return [
        Row(f"{stops} × SIGTERM under load: requests lost", f"{lost}", kept=not lost),
        Row("exit status 0", f"{stops - len(bad)} of {stops}", kept=not bad),
        Row("answered well", f"{ledger.count('ok'):,} of {sum(ledger.ended.values()):,}"),
        Row(f"{kills} × SIGKILL: all processes gone within {GONE:g} s", f"{slowest:.2f} s", slowest / GONE,
            f"{GONE:g} s", slowest <= GONE),
    ]  # fmt: skip


async def _stop(place: Path, port: int, ledger: Ledger, number: int) -> int:
    process = await _start(place, port)
    over = asyncio.Event()

    async def ask(client_number: int) -> None:
        client = Client(port, ledger)
        count = 0
        while not over.is_set():
            count += 1
            model, token = MODELS[count % 2], f"c{client_number}-{count}"
            ended = await (client.chat(model, token) if count % 3 else client.predict(model, token, seconds=0.02))
            if ended.kind == "refused" or ended.detail == "503":
                break
        client.close()

    asking = [asyncio.create_task(ask(each)) for each in range(CLIENTS)]
    await asyncio.sleep(0.5)
    process.send_signal(number)
    code = await asyncio.to_thread(process.wait, 60)
    over.set()
    await asyncio.gather(*asking)
    return code


async def _kill(place: Path, port: int) -> float:
    """Seconds until nothing is left of a gateway that was killed, its workers and its reaper included."""
    process = await _start(place, port)
    family = descendants(process.pid)
    process.kill()
    process.wait()
    began = time.monotonic()
    while any(_runs(pid) for pid in family):
        if time.monotonic() - began > 10 * GONE:
            raise RuntimeError(f"still there: {[pid for pid in family if _runs(pid)]}")
        await asyncio.sleep(0.005)
    took = time.monotonic() - began
    with socket.create_server(("127.0.0.1", port)):  # without SO_REUSEPORT: it is free again
        return took


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def _start(place: Path, port: int) -> subprocess.Popen[bytes]:
    """A gateway whose models are ready."""
    command = [sys.executable, "-m", "gateway", "serve", "--models", str(place / "models"), "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment["PYTHONPATH"] = str(ROOT)
    log = (place / "log").open("wb")
    process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)  # noqa: ASYNC220
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 200"):
                return process
        await asyncio.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the gateway did not get ready:\n{(place / 'log').read_text()[-2000:]}")
