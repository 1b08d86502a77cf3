"""Reloads: a model is replaced again and again under load, and nobody notices but by its new answers."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from gateway.cli.operator import Operator

from .ledger import Client, Ledger
from .processes import free_port, server_over
from .report import Row

RELOADS, CLIENTS = 200, 32
MODEL = """
import asyncio, time

class Model:
    def predict(self, inputs):
        time.sleep(0.005)
        return VERSION

    async def chat_completions(self, inputs):
        async def stream():
            for _ in range(5):
                yield f"{VERSION} "
                await asyncio.sleep(0.002)
        return stream()
"""
SETTINGS = "[models.changing]\nslots = 8\nmax_queue = 200\n"


def run(quick: bool) -> list[Row]:
    reloads = 5 if quick else RELOADS
    ledger, mixed, back = Ledger(), [], []
    with tempfile.TemporaryDirectory(prefix="gateway-reloads-") as name:
        place = Path(name)
        file = place / "models" / "changing" / "model.py"
        file.parent.mkdir(parents=True)
        file.write_text(f"VERSION = 0\n{MODEL}")
        port = free_port()
        with server_over(place, port, SETTINGS, env={"XDG_RUNTIME_DIR": name}):
            operator = Operator(place / f"gateway-{port}.sock")
            seen = asyncio.run(_load(port, ledger, operator, file, reloads, mixed, back))
    bad = sum(ledger.ended.values()) - ledger.count("ok") + ledger.open
    print("\n" + "\n".join(ledger.lines()) + "\n")
    return [
        Row(f"{reloads} reloads under load: answers other than 200", f"{bad}", kept=not bad),
        Row("answers of both versions at once: 0", f"{len(mixed)}", kept=not mixed),
        Row("connections that saw an older version again: 0", f"{len(back)}", kept=not back),
        Row("answers", f"{sum(ledger.ended.values()):,} of {len(seen)} versions", kept=len(seen) == reloads + 1),
    ]


async def _load(
    port: int, ledger: Ledger, operator: Operator, file: Path, reloads: int, mixed: list[Any], back: list[Any]
) -> set[int]:
    """Ask until the last reload is through; return the versions that were seen."""
    seen: set[int] = set()
    over = asyncio.Event()

    async def ask(number: int) -> None:
        client, last, count = Client(port, ledger), 0, 0
        while not over.is_set():
            count += 1
            if (count + number) % 2:
                outcome = await client.ask_predict("changing", {})
                versions = {outcome.value} if outcome.kind == "ok" else set()
            else:
                outcome = await client.ask_chat("changing", "hi")
                versions = {int(part) for part in outcome.value.split()} if outcome.kind == "ok" else set()
            if len(versions) > 1:
                mixed.append(versions)
            if versions and min(versions) < last:
                back.append((last, versions))
            last = max({last} | versions)
            seen.update(versions)
        client.close()

    asking = [asyncio.create_task(ask(number)) for number in range(CLIENTS)]
    for version in range(1, reloads + 1):
        await asyncio.to_thread(file.write_text, f"VERSION = {version}\n{MODEL}")
        await asyncio.to_thread(operator.ask, "POST", "/admin/models/changing/reload")
        while version not in seen:  # noqa: ASYNC110  (it will be in a moment)
            await asyncio.sleep(0.005)
    over.set()
    await asyncio.gather(*asking)
    return seen
