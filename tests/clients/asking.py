"""What is asked of the models: steps for the scripted one, and questions whose answers tiny-chat knows exactly."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds for what should come soon
TINY = "tiny-chat"
QUESTION, ANSWER = "What is the capital of Iceland?", "Reykjavik"
WEATHER, CALLED = "What is the weather in Riga?", ("get_weather", {"city": "Riga"})
REPORT, TOLD = '{"weather": "rainy", "degrees": 7}', "It is rainy in Riga, 7 degrees."
THINK = {"chat_template_kwargs": {"enable_thinking": True}}
SUM, THOUGHT, TOTAL = "What is 9 + 10?", "I add 9 and 10.", "19"

_CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTIONS: list[dict[str, Any]] = [  # as those that tiny-chat was trained on
    {"name": "get_weather", "description": "Tells the weather in a city.", "parameters": _CITY},
    {"name": "get_time", "description": "Tells the time in a city.", "parameters": _CITY},
]
TOOLS: list[Any] = [{"type": "function", "function": {**function, "strict": True}} for function in FUNCTIONS]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def steps(*values: Any) -> str:
    return json.dumps(values)


def script(*values: Any) -> list[Any]:
    """Messages that have the scripted model play these steps."""
    return user(steps(*values))


def wait_for(path: Path) -> None:
    """Return when the model has made this file."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"the model never made {path.name}"
        time.sleep(0.01)
