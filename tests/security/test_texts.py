"""Any text of a model reaches its client as it is, and any bytes as settings are settings or a told mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from served import Model, Served

from gateway.errors import ConfigError
from gateway.settings.load import load_settings
from gateway.settings.schema import Settings

SPECIAL = st.sampled_from(
    ["\r", "\n", "\r\n", "\u2028", "\x85", "data: ", "\n\n", "[DONE]", "event: x\n", "", "\x00", "é", "𝄞"]
)
TEXTS = st.lists(SPECIAL | st.text(max_size=5), max_size=6)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    async def say(inputs: Any) -> Any:
        for piece in json.loads(inputs["messages"][0]["content"]):
            yield piece

    with Served({"m": Model({"chat_completions": lambda inputs: say(inputs)})}) as served:
        yield served


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
@example(["data: {}\r\n\r\ndata: [DONE]\n\n", "after"])
def test_a_streamed_text_is_the_text_that_was_yielded(served: Served, pieces: list[str]) -> None:
    content = json.dumps(["x: ", *pieces])  # a stream whose first item begins with "data:" is one that frames itself
    body = {"messages": [{"role": "user", "content": content}], "stream": True}
    answer = served.post("/v1/chat/completions", body)
    assert answer.status == 200
    events = [parse(event) for event in re.split("\n\n", answer.body.decode()) if event.strip()]
    assert events.pop() == "[DONE]"
    told = "".join(choice["delta"].get("content") or "" for event in events for choice in json.loads(event)["choices"])
    assert told == "x: " + "".join(pieces)


def parse(event: str) -> str:
    """The data of one event, by the rules of a browser."""
    lines = [line for line in re.split("\r\n|\r|\n", event) if line.startswith("data:")]
    return "\n".join(line.removeprefix("data:").removeprefix(" ") for line in lines)


KEYS = st.sampled_from(["gateway", "models", "port", "host", "limits", "slots", "m", "a.b", "placement", "devices"])
VALUES = st.recursive(
    st.integers() | st.floats() | st.booleans() | st.text(max_size=8) | st.sampled_from(["auto", "1GiB", "5m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def read(place: Path, data: bytes) -> Settings | None:
    (place / "gateway.toml").write_bytes(data)
    try:
        return load_settings(place / "gateway.toml", environ={})
    except ConfigError as error:
        assert str(error)
        return None


@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_a_told_mistake(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    read(tmp_path_factory.mktemp("settings"), data)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_tables_are_settings_or_a_told_mistake(tmp_path_factory: pytest.TempPathFactory, tables: Any) -> None:
    text = "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in tables.items())
    read(tmp_path_factory.mktemp("settings"), text.encode("utf-8", "replace"))


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)
