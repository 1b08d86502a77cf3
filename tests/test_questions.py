"""What the gateway itself asks of a worker, and what it takes for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway import wire
from gateway.call import Call
from gateway.errors import InvalidOutput
from gateway.questions import hot_reload
from gateway.spec import Capabilities, Limits


class Answering:
    """A replica whose worker answers with this value."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply

    def open(self, call: Call, ended: Callable[[Call], None]) -> None:
        call.on_resp(wire.Resp(200, wire.DATA, False, True, ""), self._reply)

    def cancel(self, call: Call) -> None: ...


def asked(replica: Any) -> Capabilities | None:
    async def ask() -> Capabilities | None:
        return await hot_reload([replica], Limits())

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "says",
    [
        {"input_schema": {"title": "x" * wire.MAX_FRAME}},
        {"input_schema": {"$defs": {str(number): {} for number in range(100_000)}}},
        {"methods": "none"},
        [],
    ],
    ids=["long", "many", "no methods", "no dict"],
)
def test_new_code_says_no_more_of_itself_than_a_load_may(says: Any) -> None:
    replica: Any = Answering(says)
    with pytest.raises(InvalidOutput, match="not what it can do"):
        asked(replica)


def test_new_code_says_what_it_can_do() -> None:
    replica: Any = Answering({"methods": [{"name": "predict", "kind": "sync"}]})
    found = asked(replica)
    assert found is not None and [method.name for method in found.methods] == ["predict"]
