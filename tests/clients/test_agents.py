"""Requests as coding agents send them: a loop of turns, tools and results, through both SDKs."""

from __future__ import annotations

import json
from typing import Any

import anthropic

from .asking import steps

READ = {
    "name": "Read",
    "description": "Reads a file.",
    "input_schema": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"file_path": {"type": "string", "description": "absolute"}, "limit": {"type": "number"}},
        "required": ["file_path"],
        "additionalProperties": False,
    },
}
BREAK = {"cache_control": {"type": "ephemeral"}}


def test_a_coding_agent_on_messages_reads_a_file_and_answers(claude: anthropic.Anthropic) -> None:
    """As Claude Code asks: blocks with cache_control everywhere, the beta endpoint, a header of betas, metadata."""
    call = {"tool_calls": [{"name": "Read", "arguments": {"file_path": "/etc/hosts"}}]}
    plan = steps({"reasoning_content": "I need the file."}, "I'll read it.", call)
    asked: dict[str, Any] = {
        "model": "script",
        "max_tokens": 21333,
        "system": [
            {"type": "text", "text": "You are a coding agent.", **BREAK},
            {"type": "text", "text": "# Environment\nLinux", **BREAK},
        ],
        "tools": [READ, {**READ, "name": "Edit", **BREAK}],
        "metadata": {"user_id": "user_1_session_2"},
        "thinking": {"type": "enabled", "budget_tokens": 10000},
        "betas": ["claude-code-20250219", "interleaved-thinking-2025-05-14"],
    }
    messages: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>\nBe brief.\n</system-reminder>"},
                {"type": "text", "text": "What is in /etc/hosts?", **BREAK},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "Go on."}]},
        {"role": "user", "content": [{"type": "text", "text": plan, **BREAK}]},
    ]
    with claude.beta.messages.stream(**asked, messages=messages) as stream:
        first = stream.get_final_message()
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    assert first.stop_reason == "tool_use"
    use: Any = first.content[-1]
    assert (use.name, use.input) == ("Read", {"file_path": "/etc/hosts"})

    result = {
        "type": "tool_result",
        "tool_use_id": use.id,
        "content": [{"type": "text", "text": "127.0.0.1 localhost"}],
        "is_error": False,
        **BREAK,
    }
    messages += [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]},
        {"role": "user", "content": [result]},
    ]
    with claude.beta.messages.stream(**asked, messages=messages) as stream:
        second = stream.get_final_message()
    assert [(block.type, getattr(block, "text", "")) for block in second.content] == [
        ("text", "The tool said: 127.0.0.1 localhost")
    ]
    assert second.stop_reason == "end_turn"
    fields = {name: value for name, value in asked.items() if name in ("model", "system", "tools", "betas")}
    assert claude.beta.messages.count_tokens(**fields, messages=messages).input_tokens > 0


def test_what_an_agent_says_arrives_in_order(claude: anthropic.Anthropic) -> None:
    messages: list[Any] = [
        {"role": "user", "content": "Read both."},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": f"toolu_{one}", "name": "Read", "input": {"file_path": one}} for one in "ab"
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_a", "content": "A"},
                {"type": "tool_result", "tool_use_id": "toolu_b", "content": "no such file", "is_error": True},
                {"type": "text", "text": steps(["show", "messages", "tools"])},
            ],
        },
    ]
    answer: Any = claude.messages.create(model="script", max_tokens=100, tools=[READ], messages=messages)  # type: ignore[list-item]
    seen = json.loads(answer.content[0].text)
    assert [message["role"] for message in seen["messages"]] == ["user", "assistant", "tool", "tool", "user"]
    calls = seen["messages"][1]["tool_calls"]
    assert [(call["id"], json.loads(call["function"]["arguments"])["file_path"]) for call in calls] == [
        ("toolu_a", "a"),
        ("toolu_b", "b"),
    ]
    assert seen["messages"][3]["tool_call_id"] == "toolu_b" and seen["tools"][0]["function"]["name"] == "Read"
