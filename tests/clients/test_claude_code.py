"""Claude Code, with its documented variables for a gateway: its requests are larger than tiny-chat's context, so the
scripted model answers most of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .asking import steps
from .commands import Ran, run

Claude = Callable[..., Ran]


@pytest.fixture
def ask(url: str, key: str, place: Path, tmp_path: Path) -> Claude:
    command = str(place / "node_modules" / ".bin" / "claude")

    def ask(*arguments: str, model: str = "script", key: str = key) -> Ran:
        env = {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_AUTH_TOKEN": key,
            "ANTHROPIC_MODEL": model,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        return run([command, "-p", *arguments], tmp_path, **env)

    return ask


def test_it_prints_an_answer_and_goes_on_from_it(ask: Claude) -> None:
    first = ask(steps("Hello from here."))
    assert (first.status, first.said.strip()) == (0, "Hello from here."), first.beside
    again = ask("--continue", steps(["show", "messages"]))
    assert again.status == 0 and "Hello from here." in again.said, again.beside


def test_a_tool_is_called_and_its_result_is_told(ask: Claude, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    note = tmp_path / "work" / "note.txt"
    note.write_text("the secret is 4711\n")
    call = {"tool_calls": [{"name": "Read", "arguments": {"file_path": str(note)}}]}
    ran = ask(steps({"reasoning_content": "I need the file."}, "I look.", call))
    assert ran.status == 0 and "The tool said:" in ran.said and "the secret is 4711" in ran.said, ran.beside


def test_what_it_counts_is_what_the_model_counted(ask: Claude) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 7}
    ran = ask("--output-format", "json", steps("Hello.", {"usage": usage}))
    found = json.loads(ran.said)
    assert found["result"] == "Hello." and not found["is_error"]
    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (100, 7)


def test_a_wrong_key_is_told_at_once(ask: Claude) -> None:
    """Without `x-should-retry: false` it tries again for minutes."""
    began = time.monotonic()
    wrong = ask(steps("x"), key="sk-wrong")
    assert wrong.status != 0 and "401 Incorrect API key provided" in wrong.said
    assert time.monotonic() - began < 30


def test_what_does_not_fit_and_who_is_not_there_are_told_at_once(ask: Claude) -> None:
    long = ask("What is the capital of Iceland?", model="tiny-chat")
    assert long.status != 0 and "Prompt is too long" in long.said and "limit 1024" in long.said
    nobody = ask("hi", model="nobody")
    assert nobody.status != 0 and "selected model (nobody)" in nobody.said
