"""What every server of the comparison answers, and whether an answer is that.

The servers of the peers import this in environments of their own: it needs nothing but the standard library.
"""

from __future__ import annotations

import array
import base64
import json
import os
import random
import struct
import time
from collections.abc import Iterable
from typing import Any

INPUTS, WIDTH = 64, 384
CHUNK = "data: token\n\n"  # of a stream
BURN_LIMIT = 60.0  # seconds, should nobody end it
BATCH = 32  # most items of a batch
FIXED, EACH = 0.010, 0.0003  # seconds that a batch takes, and each of its items: a device that computes meanwhile
TENSOR = (1.5, 2.0, 3.0, 4.0)


def computed(inputs: list[Any]) -> list[Any]:
    """The echo of a batch, after the time that a device takes for it."""
    time.sleep(FIXED + EACH * len(inputs))
    return list(inputs)


def rows() -> list[list[float]]:
    """The vectors that every side answers with."""
    drawn = random.Random(1)
    return [[drawn.gauss(0, 0.05) for _ in range(WIDTH)] for _ in range(INPUTS)]


def encoded(vectors: Iterable[Any]) -> list[str]:
    """Base64 of float32, of lists and of rows of NumPy, where a server leaves it to the model."""
    return [
        base64.b64encode(array.array("f", row).tobytes() if isinstance(row, list) else row.tobytes()).decode()
        for row in vectors
    ]


def embeddings(vectors: Iterable[Any], body: dict[str, Any]) -> dict[str, Any]:
    """The whole answer of /v1/embeddings, where a server leaves that to the model too."""
    data = [{"object": "embedding", "index": at, "embedding": text} for at, text in enumerate(encoded(vectors))]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def burn(until: str) -> dict[str, int]:
    """Compute in one thread until there is a file of this name, which the benchmark makes when it has seen enough."""
    count, limit = 0, time.monotonic() + BURN_LIMIT
    while not os.path.exists(until) and time.monotonic() < limit:
        count += sum(range(100_000))
    return {"count": count}


def is_echo(body: str, answer: bytes, binary_from: int | None) -> bool:
    return bool(json.loads(answer) == json.loads(body))


def is_embeddings(body: str, answer: bytes, binary_from: int | None) -> bool:
    """The vectors are those that the model has, as base64 of float32, in order."""
    told = [each["embedding"] for each in json.loads(answer)["data"]]
    return told == encoded(rows())


def is_tensor(body: str, answer: bytes, binary_from: int | None) -> bool:
    """The four numbers come back as the bytes behind the JSON, whose length a header told."""
    (output,) = json.loads(answer[:binary_from])["outputs"]
    letter = {"FP32": "f", "FP64": "d"}[output["datatype"]]
    return struct.unpack(f"<4{letter}", answer[binary_from:]) == TENSOR and output["shape"] == [4]


def is_stream(body: str, answer: bytes, binary_from: int | None) -> bool:
    return answer == CHUNK.encode() * int(json.loads(body)["chunks"])


def is_burnt(body: str, answer: bytes, binary_from: int | None) -> bool:
    return bool(json.loads(answer)["count"] > 0)
