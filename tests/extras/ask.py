"""Serve a directory with the gateway of this environment, and compare its answers: python ask.py MODELS ASKS.json

Runs where nothing but the gateway and one extra is installed, so it imports nothing else.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.testing import Gateway


def main(models: str, asks: str) -> None:
    requests = json.loads(Path(asks).read_text())
    with Gateway(models, timeout=200) as gateway:
        for ask in requests:
            request = urllib.request.Request(f"{gateway.url}{ask['path']}", json.dumps(ask["body"]).encode())
            with urllib.request.urlopen(request, timeout=100) as response:
                answer = json.load(response)
            assert alike(answer, ask["wanted"]), f"{ask['path']}: {answer} is not {ask['wanted']}"
    print(f"{len(requests)} requests answered as by the library")


def alike(found: Any, wanted: Any) -> bool:
    """Whether an answer has what is wanted: numbers within 0.0001, and perhaps more fields than those."""
    if isinstance(wanted, Mapping):
        return isinstance(found, dict) and all(key in found and alike(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        same = isinstance(found, list) and len(found) == len(wanted)
        return same and all(alike(*pair) for pair in zip(found, wanted, strict=True))
    if isinstance(wanted, float):
        return isinstance(found, int | float) and abs(found - wanted) <= 1e-4 * max(1.0, abs(wanted))
    return bool(found == wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
