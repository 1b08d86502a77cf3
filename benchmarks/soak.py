"""Soak: a mixed load for minutes or hours, and what grows meanwhile: memory, open files, threads.

Whole answers, streams, clients that hang up in the middle, wrong requests, and now and then a killed worker. Slopes are
least squares over all samples after a fifth of the time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from .ledger import MODEL, Client, Ledger
from .processes import Server, gateway, resident_mb, workers_of
from .report import Row

QUICK = 0.5  # minutes
MINUTES = float(os.environ.get("SOAK_MINUTES", "5"))
CLIENTS, SAMPLES = 8, 60
KILL_EVERY = 40.0  # seconds; a crash loop is another test
SETTINGS = "[models.anton]\nslots = 4\n[models.berta]\nslots = 4\nmax_crashes = 100000\n"
WARM = 0.2  # of the time that is not counted
# Over a short run an arena more or less is a steep slope: a bound in MB counts there, one by the hour in long ones.
GROWN, SLOPE = 4.0, 0.1  # MB; MB an hour
SLACK = 2  # open files and threads that may come and go


@dataclass(frozen=True, slots=True)
class Sample:
    hours: float
    resident: float  # MB
    files: int
    threads: int


def run(quick: bool) -> list[Row]:
    minutes = QUICK if quick else MINUTES
    ledger = Ledger()
    with gateway({f"{name}/model.py": MODEL for name in ("anton", "berta")}, SETTINGS) as server:
        samples = asyncio.run(_soak(server, ledger, minutes * 60))
    warm = [sample for sample in samples if sample.hours >= samples[-1].hours * WARM]
    slope = statistics.linear_regression([s.hours for s in warm], [s.resident for s in warm]).slope
    grown = slope * (warm[-1].hours - warm[0].hours)
    files, threads = (warm[-1].files - warm[0].files, warm[-1].threads - warm[0].threads)
    bad = ledger.count("hung", "lost", "torn", "wrong") + ledger.open
    print("\n" + "\n".join(ledger.lines()) + "\n")
    return [
        Row(f"{minutes:g} minutes: memory", f"{warm[0].resident:.1f} MB, then {warm[-1].resident:.1f} MB"),
        Row(f"grows by < {SLOPE:g} MB/h, or by < {GROWN:g} MB in all", f"{slope:.2f} MB/h, {grown:.2f} MB",
            kept=slope < SLOPE or grown < GROWN),
        Row(f"open files more than at first: ≤ {SLACK}", f"{files:+d} of {warm[0].files}", kept=files <= SLACK),
        Row(f"threads more than at first: ≤ {SLACK}", f"{threads:+d} of {warm[0].threads}", kept=threads <= SLACK),
        Row("hung, lost, torn, wrong: 0", f"{bad} of {sum(ledger.ended.values()):,}", kept=not bad),
    ]  # fmt: skip


async def _soak(server: Server, ledger: Ledger, seconds: float) -> list[Sample]:
    began = time.monotonic()
    over = asyncio.Event()

    async def ask(number: int) -> None:
        client, count = Client(server.port, ledger), 0
        while not over.is_set():
            count += 1
            model, token = ("anton", "berta")[count % 2], f"{number}-{count}"
            await (client.chat(model, token) if count % 3 else client.predict(model, token))
            if count % 20 == 0:
                await _hang_up(server.port)
            await asyncio.sleep(0.002)
        client.close()

    others = [asyncio.create_task(ask(number)) for number in range(CLIENTS)]
    others.append(asyncio.create_task(_kill(server, over)))
    samples = []
    for number in range(SAMPLES + 1):
        await asyncio.sleep(max(0.0, began + seconds * number / SAMPLES - time.monotonic()))
        samples.append(_sample(server.pid, (time.monotonic() - began) / 3600))
    over.set()
    await asyncio.gather(*others)
    return samples


async def _hang_up(port: int) -> None:
    """A client that leaves in the middle of a stream, and one that sends nonsense."""
    body = b'{"model":"anton","stream":true,"messages":[{"role":"user","content":"bye"}]}'
    for data in (b"content-length: %d\r\n\r\n%b" % (len(body), body), b"content-length: 5\r\n\r\n{nons"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n" + data)
        await reader.read(100)
        writer.close()


async def _kill(server: Server, over: asyncio.Event) -> None:
    """Now and then a worker of one of the models."""
    while not over.is_set():
        try:
            async with asyncio.timeout(KILL_EVERY):
                await over.wait()
        except TimeoutError:
            victims = [pid for pid in workers_of(server.pid) if os.readlink(f"/proc/{pid}/cwd").endswith("berta")]
            for pid in victims[:1]:
                os.kill(pid, signal.SIGKILL)


def _sample(pid: int, hours: float) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text()
    threads = int(next(line for line in status.splitlines() if line.startswith("Threads")).split()[1])
    return Sample(hours, resident_mb(pid), len(os.listdir(f"/proc/{pid}/fd")), threads)
