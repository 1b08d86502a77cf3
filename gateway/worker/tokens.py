"""A model's tokenizer, whatever library it comes from: `encode`, `decode`, and a chat template if it has one.

Hugging Face's, `tokenizers`, tiktoken, sentencepiece, or a class of the author's. How its methods are to be called is
found out once.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ..errors import HTTPError


class Tokens:
    """`tokenizer` is the model's own: only rendering uses it, for a template changes nothing.

    What encodes is a copy. Hugging Face's tokenizers keep the truncation of their last call, so encoding beside the
    model's own threads with the same object would cut the model's inputs short.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @staticmethod
    def of(model: Any) -> Tokens | None:
        """The tokenizer that the model keeps under this name, if it is one."""
        try:
            tokenizer = getattr(model, "tokenizer", None)
        except Exception:  # a property that has none to give
            return None
        is_one = callable(getattr(tokenizer, "encode", None)) and not isinstance(tokenizer, str)  # which encodes, too
        return Tokens(tokenizer) if is_one else None

    @property
    def has_template(self) -> bool:
        has_method = callable(getattr(self._tokenizer, "apply_chat_template", None))
        return has_method and bool(getattr(self._tokenizer, "chat_template", True))

    @property
    def decodes(self) -> bool:
        return callable(getattr(self._tokenizer, "decode", None))

    # ── texts and ids ────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _copy(self) -> Any:
        try:
            return copy.deepcopy(self._tokenizer)
        except Exception:  # it holds what cannot be copied, a lock or a file say
            return self._tokenizer

    @cached_property
    def _options(self) -> tuple[str | None, dict[str, Any]]:
        """What `encode` calls its wish for special tokens, and what has to be said with every call."""
        encode = self._copy.encode
        special = "add_special_tokens" if accepts(encode, "add_special_tokens") else None
        # tiktoken: text that looks like a special token is text, not an error
        always = {"disallowed_special": ()} if accepts(encode, "disallowed_special", by_name=True) else {}
        return special, always

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """The tokens of a text; with those that the tokenizer puts around a prompt, unless `special` is false."""
        name, always = self._options
        found = self._copy.encode(text, **always, **({name: special} if name else {}))
        return [int(token) for token in getattr(found, "ids", found)]

    def text(self, ids: Sequence[int]) -> str:
        return str(self._copy.decode(list(ids)))

    def names(self, ids: Sequence[int]) -> list[str]:
        """Every token as a text of its own."""
        convert = getattr(self._copy, "convert_ids_to_tokens", None)
        if callable(convert):
            return [str(name) for name in convert(list(ids))]
        return [self.text([token]) for token in ids]

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def render(self, messages: Any, tools: Any = None, *, answer: bool = True) -> str:
        """The prompt that the template makes of messages; it ends where the answer begins.

        Raises:
            HTTPError: 400, the template does not take these messages.
        """
        template = self._tokenizer.apply_chat_template
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": answer}
        if tools:
            options["tools"] = tools
        options = {name: value for name, value in options.items() if accepts(template, name)}
        try:
            rendered = template([plain_message(message) for message in messages], **options)
        except Exception as error:  # of the template, which is a program in the checkpoint
            text = f"the model's chat template does not take these messages: {error}"
            raise HTTPError(400, text, param="messages") from error
        if isinstance(rendered, str):
            return rendered
        found = rendered["input_ids"] if isinstance(rendered, Mapping) else rendered
        return str(self._tokenizer.decode([int(token) for token in found]))

    def chat_ids(self, messages: Any, tools: Any = None, *, answer: bool = True, special: bool = False) -> list[int]:
        """The tokens of the prompt; without a template those of the texts, a line each."""
        if self.has_template:
            return self.ids(self.render(messages, tools, answer=answer), special=special)
        return self.ids("\n".join([*map(text_of, messages), *([json.dumps(tools)] if tools else [])]))


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """None for what is compiled and silent about them."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def accepts(function: Callable[..., Any], name: str, *, by_name: bool = False) -> bool:
    """Whether a function takes an argument of this name; `by_name`: a `**kwargs` does not count."""
    parameters = parameters_of(function)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return any(parameter.name == name for parameter in parameters) or (takes_any and not by_name)


# ── messages as templates know them ──────────────────────────────────────────────────────────────────────────────────


def plain_message(message: Any) -> Any:
    """Text parts as one string, `developer` as system, arguments of calls as objects."""
    if not isinstance(message, dict):
        return message
    plain = {**message, "content": content_of(message)}
    if plain.get("role") == "developer":
        plain["role"] = "system"
    calls = plain.get("tool_calls")
    if isinstance(calls, list):
        plain["tool_calls"] = [_plain_call(call) for call in calls]
    return plain


def content_of(message: Mapping[str, Any]) -> Any:
    """The text of a message; parts that are no text stay as they are, for a template that knows them."""
    content = message.get("content")
    if not isinstance(content, list):
        return content or ""
    if all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        return "".join(part["text"] for part in content)
    return content


def _plain_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:  # a model wrote them
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def text_of(message: Any) -> str:
    """Everything in a message that a model reads as text."""
    if not isinstance(message, dict):
        return ""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    calls = message.get("tool_calls")
    texts += [json.dumps(call) for call in calls] if isinstance(calls, list) else []
    return "\n".join(text for text in texts if isinstance(text, str))
