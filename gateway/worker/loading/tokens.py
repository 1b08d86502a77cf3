"""A model's tokenizer from any library: `encode`, `decode`, and a chat template if it has one.

Supports Hugging Face's, `tokenizers`, tiktoken, sentencepiece, or a class of the author. How to call its methods is
determined once.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ...errors import BadRequest, HTTPError

# Fields of tokenizer_config.json that are reported, besides special tokens and template.
INFO = (
    "tokenizer_class model_max_length add_bos_token add_eos_token add_prefix_space clean_up_tokenization_spaces "
    "padding_side truncation_side"
).split()

# Names that transformers and Jinja use when they render: a variable with such a name would conflict.
RENDERERS = ("self", "conversations", "messages")
BEGUN = ("prefix", "partial")  # fields of Mistral and DeepSeek, Qwen and Moonshot for a message to continue


class Tokens:
    """`tokenizer` is the model's own. It is only used for rendering, because a template changes nothing.

    Encoding uses a copy. Hugging Face's tokenizers keep the truncation of their last call, so encoding with the same
    object as the model's own threads would truncate the model's inputs.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @staticmethod
    def of(model: Any) -> Tokens | None:
        """Return the model's attribute `tokenizer`, if it is a tokenizer."""
        try:
            tokenizer = getattr(model, "tokenizer", None)
        except Exception:  # a property may raise anything
            return None
        is_one = callable(getattr(tokenizer, "encode", None)) and not isinstance(tokenizer, str)  # str has `encode` too
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
        except Exception:  # it holds something that cannot be copied, such as a lock or a file
            return self._tokenizer

    @cached_property
    def _options(self) -> tuple[str | None, dict[str, Any]]:
        """The name of `encode`'s parameter for special tokens, and the options for every call."""
        encode = self._copy.encode
        special = "add_special_tokens" if accepts(encode, "add_special_tokens") else None
        # tiktoken: treat text that looks like a special token as text, not as an error
        always = {"disallowed_special": ()} if accepts(encode, "disallowed_special", by_name=True) else {}
        return special, always

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a text, with the special tokens around a prompt unless `special` is false."""
        name, always = self._options
        found = self._copy.encode(text, **always, **({name: special} if name else {}))
        return [int(token) for token in getattr(found, "ids", found)]

    @cached_property
    def _can_skip(self) -> bool:
        """Whether `decode` can leave out special tokens. A `**kwargs` does not count, because its effect is unknown."""
        return accepts(self._copy.decode, "skip_special_tokens", by_name=True)

    def text(self, ids: Sequence[int], *, special: bool = True) -> str:
        """Decode; without special tokens if `special` is false.

        Raises:
            BadRequest: unsupported_value, the tokenizer cannot leave them out.
        """
        if self._can_skip:  # always given, because the default of tokenizers and transformers differs
            return str(self._copy.decode(list(ids), skip_special_tokens=not special))
        if not special:
            what = "this model's tokenizer cannot leave out special tokens"
            raise BadRequest(what, param="skip_special_tokens", code="unsupported_value")
        return str(self._copy.decode(list(ids)))

    def names(self, ids: Sequence[int]) -> list[str]:
        """Return each token as a text."""
        convert = getattr(self._copy, "convert_ids_to_tokens", None)
        if callable(convert):
            return [str(name) for name in convert(list(ids))]
        return [self.text([token]) for token in ids]

    @cached_property
    def info(self) -> dict[str, Any]:
        """The parts of tokenizer_config.json that are useful to a client."""
        tokenizer = self._tokenizer
        given = getattr(tokenizer, "init_kwargs", None)
        given = given if isinstance(given, Mapping) else {}
        known = {name: given[name] for name in INFO if isinstance(given.get(name), str | bool | int | float)}
        special = getattr(tokenizer, "special_tokens_map", None)
        named = {name: str(token) for name, token in special.items()} if isinstance(special, Mapping) else {}
        longest = known.get("model_max_length")
        if isinstance(longest, int | float) and longest >= 2**63:  # transformers' value for "no limit"
            del known["model_max_length"]
        template = getattr(tokenizer, "chat_template", None)
        template = template.get("default") if isinstance(template, Mapping) else template
        added = getattr(tokenizer, "added_tokens_decoder", None)
        return {
            "tokenizer_class": type(tokenizer).__name__,
            **known,
            **dict.fromkeys(("bos_token", "eos_token", "pad_token")),
            **named,
            "chat_template": template if isinstance(template, str) else None,
            "added_tokens_decoder": {
                str(token): str(getattr(text, "content", text))
                for token, text in (added.items() if isinstance(added, Mapping) else ())
            },
        }

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def render(self, messages: Any, fields: Mapping[str, Any]) -> str:
        """Render messages and the other `fields` of their request to a prompt, with the chat template.

        The prompt ends where the answer begins, or at the end of the last message if the answer continues it.

        Raises:
            HTTPError: 400, the template does not accept these messages, or there is nothing to continue.
        """
        template = self._tokenizer.apply_chat_template
        goes_on, blanks = fields.get("continue_final_message") is True or _is_begun(messages), ""
        if goes_on:
            _check_continued(messages, template)
            if not (said := text_of(messages[-1])).strip():  # nothing to continue: a new answer
                messages, goes_on, blanks = messages[:-1], False, said
        answer = not goes_on and fields.get("add_generation_prompt") is not False
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": answer}
        if (tools := fields.get("tools")) and fields.get("tool_choice") != "none":
            options["tools"] = tools
        if isinstance(variables := fields.get("chat_template_kwargs"), dict):
            if taken := variables.keys() & {*RENDERERS, *(one.name for one in parameters_of(template)[:1])}:
                what = f"chat_template_kwargs cannot set {', '.join(sorted(taken))}"
                raise HTTPError(400, what, param="chat_template_kwargs")
            options = {**variables, **options}
        options = {name: value for name, value in options.items() if accepts(template, name)}
        if goes_on:
            options["continue_final_message"] = True
        try:
            rendered = template([plain_message(message) for message in messages], **options)
        except Exception as error:  # the template is a program in the checkpoint
            text = f"the model's chat template does not take these messages: {error}"
            raise HTTPError(400, text, param="messages") from error
        if isinstance(rendered, str):
            return rendered + blanks
        found = rendered["input_ids"] if isinstance(rendered, Mapping) else rendered
        return str(self._tokenizer.decode([int(token) for token in found])) + blanks

    def chat_ids(self, messages: Any, fields: Mapping[str, Any], *, special: bool = False) -> list[int]:
        """Return the token ids of the prompt; without a template, those of the texts joined by newlines."""
        if self.has_template:
            return self.ids(self.render(messages, fields), special=special)
        tools = fields.get("tools")
        return self.ids("\n".join([*map(text_of, messages), *([json.dumps(tools)] if tools else [])]))


def _is_begun(messages: Any) -> bool:
    """Return whether the last message itself asks to be continued."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and any(last.get(name) is True for name in BEGUN)


def _check_continued(messages: Any, template: Callable[..., Any]) -> None:
    """Check that there is an answer to continue and that the tokenizer supports it. Raises `HTTPError`, 400."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        what = "continue_final_message needs a last message of the assistant"
        raise HTTPError(400, what, param="continue_final_message")
    if last.get("tool_calls"):
        what = "the last message calls a tool, so it cannot be continued; its result is what comes next"
        raise HTTPError(400, what, param="messages")
    if not accepts(template, "continue_final_message"):
        what = "this model's tokenizer cannot continue a message"
        raise HTTPError(400, what, param="continue_final_message", code="unsupported_value")


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters; an empty list for compiled functions without a signature."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def accepts(function: Callable[..., Any], name: str, *, by_name: bool = False) -> bool:
    """Return whether a function accepts an argument of this name. With `by_name`, a `**kwargs` does not count."""
    parameters = parameters_of(function)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return any(parameter.name == name for parameter in parameters) or (takes_any and not by_name)


# ── messages as templates know them ──────────────────────────────────────────────────────────────────────────────────


def plain_message(message: Any) -> Any:
    """Convert a message for templates: text parts joined, `developer` as system, arguments of tool calls as objects."""
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
    """Return the text of a message. Other parts are returned unchanged, for templates that support them."""
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
    except ValueError:  # a model wrote them: they may be invalid
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def text_of(message: Any) -> str:
    """Return everything in a message that a model reads as text."""
    if not isinstance(message, dict):
        return ""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    calls = message.get("tool_calls")
    texts += [json.dumps(call) for call in calls] if isinstance(calls, list) else []
    return "\n".join(text for text in texts if isinstance(text, str))
