"""Chaos: workers die under load, and every request has one honest end.

Three models of several replicas each lose them to signals at random while a fourth is left alone; half of the requests
are streams. The plan is drawn from a seed, which is printed with the ledger.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import signal
import time
from pathlib import Path

from .ledger import MODEL, Client, Ledger
from .probe import Probed, probing
from .processes import Server, descendants, gateway, workers_of
from .report import Row

VICTIMS, BYSTANDER = ("anton", "berta", "cesar"), "dora"
REPLICAS = 4
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM)
SETTINGS = (
    "".join(
        f"[models.{name}]\nreplicas = {REPLICAS}\nslots = 4\nmax_queue = 200\nmax_crashes = 100000\n"
        for name in VICTIMS
    )
    + f"[models.{BYSTANDER}]\nreplicas = 1\nslots = 16\nmax_queue = 200\n"
)
LIVENESS = 100.0  # milliseconds
QUICK, FULL = (2_000, 6), (20_000, 50)  # requests, kills
CONNECTIONS = 32
BETWEEN = 1.2  # seconds between two kills, so that restarts and load overlap
RECOVERY = 120.0  # seconds until every replica must be back


def run(quick: bool) -> list[Row]:
    requests, kills = QUICK if quick else FULL
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**32)))
    models = {f"{name}/model.py": MODEL for name in (*VICTIMS, BYSTANDER)}
    ledger = Ledger()
    with gateway(models, SETTINGS) as server:
        before = len(workers_of(server.pid))
        with probing(server.port) as probed:
            done = asyncio.run(_storm(server, ledger, requests, kills, random.Random(seed)))
        back = _all_back(server)
        zombies = _zombies(server.pid)
        left = descendants(server.pid)
    orphans = [pid for pid in left if Path(f"/proc/{pid}").exists()]
    print(f"\n  seed {seed} (CHAOS_SEED={seed} repeats it): {done} kills\n" + "\n".join(ledger.lines()) + "\n")
    return [*_rows(ledger, probed, done, kills), *_ends(before, back, zombies, orphans)]


def _rows(ledger: Ledger, probed: Probed, done: int, kills: int) -> list[Row]:
    errors = ledger.count("status", "event", "refused", model=BYSTANDER)
    return [
        Row("kills", f"{done}", kept=done >= kills),
        Row("requests", f"{sum(ledger.ended.values()):,}"),
        Row("answered well", f"{ledger.count('ok') / sum(ledger.ended.values()):.1%}"),
        *(Row(f"{kind}: 0", f"{number}", kept=not number) for kind, number in _bad(ledger).items()),
        Row(f"errors of the bystander {BYSTANDER!r}: 0", f"{errors}", kept=not errors),
        Row(
            f"/livez: p99 ≤ {LIVENESS:g} ms",
            f"{probed.p99:.3g} ms",
            probed.p99 / LIVENESS,
            f"{LIVENESS:g} ms",
            probed.p99 <= LIVENESS and not probed.bad,
        ),
        Row("  slowest", f"{probed.slowest:.3g} ms"),
    ]


def _bad(ledger: Ledger) -> dict[str, int]:
    return {
        "hung": ledger.count("hung") + ledger.open,
        **{kind: ledger.count(kind) for kind in ("lost", "torn", "wrong")},
    }


def _ends(before: int, back: int, zombies: int, orphans: list[int]) -> list[Row]:
    return [
        Row(f"workers after the storm: {before}", f"{back}", kept=back == before),
        Row("zombies: 0", f"{zombies}", kept=not zombies),
        Row("processes left when the gateway has ended: 0", f"{len(orphans)}", kept=not orphans),
    ]


async def _storm(server: Server, ledger: Ledger, requests: int, kills: int, plan: random.Random) -> int:
    """Ask until both the requests and the kills are through; return how many kills there were."""
    begun = 0
    killing = asyncio.create_task(_kill(server, kills, plan))

    async def ask() -> None:
        nonlocal begun
        client = Client(server.port, ledger)
        while begun < requests or not killing.done():
            begun += 1
            name, token = plan.choice((*VICTIMS, BYSTANDER)), f"t{begun}"
            ended = await (client.chat(name, token) if begun % 2 else client.predict(name, token))
            if ended.kind != "ok":
                await asyncio.sleep(0.02)
            if begun > requests:  # only to keep the load up until the last kill
                await asyncio.sleep(0.05)
        client.close()

    await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
    return await killing


async def _kill(server: Server, kills: int, plan: random.Random) -> int:
    done = 0
    until = time.monotonic() + 20 * kills * BETWEEN
    while done < kills and time.monotonic() < until:
        await asyncio.sleep(plan.uniform(0.5, 1.5) * BETWEEN)
        victims = [pid for pid in workers_of(server.pid) if _directory(pid) in VICTIMS]
        if victims:
            try:
                os.kill(plan.choice(victims), plan.choice(SIGNALS))
            except ProcessLookupError:
                continue
            done += 1
    return done


def _directory(pid: int) -> str:
    """The model that a worker runs: its working directory."""
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")).name
    except OSError:
        return ""


def _all_back(server: Server) -> int:
    """How many workers there are once every replica is ready, or when that takes too long."""
    wanted = len(VICTIMS) * REPLICAS + 1
    until = time.monotonic() + RECOVERY
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/v1/models")
        found = json.loads(connection.getresponse().read())["data"]
        connection.close()
        if all(model["status"] == "ready" for model in found) and len(workers_of(server.pid)) == wanted:
            break
        time.sleep(0.2)
    return len(workers_of(server.pid))


def _zombies(pid: int) -> int:
    found = 0
    for child in descendants(pid):
        try:
            found += Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
    return found
