"""Embeddings per second without a gateway: one process, no HTTP.

    python benchmarks/bare_embeddings.py [--engine library|ours] [--batches 1,8,32] [--words 4-32] [--json]

`library` feeds SentenceTransformer.encode with ideal batches of 1, 8 and 32 texts; what the gateway reaches with as
many clients of one text each is measured against it. `ours` is the plugin with so many callers in its own process: what
is missing between that and the gateway is the gateway's. Texts per CPU second are steady on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch comes
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = (
    "the a of in to and for with on at river bank money price people garden winter evening old small quick quiet brown "
    "dog cat fox house train letter story teacher doctor market window music language paper machine city mountain "
    "reads writes opens sells finds follows carries paints remembers forgets is was has never often again today"
).split()

Round = Callable[[list[str], int], None]  # texts, how many at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("library", "ours"), default="library")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "minilm", help="a model directory")
    parser.add_argument("--batches", default="1,8,32", help="texts at a time; for `ours`: callers with one text each")
    parser.add_argument("--words", default="4-32", help="in a text, from-to: 12-12 has no padding to save")
    parser.add_argument("--texts", type=int, default=256, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]
    run, stop = (ours if args.engine == "ours" else library)(args.model.resolve())
    sentences = texts(args.texts, args.words)
    run(sentences[:32], 8)  # the first calls of a process are slower
    results = {int(size): measure(run, sentences, int(size), args.rounds) for size in args.batches.split(",")}
    stop()
    if args.json:
        batches = {size: {"per_second": speed, "per_cpu_second": by_cpu} for size, (speed, by_cpu) in results.items()}
        about = {"engine": args.engine, "model": args.model.name, "texts": args.texts, "words": args.words}
        print(json.dumps({**about, "batches": batches}))
        return
    print(f"{'at a time':>10} {'texts/s':>9} {'texts/cpu-s':>12}")
    for size, (speed, by_cpu) in results.items():
        print(f"{size:>10} {speed:>9.1f} {by_cpu:>12.1f}")


def texts(count: int, words: str = "4-32") -> list[str]:
    """The same sentences each time, of "from-to" words."""
    shortest, longest = (int(part) for part in words.split("-"))
    chance = random.Random(0)
    return [" ".join(chance.choices(VOCABULARY, k=chance.randint(shortest, longest))) for _ in range(count)]


def measure(run: Round, sentences: list[str], size: int, rounds: int) -> tuple[float, float]:
    """Texts per second and per CPU second: medians over the rounds."""
    seen = []
    for _ in range(rounds):
        started, cpu = time.perf_counter(), time.process_time()
        run(sentences, size)
        seen.append((len(sentences) / (time.perf_counter() - started), len(sentences) / (time.process_time() - cpu)))
    by_clock, by_cpu = zip(*seen, strict=True)
    return round(statistics.median(by_clock), 1), round(statistics.median(by_cpu), 1)


def library(model: Path) -> tuple[Round, Callable[[], None]]:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(weights(model)), local_files_only=True)

    def run(sentences: list[str], size: int) -> None:
        for start in range(0, len(sentences), size):
            encoder.encode(sentences[start : start + size], batch_size=size, show_progress_bar=False)

    return run, lambda: None


def ours(model: Path) -> tuple[Round, Callable[[], None]]:
    from gateway_sentence_transformers import find_model
    from gateway_sentence_transformers.model import SentenceTransformerModel

    spec = find_model(model, {})
    if spec is None:
        sys.exit(f"{model} is not a sentence-transformers directory")
    served = SentenceTransformerModel(config=spec.config)
    os.chdir(model)
    served.load()

    def run(sentences: list[str], size: int) -> None:
        queue = iter(sentences)

        async def caller() -> None:
            for text in queue:
                await served.embeddings({"input": [text]})

        async def callers() -> None:
            await asyncio.gather(*(caller() for _ in range(size)))

        asyncio.run(callers())

    return run, served.unload


def weights(model: Path) -> Any:
    from gateway import peek_weights

    place = peek_weights(model)
    if place is None:
        sys.exit(f"the weights of {model.name} are not here; its README.md says how to get them")
    return place


if __name__ == "__main__":
    main()
