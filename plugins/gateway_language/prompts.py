"""Make the prompt of a request: messages through the model's chat template, or a text, as token ids.

If requested, the last message of the assistant is continued: the prompt ends where its text ends.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway_fields import unsupported

from gateway import BadRequest

from . import fields, requests
from . import system_messages as system
from .answer import CLOSE, OPEN, TAGS
from .control import Control

if TYPE_CHECKING:
    from .control import Hidden
    from .tools import Parser

NO_EFFORT = ("none", "minimal")  # values of `reasoning_effort` that turn thinking off
SWITCHES = ("enable_thinking", "thinking")  # the names used in templates
# transformers and Jinja use these names when they render: variables of the same name would conflict.
RENDERERS = ("self", "conversations", "messages")
ENDING = 8  # tokens at the end of a prompt that show whether it has opened a thought

Json = dict[str, Any]
Maker = Callable[[list[Json], Json], tuple[str, bool, bool]]  # of messages and options; returns what `_continued` does


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt. `thought` is None if only the answer follows, otherwise whether the prompt has opened a thought.

    With `goes_on`, the answer continues the text of the prompt.
    """

    ids: list[int]
    thought: bool | None = None
    goes_on: bool = False


class Prompts:
    """Makes prompts. `family` is the format of tool calls, if any; `thinks`: whether the model writes thoughts.

    `begins` is the token at the beginning of a chat if the template writes none.
    """

    def __init__(self, tokenizer: Any, family: type[Parser] | None, thinks: bool, begins: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._can_call = family is not None
        self._thinks = thinks
        self._begins = list(begins)
        tag = tokenizer(OPEN, add_special_tokens=False)["input_ids"] if thinks else []
        self._opens = tag[0] if len(tag) == 1 else None  # the token that begins a thought
        self._control = Control(tokenizer, (*(TAGS if thinks else ()), *(family.tags if family else ())))
        self._source = ""  # the template whose names are cached
        self._names: frozenset[str] = frozenset()

    def plain(self, inputs: Mapping[str, Any]) -> Prompt:
        prompt = inputs.get("prompt")
        if isinstance(prompt, str):
            special = requests.read_flag(inputs, "add_special_tokens", True)
            return Prompt(self._tokenizer(prompt, add_special_tokens=special)["input_ids"])
        if isinstance(prompt, list) and all(type(token) is int for token in prompt):
            return Prompt(prompt)
        raise BadRequest("prompt must be a text or a list of token ids", param="prompt", code="invalid_type")

    def chat(self, inputs: Mapping[str, Any]) -> Prompt:
        """Make the prompt of `messages`, `tools` and the other template fields.

        Raises:
            BadRequest: the template does not accept them, or there is nothing to continue.
        """
        if not self._tokenizer.chat_template:
            what = "this model has no chat template, so it cannot chat; use /v1/completions"
            raise unsupported(what, "messages")
        given = inputs.get("messages") or []
        messages = [requests.read_message(one, index, can_call=self._can_call) for index, one in enumerate(given)]
        if not messages:
            raise BadRequest("messages must hold at least one message", param="messages")
        options = self._options(inputs)
        goes_on = requests.read_begun(given) or requests.read_flag(inputs, "continue_final_message")
        begins = requests.read_flag(inputs, "add_generation_prompt", not goes_on)
        if goes_on and begins:
            what = "continue_final_message and add_generation_prompt exclude each other; send one of them"
            raise BadRequest(what, param="add_generation_prompt")
        special = requests.read_flag(inputs, "add_special_tokens")
        make = self._continued if goes_on else partial(self._begun, begins=begins)
        ids, thought, goes_on = self._ids(make, messages, options, special)
        ids = ids if ids[:1] == self._begins else self._begins + ids
        if not self._thinks:
            return Prompt(ids, None, goes_on)
        return Prompt(ids, thought or (None if goes_on else self._has_opened(ids[-ENDING:])), goes_on)

    def _has_opened(self, ending: list[int]) -> bool:
        """Return whether the template has begun a thought. A tag in the user's text is not the token of the tag."""
        if self._opens is None:
            return bool(self._tokenizer.decode(ending).rstrip().endswith(OPEN))
        while ending and not self._tokenizer.decode(ending[-1:]).strip():
            ending.pop()
        return ending[-1:] == [self._opens]

    def call(self, name: str, written: Callable[[str], str]) -> list[int]:
        """Return the beginning of a call of this function, as `written` formats it."""
        return self._ids(lambda _, options: (written(options["name"]), False, False), [], {"name": name}, False)[0]

    def _ids(self, make: Maker, messages: list[Json], options: Json, special: bool) -> tuple[list[int], bool, bool]:
        """Return the token ids of the rendered text, with the other results of `make`.

        Control tokens in the client's text are text, unless the template makes that impossible.

        Raises:
            BadRequest: as `_of_hidden`.
        """
        hidden = self._control.hidden(messages, options)
        if hidden is not None and (made := self._of_hidden(hidden, make, messages, options, special)) is not None:
            return made
        text, thought, goes_on = make(messages, options)
        if hidden is not None:
            self._control.warn("its chat template changes what is written")
        return self._tokenizer(text, add_special_tokens=special)["input_ids"], thought, goes_on

    def _of_hidden(
        self, hidden: Hidden, make: Maker, messages: list[Json], options: Json, special: bool
    ) -> tuple[list[int], bool, bool] | None:
        """Render with hidden control tokens; return None if the template changes them.

        Raises:
            BadRequest: the template does not accept them. A value that it only accepts unchanged, such as an id of a
                certain length, is refused too: there is no prompt in which it is text.
        """
        try:
            (text, thought, goes_on), (again, _, _) = (make(*request) for request in hidden.requests())
        except BadRequest as refused:
            make(messages, options)  # raises an error in terms of the client's text, without the numbers
            what = (
                f"the model's chat template checks the form of a text that contains a control token ({hidden.shown}), "
                "such as the id of a call: send that without it"
            )
            raise BadRequest(what, param="messages") from refused
        ids = hidden.ids(text, again, special=special)
        return None if ids is None else (ids, thought, goes_on)

    def _begun(self, messages: list[Json], options: Json, *, begins: bool) -> tuple[str, bool, bool]:
        return self._render(messages, options, add_generation_prompt=begins), False, False

    # ── continuing a last message ────────────────────────────────────────────────────────────────────────────────────

    def _continued(self, messages: list[Json], options: Json) -> tuple[str, bool, bool]:
        """Render the prompt up to the end of the last message.

        Return the text, whether its end is inside a thought, and whether there is text to continue: an empty last
        message starts a new answer, after its whitespace.
        """
        *before, last = messages
        if last.get("role") != "assistant":
            what = "continue_final_message needs a last message of the assistant; the last one is from the"
            raise BadRequest(f"{what} {last.get('role')}", param="continue_final_message")
        if last.get("tool_calls"):
            what = "the last message calls a tool, so it cannot be continued; its result is what comes next"
            raise BadRequest(what, param="messages")
        failure: Exception | None = None
        for message in self._readings(last):
            field = next((name for name in ("content", "reasoning_content") if _says(message.get(name))), None)
            if field is None:
                text = self._render(before, options, add_generation_prompt=True) if before else ""
                return text + last["content"], False, False
            try:
                text = self._apply([*before, message], options, continue_final_message=field)
            except ValueError as error:  # the template leaves out or changes a part of the message
                failure = error
            else:
                return text, field == "reasoning_content" or _is_open(message["content"]), True
        what = "the model's chat template changes the last message, so it cannot be continued"
        raise unsupported(what, "continue_final_message") from failure

    def _readings(self, last: Json) -> Iterator[Json]:
        """Yield the possible readings of the message, best first.

        A thought inside its text is moved to its own field, or the reverse if the template does not know thoughts.
        """
        content, told = last["content"], last.get("reasoning_content")
        if self._thinks and content.lstrip().startswith(OPEN) and not _says(told):
            thought, _, said = content.lstrip().removeprefix(OPEN).partition(CLOSE)
            yield {**last, "reasoning_content": thought.lstrip("\n"), "content": said.lstrip("\n")}
        yield last
        if self._thinks and _says(told) and not _says(content):
            yield {**last, "reasoning_content": None, "content": f"{OPEN}\n{told}"}

    # ── the template ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _render(self, messages: list[Json], options: Json, *, add_generation_prompt: bool) -> str:
        try:
            return self._apply(messages, options, add_generation_prompt=add_generation_prompt)
        except ValueError as error:
            raise _refused(error) from error

    def _apply(self, messages: list[Json], options: Json, **how: Any) -> str:
        """Return the text of the first reading that the template accepts and that contains all system messages.

        If a template changes their form, no reading contains them: then the first accepted one is used.
        """
        from jinja2 import TemplateError

        told = system.texts(messages)
        taken: str | None = None
        failure: Exception | None = None  # for the messages as they were sent
        for reading in system.readings(messages):
            try:
                text = str(self._tokenizer.apply_chat_template(reading, tokenize=False, **how, **options))
            except (TemplateError, TypeError) as error:
                failure = failure or error
                continue
            if all(part in text for part in told):
                return text
            taken = text if taken is None else taken
        if taken is None:
            assert failure is not None
            raise _refused(failure) from failure
        return taken

    def _options(self, inputs: Mapping[str, Any]) -> Json:
        """Return the template's arguments besides the messages."""
        options = inputs.get("chat_template_kwargs") or {}
        reserved = {*inspect.signature(self._tokenizer.apply_chat_template).parameters, *RENDERERS}
        if not isinstance(options, dict) or (taken := options.keys() & reserved):
            what = f"cannot set {', '.join(sorted(taken))}" if isinstance(options, dict) else "must be an object"
            raise BadRequest(f"chat_template_kwargs {what}", param="chat_template_kwargs")
        options = {**self._thinking(inputs), **options}
        if documents := inputs.get("documents"):
            if "documents" not in self._known:
                raise unsupported("this model's chat template takes no documents", "documents")
            options["documents"] = documents
        tools = requests.read_tools(inputs, can_call=self._can_call)
        if tools is not None:
            options["tools"] = tools.offered
            if tools.forced and self._thinks:
                options["enable_thinking"] = False  # the answer begins with the call
        return options

    def _thinking(self, inputs: Mapping[str, Any]) -> Json:
        """Return effort and switch in the names of templates.

        Raises:
            BadRequest: the model always or never thinks, and the request asks for the opposite.
        """
        effort, wanted, asked = inputs.get("reasoning_effort"), None, ""
        if not isinstance(effort, str | None):
            raise BadRequest("reasoning_effort must be a string", param="reasoning_effort", code="invalid_type")
        for name in ("reasoning", *SWITCHES, "think"):
            if (value := inputs.get(name)) is None:
                continue
            if name == "reasoning":
                told, more = _reasoning(value)
                effort = more or effort
            elif name == "think" and isinstance(value, str):
                told, effort = True, value
            else:
                if name == "thinking" and isinstance(value, dict):
                    fields.check_inside(name, value, ("type",), _limit(inputs))
                told = _switch(value, name)
            if told is not None:
                wanted, asked = told, name
        takes_effort = self._thinks or "reasoning_effort" in self._known
        options: Json = {}
        if isinstance(effort, str) and takes_effort:
            options = {"reasoning_effort": effort, "enable_thinking": effort not in NO_EFFORT}
        if wanted is not None and not self._known & {*SWITCHES} and wanted != self._thinks:
            how = "always" if self._thinks else "never"
            raise unsupported(f"this model {how} thinks, and {asked} cannot change that", asked)
        return options if wanted is None else {**options, **dict.fromkeys(SWITCHES, wanted)}

    @property
    def _known(self) -> frozenset[str]:
        """Return the names in the template's code. Tests and advanced users replace the template."""
        template = self._tokenizer.chat_template or ""
        source = template if isinstance(template, str) else "\n".join(template.values())
        if source is not self._source:
            code = " ".join(re.findall(r"\{[{%](.*?)[}%]\}", source, re.DOTALL))
            self._names = frozenset(re.findall(r"\w+", re.sub(r"'[^']*'|\"[^\"]*\"", " ", code)))
            self._source = source
        return self._names


def wants_thought(inputs: Mapping[str, Any]) -> bool:
    """Return whether a request asks for a thought. Its fields have been checked."""
    effort, reasoning = inputs.get("reasoning_effort"), inputs.get("reasoning") or {}
    options = inputs.get("chat_template_kwargs") or {}
    efforts = [one for one in (effort, reasoning.get("effort")) if one is not None]
    switches = [reasoning.get("enabled"), *(given.get(name) for given in (inputs, options) for name in SWITCHES)]
    asked = [value for value in (*switches, inputs.get("think")) if value is not None]
    if asked:
        return any(isinstance(one, str) or _switch(one, "thinking") for one in asked)
    return any(one not in NO_EFFORT for one in efforts)


def _says(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _is_open(text: str) -> bool:
    return text.rfind(OPEN) > text.rfind(CLOSE)


def _switch(value: Any, name: str) -> bool:
    kind = value.get("type") if isinstance(value, dict) and name == "thinking" else value
    if isinstance(kind, str) and kind in ("enabled", "adaptive", "disabled"):
        return kind != "disabled"
    if not isinstance(kind, bool):
        raise BadRequest(f"{name} must be true or false", param=name, code="invalid_type")
    return kind


def _limit(inputs: Mapping[str, Any]) -> int | None:
    """Return the limit of the answer, if the request has one."""
    limit = inputs.get("max_completion_tokens", inputs.get("max_tokens"))
    return limit if type(limit) is int else None


def _reasoning(value: Any) -> tuple[bool | None, str | None]:
    known = ("effort", "enabled", "summary", "generate_summary")
    if not isinstance(value, dict):
        raise BadRequest("reasoning must be an object", param="reasoning", code="invalid_type")
    fields.check_inside("reasoning", value, known)
    effort = value.get("effort")
    if not isinstance(effort, str | None):
        raise BadRequest("reasoning.effort must be a string", param="reasoning.effort", code="invalid_type")
    enabled = value.get("enabled")
    return (None if enabled is None else _switch(enabled, "reasoning.enabled")), effort


def _refused(error: Exception) -> BadRequest:
    return BadRequest(f"the model's chat template does not accept these messages: {error}", param="messages")
