"""Whoever takes the body for its messages is told that it is the body."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.worker.bodies.whole_body import about_body

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": ["a"]}


def raised(tmp_path: Path, code: str) -> BaseException:
    """What the first method of a class raises when it is called with the body."""
    path = tmp_path / "model.py"
    path.write_text(f"class Model:\n    {code}\n")
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    method = next(value for name, value in vars(names["Model"]).items() if not name.startswith("__"))
    try:
        list(method(names["Model"](), BODY) or ())
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            'def chat_completions(self, messages): return messages[-1]["content"]',
            'messages is a dict; take messages["messages"]',
        ),
        ('def chat_completions(self, messages): yield messages[-1]["content"]', 'take messages["messages"]'),
        ("def chat_completions(self, messages): return messages[-2:]", 'take messages["messages"]'),
        ('def chat_completions(self, messages): return [m["content"] for m in messages]', 'take messages["messages"]'),
        ("def chat_completions(self, body): return body.messages", 'body is a dict; take body["messages"]'),
        ("def chat_completions(self, prompt): return prompt.strip()", 'take prompt["messages"]'),
        ("def chat_completions(self, chat): return chat[0]", 'take chat["messages"]'),
        ("def embeddings(self, input): return [len(t) for t in input + []]", 'take input["input"]'),
    ],
)
def test_a_method_that_fails_on_the_body_is_told_which_field_it_wants(tmp_path: Path, code: str, said: str) -> None:
    text = about_body(raised(tmp_path, code), code.split()[1].partition("(")[0], [str(tmp_path)])
    assert "is given the whole body of the request" in text
    assert said in text


@pytest.mark.parametrize(
    "code",
    [
        'def chat_completions(self, messages): return messages["messages"] + 1',
        'def chat_completions(self, messages): return {}["other"]',
        'def chat_completions(self, body): return body["top_k"]',
        "def chat_completions(self, body): return {}[7]",
        "def chat_completions(self, body): return None + 1",
        "def chat_completions(self, messages): raise ValueError('no')",
        "def predict(self, messages): return messages[-1]",
    ],
)
def test_other_errors_of_a_method_are_left_as_they_are(tmp_path: Path, code: str) -> None:
    assert about_body(raised(tmp_path, code), code.split()[1].partition("(")[0], [str(tmp_path)]) == ""
