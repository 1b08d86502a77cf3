"""Vercel's AI SDK: turns, tools, a stop and errors, through its providers for OpenAI, the like of it, and Anthropic."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .asking import ANSWER, PATIENCE, QUESTION, SUM, TINY, TOLD, TOTAL, WEATHER, steps, wait_for

SCRIPT = Path(__file__).parent / "node" / "vercel.mjs"
PROVIDERS = ("openai", "chat", "compatible", "anthropic")  # the first speaks responses and refers to items


def ask(scenario: str, provider: str, model: str, *told: str, **env: str) -> Any:
    command = ["node", str(SCRIPT), scenario, provider, model, json.dumps(told)]
    result = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("how", ["whole", "streamed"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_three_turns_go_on_from_each_other(provider: str, how: str) -> None:
    told = (QUESTION, SUM, "What sound does a cow make?")
    assert ask(how, provider, TINY, *told) == {"texts": [ANSWER, TOTAL, "Moo!"]}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_plain_class_is_asked_turn_by_turn(provider: str) -> None:
    assert ask("streamed", provider, "shout", "one", "two", "three")["texts"] == ["ONE ", "TWO ", "THREE "]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_tool_is_called_and_its_result_is_told(provider: str) -> None:
    found = ask("loop", provider, TINY, WEATHER)
    assert found == {"text": TOLD, "steps": 2, "inputs": [{"city": "Riga"}], "errors": []}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_thoughts_and_several_calls_come_back_in_the_next_step(provider: str) -> None:
    calls = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Riga", "Oslo")]
    plan = steps({"reasoning_content": "I have to look twice."}, "Let me see.", {"tool_calls": calls})
    found = ask("loop", provider, "script", plan)
    assert found["inputs"] == [{"city": "Riga"}, {"city": "Oslo"}] and found["errors"] == []
    assert found["steps"] == 2 and "Oslo" in found["text"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stop_ends_the_models_code(provider: str, tmp_path: Path) -> None:
    left = tmp_path / "left"
    found = ask("abort", provider, "script", steps(["finally", str(left)], "so far", ["wait", "/nowhere"]))
    assert found == {"seen": "so far", "aborted": True}
    wait_for(left)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_wrong_key_and_an_unknown_model_are_errors_that_are_not_tried_again(provider: str) -> None:
    wrong = ask("error", provider, TINY, QUESTION, CLIENTS_KEY="sk-wrong")
    assert (wrong["status"], wrong["again"]) == (401, False) and "Incorrect API key" in wrong["message"]
    unknown = ask("error", provider, "nobody", QUESTION)
    assert (unknown["status"], unknown["again"]) == (404, False) and "nobody" in unknown["message"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_may_pass_is_tried_again_until_it_does(provider: str, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    assert ask("error", provider, "script", steps(["fail", str(calls), 1], "at last")) == {}
    assert len(calls.read_text().splitlines()) == 2
