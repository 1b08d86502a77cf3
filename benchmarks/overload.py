"""Overload: ten times what a model can do is offered, and it goes on doing what it can.

The peak is what as many clients as it has slots get out of it. Then ten times as many ask without a pause: those that
get no place are told so at once, with a time to come back, and the gateway keeps nothing of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

import uvloop

from .ledger import MODEL, Client, Ledger, Outcome
from .processes import Server, gateway, resident_mb
from .report import Row

SLOTS, QUEUE, TIMES = 8, 8, 10
SERVICE = 0.05  # seconds a call takes the model
PAUSE = (TIMES - 1) * (SLOTS + QUEUE) / (TIMES * SLOTS / SERVICE)  # after a refusal: so much is ten times the capacity
SETTINGS = f"[models.busy]\nslots = {SLOTS}\nmax_queue = {QUEUE}\n"
BODY = 20_000  # bytes that a refused request must not leave behind
GOODPUT, REFUSAL, MEMORY = 0.95, 50.0, 50.0  # of the peak; milliseconds at p99; MB


@dataclass(slots=True)
class Turn:
    """What one load got: good answers a second, and what refusals took."""

    goodput: float = 0.0
    refused: list[Outcome] = field(default_factory=list)
    resident: float = 0.0


def run(quick: bool) -> list[Row]:
    seconds = 3.0 if quick else 20.0
    ledger = Ledger()
    with gateway({"busy/model.py": MODEL}, SETTINGS) as server:
        uvloop.run(_load(server, ledger, SLOTS + QUEUE, 1.0))
        at_rest = resident_mb(server.pid)
        peak = uvloop.run(_load(server, ledger, SLOTS + QUEUE, seconds))
        over = uvloop.run(_load(server, ledger, TIMES * (SLOTS + QUEUE), seconds))
    waits = sorted(outcome.seconds * 1000 for outcome in over.refused)
    p99 = waits[int(len(waits) * 0.99)] if waits else 0.0
    told = sum(outcome.detail == "429" and outcome.retry_after is not None for outcome in over.refused)
    grown = over.resident - at_rest
    bad = ledger.count("hung", "lost", "torn", "wrong", "refused")
    kept = over.goodput / peak.goodput
    return [
        Row(f"goodput at {TIMES} times the load ≥ {GOODPUT:.0%} of the peak", f"{over.goodput:.0f}/s", kept,
            f"peak, {peak.goodput:.0f}/s", kept >= GOODPUT),
        Row(f"refusals: p99 ≤ {REFUSAL:g} ms", f"{p99:.3g} ms", p99 / REFUSAL, f"{REFUSAL:g} ms", p99 <= REFUSAL),
        Row("refusals with 429 and Retry-After: all", f"{told:,} of {len(waits):,}", kept=told == len(waits) > 0),
        Row(f"gateway memory grown by < {MEMORY:g} MB", f"{grown:.1f} MB", grown / MEMORY, f"{MEMORY:g} MB",
            grown < MEMORY),
        Row("hung, lost, torn, wrong: 0", f"{bad}", kept=not bad),
    ]  # fmt: skip


async def _load(server: Server, ledger: Ledger, clients: int, seconds: float) -> Turn:
    """Closed loop: clients ask again as soon as they were answered, and soon after they were refused."""
    turn, until, good = Turn(), time.monotonic() + seconds, 0
    began = time.monotonic()

    async def ask(number: int) -> None:
        nonlocal good
        client = Client(server.port, ledger)
        while time.monotonic() < until:
            outcome = await client.predict("busy", f"t{number}", seconds=SERVICE, padding="x" * BODY)
            if outcome.kind == "ok":
                good += 1
            elif outcome.kind == "status":
                turn.refused.append(outcome)
                await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))
        client.close()

    await asyncio.gather(*(ask(number) for number in range(clients)))
    turn.goodput = good / (time.monotonic() - began)
    turn.resident = resident_mb(server.pid)
    return turn
