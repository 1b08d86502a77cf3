"""A last message that is continued, by the chat templates there are: what the prompt ends with, and what follows."""

from __future__ import annotations

from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from gateway_language.prompts import Prompts  # noqa: E402
from gateway_language.tools import Hermes  # noqa: E402

from gateway import BadRequest  # noqa: E402

ASKED = [{"role": "user", "content": "Where?"}]
THOUGHT = "<think>\n{}\n</think>\n\n"

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As Llama 3: what is said is trimmed, so its prompt cannot end with a blank.
TRIMS = (
    "{% for m in messages %}<|{{ m.role }}|>\n\n{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n\n{% endif %}"
)
# As Qwen 3: the last answer has its thought before it, an empty one where there was none.
THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "<think>\n{{ (m.reasoning_content or '').strip('\n') }}\n</think>\n\n{{ said }}"
    "{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# As DeepSeek R1: thoughts of earlier turns are left out, and a new answer begins with one.
OPENS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
# As Gemma: another word for the assistant, and roles that have to alternate.
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|{{ 'model' if m.role == 'assistant' else m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|model|>{% endif %}"
)
LOUD = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
DROPS = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"


class Characters:
    """transformers' own rendering, and a token for each character."""

    def __init__(self, template: str) -> None:
        from tokenizers import Tokenizer, models

        self._real = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
        self._real.chat_template = self.chat_template = template
        self.apply_chat_template = self._real.apply_chat_template

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": list(map(ord, text))}

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def prompt(template: str, last: Any, thinks: bool = False, **fields: Any) -> tuple[str, bool | None, bool]:
    """The text, whether it ends within a thought (None: only an answer may follow), and whether that goes on."""
    tokenizer = Characters(template)
    message = last if isinstance(last, dict) else {"role": "assistant", "content": last}
    asked = {"messages": [*ASKED, message], "continue_final_message": True, **fields}
    found = Prompts(tokenizer, Hermes, thinks).chat(asked)
    return tokenizer.decode(found.ids), found.thought, found.goes_on


def refused(*args: Any, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        prompt(*args, **fields)
    return caught.value


@pytest.mark.parametrize(
    ("template", "thinks", "before"),
    [
        (CHATML, False, "<|user|>Where?<|end|><|assistant|>"),
        (TRIMS, False, "<|user|>\n\nWhere?<|end|><|assistant|>\n\n"),
        (THINKS, True, "<|user|>Where?<|end|><|assistant|>" + THOUGHT.format("")),
        (OPENS, True, "<|user|>Where?<|end|><|assistant|>"),
        (ALTERNATES, False, "<|user|>Where?<|end|><|model|>"),
    ],
)
@pytest.mark.parametrize("said", ["In Rey", "a\nb", "<b>", "é", "CONTINUE_FINAL_MESSAGE_TAG", "{{ 1 }}"])
def test_the_prompt_ends_where_the_message_does_and_the_answer_follows(
    template: str, thinks: bool, before: str, said: str
) -> None:
    assert prompt(template, said, thinks) == (before + said, None, True)
    parts = [{"type": "text", "text": said[:1]}, {"type": "text", "text": said[1:]}]
    assert prompt(template, parts, thinks) == (before + said, None, True)
    library = Characters(template).apply_chat_template(
        [*ASKED, {"role": "assistant", "content": said}], tokenize=False, continue_final_message=True
    )
    assert library == before + said


def test_a_blank_at_the_end_stays_where_the_template_leaves_it() -> None:
    assert prompt(CHATML, "In ")[0].endswith("<|assistant|>In ")
    assert prompt(TRIMS, "In ")[0].endswith("<|assistant|>\n\nIn")


@pytest.mark.parametrize("blanks", ["\n", "  ", "\n\n"])
def test_blanks_alone_are_the_beginning_of_the_answer(blanks: str) -> None:
    library = Characters(CHATML).apply_chat_template(
        [*ASKED, {"role": "assistant", "content": blanks}], tokenize=False, continue_final_message=True
    )
    assert prompt(CHATML, blanks) == (library, None, False)
    for template, thinks in ((TRIMS, False), (ALTERNATES, False), (THINKS, True), (OPENS, True)):
        new = Characters(template).apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
        assert prompt(template, blanks, thinks)[0] == new + blanks


@pytest.mark.parametrize("mark", ["prefix", "partial"])
def test_a_message_may_say_itself_that_the_answer_continues_it(mark: str) -> None:
    tokenizer = Characters(CHATML)
    begun = {"role": "assistant", "content": "In Rey", mark: True}
    prompts = Prompts(tokenizer, Hermes, False)
    asked = {"messages": [*ASKED, begun]}
    assert tokenizer.decode(prompts.chat(asked).ids) == prompt(CHATML, "In Rey")[0]
    silent = {**asked, "messages": [*ASKED, {**begun, mark: False}]}
    assert tokenizer.decode(prompts.chat(silent).ids).endswith("In Rey<|end|><|assistant|>")
    for messages, where in (
        ([{**ASKED[0], mark: True}], 0),
        ([*ASKED, {**ASKED[0], mark: True}], 1),
        ([*ASKED, begun, *ASKED], 1),
    ):
        with pytest.raises(BadRequest) as caught:
            prompts.chat({"messages": messages})
        assert caught.value.param == f"messages[{where}].{mark}"
    with pytest.raises(BadRequest, match="exclude each other"):
        prompts.chat({**asked, "add_generation_prompt": True})


@pytest.mark.parametrize("nothing", ["", None, []])
def test_where_nothing_was_said_a_new_answer_begins(nothing: Any) -> None:
    for template in (CHATML, TRIMS, ALTERNATES):
        tokenizer = Characters(template)
        new = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
        assert prompt(template, nothing) == (new, None, False)
    assert prompt(THINKS, nothing, True)[1:] == (False, False)
    assert prompt(OPENS, nothing, True)[1:] == (True, False)  # this template begins every answer with a thought


def test_a_thought_before_the_answer_is_kept_as_one() -> None:
    told = {"role": "assistant", "content": "In Rey", "reasoning_content": "An island."}
    tagged = "<think>\nAn island.\n</think>\n\nIn Rey"
    for last in (told, tagged, [{"type": "text", "text": tagged}]):
        text, thought, goes_on = prompt(THINKS, last, True)
        assert text.endswith("<|assistant|>" + THOUGHT.format("An island.") + "In Rey")
        assert (thought, goes_on) == (None, True)
    assert prompt(OPENS, tagged, True) == prompt(OPENS, "In Rey", True)  # this template leaves earlier thoughts out


def test_a_thought_that_was_begun_goes_on_as_one() -> None:
    told = {"role": "assistant", "content": None, "reasoning_content": "An isl"}
    for last in (told, "<think>\nAn isl"):
        assert prompt(THINKS, last, True) == (
            "<|user|>Where?<|end|><|assistant|><think>\nAn isl",
            True,
            True,
        )
    for last in (told, "<think>\nAn isl"):  # a template that knows no thoughts leaves one in the text
        assert prompt(OPENS, last, True) == ("<|user|>Where?<|end|><|assistant|><think>\nAn isl", True, True)


def test_tags_mean_nothing_to_a_model_that_does_not_think() -> None:
    assert prompt(CHATML, "<think>\nAn isl") == ("<|user|>Where?<|end|><|assistant|><think>\nAn isl", None, True)


def test_a_template_that_changes_the_message_says_that_it_cannot_go_on() -> None:
    for template in (LOUD, DROPS):
        error = refused(template, "In Rey")
        assert (error.status, error.code, error.param) == (400, "unsupported_value", "continue_final_message")


def test_a_template_that_refuses_the_messages_says_why() -> None:
    error = refused(ALTERNATES, "b", messages=[*ASKED, *ASKED, {"role": "assistant", "content": "b"}])
    assert error.param == "messages" and "roles must alternate" in error.message


def test_only_an_answer_is_continued() -> None:
    error = refused(CHATML, {"role": "user", "content": "And"})
    assert error.param == "continue_final_message" and "the last one is from the user" in error.message
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    error = refused(CHATML, {"role": "assistant", "content": "a", "tool_calls": [call]})
    assert error.param == "messages" and "calls a tool" in error.message


def test_an_answer_is_either_begun_or_continued() -> None:
    assert refused(CHATML, "a", add_generation_prompt=True).param == "add_generation_prompt"
    assert prompt(CHATML, "a", add_generation_prompt=False) == prompt(CHATML, "a")
    assert prompt(CHATML, "a", continue_final_message=False)[0].endswith("a<|end|><|assistant|>")
    bare = prompt(CHATML, "a", continue_final_message=False, add_generation_prompt=False)
    assert bare[0].endswith("<|assistant|>a<|end|>")


def test_tools_that_may_not_be_called_are_not_shown() -> None:
    template = "{% if tools %}tools {% endif %}" + CHATML
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert prompt(template, "a", tools=tools)[0].startswith("tools ")
    assert prompt(template, "a", tools=tools, tool_choice="none") == prompt(template, "a")


@pytest.mark.parametrize(("opened", "thought"), [("", False), ("<think>", True), ("<think>\n\n", True)])
def test_the_tag_of_a_thought_that_a_user_wrote_last_opens_none(opened: str, thought: bool) -> None:
    """By a template that writes nothing behind what the user says."""
    from tokenizers import Tokenizer, decoders, models

    letters = {chr(code): code for code in range(128)}
    backend = Tokenizer(models.BPE(letters, []))
    backend.decoder = decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}" + opened.replace("\n", "{{ '\\n' }}")
    found = Prompts(tokenizer, None, True).chat({"messages": [{"role": "user", "content": "What is <think>"}]})
    assert tokenizer.decode(found.ids) == "What is <think>" + opened
    assert found.thought is thought
