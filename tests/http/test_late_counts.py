"""Token counts behind a stream, when its key has nothing under way any more: one for each key, and none too large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from served import Answer, Model, Served

from gateway import keys
from gateway.http.accounts import MAX_LATER

Serve = Callable[..., Served]


class Counting:
    """A model that says no counts of its own, and counts when it is let."""

    def __init__(self, serve: Serve, file: Path) -> None:
        self.asked: list[Any] = []
        self._may = asyncio.Event()
        made = {name: keys.create(name) for name in ("alice", "bob")}
        keys.write(file, [key for key, _ in made.values()])
        self._keys = {name: text for name, (_, text) in made.items()}
        model = Model({"chat_completions": self._chat, "count_tokens": self._count}, slotless=("count_tokens",))
        self.served = serve({"m": model}, keys_file=file)

    async def _chat(self, inputs: Any) -> AsyncIterator[str]:
        yield "fine"

    async def _count(self, inputs: Any) -> dict[str, int]:
        self.asked.append(inputs)
        await self._may.wait()
        return {"input_tokens": 1000}

    def stream(self, who: str, text: str = "hi") -> Answer:
        body = {"messages": [{"role": "user", "content": text}], "stream": True}
        return self.served.post("/v1/chat/completions", body, Authorization=f"Bearer {self._keys[who]}")

    @property
    def generated(self) -> int:
        sums = self.served.app._metrics.tokens("m").sums  # type: ignore[attr-defined]
        return int(sums[1])

    def let(self) -> None:
        self.served.do(self._may.set)


def test_a_key_has_one_count_at_a_time_behind_its_streams_and_the_others_are_estimated(
    serve: Serve, tmp_path: Path
) -> None:
    model = Counting(serve, tmp_path / "keys.toml")
    for _ in range(4):
        assert model.stream("alice").status == 200
    model.served.wait_until(lambda: len(model.asked) == 2)  # its prompt and its answer, of the first stream
    assert model.generated == 3  # of "fine" each is one, by the estimate
    assert model.stream("bob").status == 200
    model.served.wait_until(lambda: len(model.asked) == 4)
    model.let()
    model.served.wait_until(lambda: model.generated == 3 + 2 * 1000)
    assert model.stream("alice").status == 200
    model.served.wait_until(lambda: model.generated == 3 + 3 * 1000)


def test_what_is_very_large_is_estimated_behind_a_stream(serve: Serve, tmp_path: Path) -> None:
    model = Counting(serve, tmp_path / "keys.toml")
    model.let()
    assert model.stream("alice", "x" * MAX_LATER).status == 200
    model.served.wait_until(lambda: model.generated == 1)
    assert model.stream("alice", "x" * (MAX_LATER - 1000)).status == 200
    model.served.wait_until(lambda: model.generated == 1001)
    assert len(model.asked) == 2
