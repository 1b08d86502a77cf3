"""What the system says behind the user's words reaches a template that wants it first, by every dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
import pytest
from gateway_language.prompts import Prompts
from served import Model, Served

from gateway.dialects.anthropic import messages
from gateway.dialects.responses import route

FIRST = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ refuse() }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
TURNS = [
    {"role": "user", "content": "Q"},
    {"role": "system", "content": "S"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "P"},
    {"role": "system", "content": [{"type": "text", "text": "T"}]},
]


class Letters:
    """A tokenizer whose template wants the system first; a token is a letter."""

    chat_template = FIRST

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": list(map(ord, text))}

    def apply_chat_template(self, conversation: Any, tokenize: bool, **variables: Any) -> str:
        return jinja2.Template(FIRST).render(messages=conversation, refuse=refuse, **variables)


def refuse() -> None:
    raise jinja2.TemplateError("System message must be at the beginning.")


def prompt(inputs: Any) -> str:
    return "".join(map(chr, Prompts(Letters(), None, False).chat(inputs).ids))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "developer", "content": "R"}, *TURNS]}),
        ("/v1/messages", {"system": "R", "messages": TURNS, "max_tokens": 9}),
        ("/v1/responses", {"instructions": "R", "input": [*TURNS[:-1], {"role": "developer", "content": "T"}]}),
    ],
)
def test_all_that_the_system_says_stands_first(serve: Callable[..., Served], path: str, body: Any) -> None:
    with pytest.raises(jinja2.TemplateError):
        Letters().apply_chat_template(TURNS, tokenize=False)
    served = serve({"m": Model({"chat_completions": prompt})}, plugins=[messages, route])
    answer = served.post(path, body)
    assert answer.status == 200, answer.body
    assert "<system>R\\n\\nS\\n\\nT<user>Q<assistant>A<user>P" in answer.body.decode()
