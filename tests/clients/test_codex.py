"""Codex, with nothing but a provider in its settings: its requests are larger than tiny-chat's context, so the scripted
model answers most of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .asking import steps
from .commands import Ran, run

Codex = Callable[..., Ran]
SETTINGS = """
model = "script"
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "{url}/v1"
env_key = "GATEWAY_API_KEY"
"""


@pytest.fixture
def codex(url: str, key: str, place: Path, tmp_path: Path) -> Codex:
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "config.toml").write_text(SETTINGS.format(url=url))
    command = str(place / "node_modules" / ".bin" / "codex")

    def ask(*arguments: str, key: str = key) -> Ran:
        return run([command, "exec", "--skip-git-repo-check", *arguments], tmp_path, GATEWAY_API_KEY=key)

    return ask


def test_it_runs_and_goes_on_from_what_was_said(codex: Codex) -> None:
    first = codex(steps("Hello from here."))
    assert (first.status, first.said.strip()) == (0, "Hello from here."), first.beside
    again = codex("resume", "--last", steps(["show", "messages"]))
    assert again.status == 0 and "Hello from here." in again.said, again.beside


def test_a_tool_of_its_own_is_run(codex: Codex) -> None:
    call = {"tool_calls": [{"name": "exec_command", "arguments": {"cmd": "echo $((6 * 7))"}}]}
    ran = codex(steps({"reasoning_content": "I have to count."}, "Let me see.", call))
    assert ran.status == 0 and "The tool said:" in ran.said and "\n42" in ran.said, ran.beside


def test_a_call_of_a_grouped_tool_reaches_its_handler(codex: Codex) -> None:
    call = {"tool_calls": [{"name": "multi_agent_v1__close_agent", "arguments": {"target": "nobody"}}]}
    ran = codex(steps(call))
    assert ran.status == 0 and "invalid agent id nobody" in ran.said, ran.beside  # and not "unsupported call"


def test_a_freeform_tool_gets_its_text(codex: Codex, tmp_path: Path) -> None:
    """Under the name of one of OpenAI's models it offers `apply_patch`, whose input is no JSON."""
    patch = '*** Begin Patch\n*** Add File: hello.txt\n+h\u00e4llo "w\u00f6rld"\n*** End Patch\n'
    call = {"tool_calls": [{"name": "apply_patch", "arguments": {"input": patch}}]}
    ran = codex("-s", "workspace-write", "-m", "gpt-5.5", steps(call))
    assert ran.status == 0, ran.beside
    assert (tmp_path / "work" / "hello.txt").read_text() == 'h\u00e4llo "w\u00f6rld"\n', ran.said


def test_what_does_not_fit_and_who_is_not_there_are_told_at_once(codex: Codex) -> None:
    long = codex("-m", "tiny-chat", "What is the capital of Iceland?")
    assert long.status != 0 and "ran out of room in the model's context window" in long.beside
    nobody = codex("-m", "nobody", "hi")
    assert nobody.status != 0 and "no model named 'nobody'" in nobody.beside


def test_a_wrong_key_ends_it_with_our_words(codex: Codex) -> None:
    """It tries six times within some seconds, whatever the answer says about that."""
    wrong = codex(steps("x"), key="sk-wrong")
    assert wrong.status != 0 and "Incorrect API key provided" in wrong.beside
