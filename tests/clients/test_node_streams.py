"""The SDKs of OpenAI and Anthropic for Node: streams that a model passes on, with ids and pings; one that was cut."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .asking import PATIENCE, steps

HERE = Path(__file__).parent
ROUTES = ("chat", "completions", "responses", "messages")


def chunk(text: str, reason: str | None = None) -> str:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return f"data: {json.dumps(value)}"


PIECES = [
    ": processing\r\n\r\n",
    *(f"id: {text}\r\n{chunk(text)}\r\n\r\n: ping\r\n\r\n" for text in ("one\u2028", "two")),
]
ENDED = [*PIECES, f"event: ping\r\ndata: {{}}\r\n\r\n{chunk('', 'stop')}\r\n\r\n", "data: [DONE]\r\n\r\n"]


@pytest.fixture(scope="module")
def found(url: str, key: str, place: Path) -> dict[str, str]:
    """What the script made of each stream on each route."""
    shutil.copy(HERE / "node" / "sdks" / "streams.mjs", place)
    texts = {"whole": steps(*ENDED), "cut": steps(*PIECES), "plain": steps("one\u2028", "two")}
    command = ["node", str(place / "streams.mjs"), url, key, json.dumps(texts)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    answers: dict[str, str] = json.loads(made.stdout)
    return answers


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["whole", "plain"])
def test_every_stream_is_read_to_its_end(found: dict[str, str], name: str, route: str) -> None:
    assert found[f"{name} {route}"] == "one\u2028two"


@pytest.mark.parametrize("route", ROUTES)
def test_a_stream_that_was_cut_is_an_error(found: dict[str, str], route: str) -> None:
    assert "Error" in found[f"cut {route}"] and "broke off" in found[f"cut {route}"]
