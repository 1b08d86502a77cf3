"""llama.cpp alone, as xllamacpp offers it: its own server in this process, its chat templates, one thread a client.

python -m benchmarks.bare_llamacpp PORT

serves SmolLM2 with the HTTP server that it has, until the process is ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import bare_engine
from .processes import ROOT


def library(directory: Path) -> Callable[[int], None]:
    """Return a function that asks so many questions at once, for `bare_engine.TOKENS` greedy tokens each."""
    server = opened(directory)

    def one(prompt: str) -> None:
        usage = []

        def take(chunk: bytes) -> bool:
            if b'"usage"' in chunk:
                usage.append(json.loads(chunk)["usage"])
            return False

        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": bare_engine.TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        server.handle_chat_completions(json.dumps(body).encode(), take)
        assert usage[-1]["completion_tokens"] == bare_engine.TOKENS

    def together(clients: int) -> None:
        prompts = [bare_engine.PROMPTS[number % len(bare_engine.PROMPTS)] for number in range(clients)]
        threads = [threading.Thread(target=one, args=(prompt,)) for prompt in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return together


def opened(directory: Path, port: int = 0) -> Any:
    """Return a server over the GGUF file of a model directory. Port 0 is any."""
    import xllamacpp
    from gateway_language.gguf.files import find

    from gateway import peek_weights

    place = peek_weights(directory)
    file = find(place) if place is not None else None
    if file is None:
        raise SystemExit(f"{directory} holds no GGUF file")
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel, params.n_ctx = 16, 16 * 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(os.environ["OMP_NUM_THREADS"])
    params.verbosity, params.cache_ram_mib, params.fit_params = 1, 0, False
    params.hostnames, params.port = ["127.0.0.1"], port
    return xllamacpp.Server(params)


def main() -> None:
    sys.path.insert(0, str(ROOT / "plugins"))
    server = opened(ROOT / "models" / "smollm2", int(sys.argv[1]))
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
