"""Tokens per second of the language engine alone: one process, no HTTP, no gateway.

    python benchmarks/bare_engine.py [--engine ours|transformers] [--clients 1,4,16] [--rounds 3] [--json]

The floor of what the gateway adds, and a comparison with the continuous batching of transformers on the same model and
prompts. Every answer is exactly 64 greedy tokens. Tokens per CPU second are steady on a busy machine; the clock is not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes
ROOT = Path(__file__).resolve().parent.parent
TOKENS = 64
# Under greedy decoding the model has more than 64 tokens to say to each of these.
PROMPTS = (
    "Write a short story about a robot that learns to paint.",
    "Explain photosynthesis to a child.",
    "Tell me about the moon.",
    "How do I boil an egg? Give every step.",
    "Describe a sunset over the sea.",
    "Why is the sky blue?",
    "What is Python used for?",
    "Write a letter to a friend about a holiday.",
    "Explain how a bicycle stays upright.",
    "Tell me the history of tea.",
    "Write a poem about winter.",
    "How does a refrigerator work?",
    "Describe the city of Rome.",
    "What makes a good teacher?",
    "Explain gravity in simple words.",
    "Write a story about a cat and a dog.",
)

MEASURED = ("per_second", "per_cpu_second", "first_token")
Round = Callable[[int], list[float]]  # clients → seconds until each first token; TOKENS tokens each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("ours", "transformers"), default="ours")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "smollm2", help="a model directory")
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]
    run, stop = (ours if args.engine == "ours" else of_transformers)(args.model)
    run(2)  # the first calls of a process are slower
    results = {int(clients): measure(run, int(clients), args.rounds) for clients in args.clients.split(",")}
    stop()
    if args.json:
        clients = {count: dict(zip(MEASURED, values, strict=True)) for count, values in results.items()}
        print(json.dumps({"engine": args.engine, "model": args.model.name, "tokens": TOKENS, "clients": clients}))
        return
    print(f"{'clients':>8} {'tok/s':>8} {'tok/cpu-s':>10} {'first token, s':>15}")
    for clients, (speed, by_cpu, first) in results.items():
        print(f"{clients:>8} {speed:>8.1f} {by_cpu:>10.1f} {first:>15.2f}")


def measure(run: Round, clients: int, rounds: int) -> tuple[float, ...]:
    """Medians over the rounds."""
    seen = []
    for _ in range(rounds):
        started, cpu = time.perf_counter(), time.process_time()
        first = run(clients)
        tokens = clients * TOKENS
        seen.append((tokens / (time.perf_counter() - started), tokens / (time.process_time() - cpu), max(first)))
    return tuple(round(statistics.median(values), 3) for values in zip(*seen, strict=True))


def ours(directory: Path) -> tuple[Round, Callable[[], None]]:
    from gateway_transformers import find_model
    from gateway_transformers.model import LanguageModel
    from gateway_transformers.sampling import Sampling

    spec = find_model(directory, {"options": {"engine": "torch"}})
    if spec is None:
        raise SystemExit(f"{directory} holds no language model")
    os.chdir(directory)
    model = LanguageModel(config=spec.config, data_dir=directory / "data")
    with contextlib.redirect_stdout(sys.stderr):
        model.load()
    prompts = [model.prompt_ids({"messages": [{"role": "user", "content": text}]}) for text in PROMPTS]
    loop = asyncio.new_event_loop()

    async def one(prompt: list[int], started: float) -> float:
        first, count = 0.0, 0
        async for tokens in model.engine.generate(prompt, TOKENS, frozenset(), Sampling()):
            first = first or time.perf_counter() - started
            count += len(tokens)
        assert count == TOKENS
        return first

    async def together(clients: int) -> list[float]:
        started = time.perf_counter()
        return await asyncio.gather(*(one(prompts[client % len(prompts)], started) for client in range(clients)))

    return lambda clients: loop.run_until_complete(together(clients)), model.unload


def of_transformers(directory: Path) -> tuple[Round, Callable[[], None]]:
    """Its continuous batching, with the cache sized: left alone it takes all memory and is many times slower."""
    import torch
    from gateway_language.gguf.files import find
    from gateway_transformers import find_model
    from gateway_transformers.gguf.conversion import folder
    from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig

    from gateway import weights_path

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    spec = find_model(directory, {"options": {"engine": "torch"}})
    weights = weights_path(spec.config, directory)
    place = folder(gguf) if (gguf := find(weights)) else weights
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype="float32").eval()
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in PROMPTS
    ]
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=32, num_blocks=512, max_batch_tokens=256, max_requests_per_batch=16, use_cuda_graph=False
        ),
    )
    manager.start()
    calls = iter(range(1_000_000))

    def together(clients: int) -> list[float]:
        started = time.perf_counter()
        first: dict[str, float] = {}
        for client in range(clients):
            manager.add_request(
                prompts[client % len(prompts)], request_id=str(next(calls)), max_new_tokens=TOKENS, streaming=True
            )
        ended = 0
        while ended < clients:
            if (result := manager.get_result(timeout=1)) is not None:
                first.setdefault(result.request_id, time.perf_counter() - started)
                ended += result.is_finished()
        return list(first.values())

    return together, lambda: manager.stop(block=True)


if __name__ == "__main__":
    main()
