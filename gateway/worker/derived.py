"""Methods that a class lacks, made of what it has: a tokenizer, or `count_tokens`, or `completions`.

    count_tokens       of its own `count_tokens`, which is asked for one text or one list of messages, or of `tokenizer`
    tokenize           of `tokenizer`
    detokenize         of `tokenizer`
    tokenizer_info     of `tokenizer`
    chat_completions   of `completions` and the chat template of `tokenizer`

The first four are short work for the processor, so they hold no slot; they run one after the other on a thread of
their own. The last one is `completions` with another input: it holds a slot as any method that serves.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import replace
from operator import index
from typing import Any, NoReturn

from ..errors import BadRequest, HTTPError, InvalidOutput
from ..spec import ModelSpec
from ..wording import a_type
from . import truss
from .adapter import Descriptor, Method, kind_of
from .delivery import is_sync_stream
from .tokens import Tokens, accepts, parameters_of

# Fields of a chat request that say nothing to a method that continues a text.
CHAT_ONLY = frozenset(
    "messages tools tool_choice parallel_tool_calls functions function_call "
    "add_generation_prompt continue_final_message".split()
)
# Fields beside messages and tools of which a prompt is made; a class's own `count_tokens` may have parameters for them,
# or one behind a `*` that is called `inputs`, for all that was asked.
OF_PROMPT = (
    "tool_choice add_generation_prompt continue_final_message chat_template_kwargs reasoning_effort "
    "documents reasoning enable_thinking thinking think add_special_tokens add_special "
    "truncate_prompt_tokens truncation_side"
).split()
# What would change the ids of a text or of messages, and a tokenizer alone does not know what to do with.
NO_TOKENIZER_READS = (
    "chat_template documents truncate_prompt_tokens truncation_side mm_processor_kwargs media_io_kwargs with_pieces"
).split()
OWN_COUNTS = ("input_tokens", "prompt_tokens", "count")  # where the class's own `count_tokens` may put its number

Question = tuple[Any, Any]  # a text, messages or token ids, and the tools beside them


def derive(model: Any, descriptor: Descriptor, spec: ModelSpec) -> Descriptor:
    """The descriptor with what can be derived; called when the model is loaded, for `load` makes the tokenizer."""
    tokens = Tokens.of(model)
    found = [*_counting(model, tokens), *_chat(descriptor, tokens, spec)]
    new = {method.name: method for method in found if method.name not in descriptor.methods}
    return replace(descriptor, methods={**descriptor.methods, **new})


def _counting(model: Any, tokens: Tokens | None) -> Iterator[Method]:
    own = getattr(model, "count_tokens", None)
    count = _by_own(own) if callable(own) else _by_tokenizer(tokens) if tokens is not None else None
    if count is not None:
        yield _slotless("count_tokens", count, derived=not callable(own))
    for name, make in (("tokenize", _tokenize), ("detokenize", _detokenize), ("tokenizer_info", _tokenizer_info)):
        own = getattr(model, name, None)
        if callable(own) and len(parameters_of(own)) == 1:  # a helper of that name may take anything
            yield _slotless(name, own, derived=False)
        elif tokens is not None and tokens.decodes:
            yield _slotless(name, make(tokens), derived=True)


def _slotless(name: str, function: Callable[[Any], Any], *, derived: bool) -> Method:
    return Method(name, function, kind_of(function), "inputs", derived=derived, needs_slot=False)


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _by_own(own: Callable[..., Any]) -> Callable[[Any], Any]:
    """`own(text)` or `own(messages)`, with `tools=` when it takes them; without, their JSON is one more text."""
    takes_tools = accepts(own, "tools")
    takes = [name for name in OF_PROMPT if accepts(own, name, by_name=True)]
    takes_all = any(each.name == "inputs" and each.kind is each.KEYWORD_ONLY for each in parameters_of(own))

    def questions(inputs: Any) -> list[tuple[Any, dict[str, Any]]]:
        calls: list[tuple[Any, dict[str, Any]]] = []
        for value, tools in _questions(inputs):
            more = {name: inputs[name] for name in takes if inputs.get(name) is not None}
            if takes_all:
                more["inputs"] = inputs
            calls.append((value, {**more, "tools": tools} if tools and takes_tools else more))
            if tools and not takes_tools:
                calls.append((json.dumps(tools), {}))
        return calls

    def count_tokens(inputs: Any) -> dict[str, int]:
        return {"input_tokens": sum(_number(own(value, **more)) for value, more in questions(inputs))}

    async def count_later(inputs: Any) -> dict[str, int]:
        return {"input_tokens": sum([_number(await own(value, **more)) for value, more in questions(inputs)])}

    return count_later if kind_of(own) == "async" else count_tokens


def _number(value: Any) -> int:
    if isinstance(value, Mapping):
        value = next((value[name] for name in OWN_COUNTS if name in value), None)
    try:
        number = index(value)  # of any integer, NumPy's too
    except TypeError:
        raise InvalidOutput(f"count_tokens returned {a_type(value)}, not a number") from None
    if number < 0:
        raise InvalidOutput(f"count_tokens returned {number}")
    return number


def _by_tokenizer(tokens: Tokens) -> Callable[[Any], dict[str, int]]:
    def count_tokens(inputs: Any) -> dict[str, int]:
        special = isinstance(inputs, dict) and "text" not in inputs
        return {"input_tokens": sum(len(_ids(tokens, value, inputs, special)) for value, _ in _questions(inputs))}

    return count_tokens


def _ids(tokens: Tokens, value: Any, inputs: Mapping[str, Any], special: bool) -> list[int]:
    """Of one text, of messages with what belongs to their prompt, or of ids."""
    if isinstance(value, str):
        return tokens.ids(value, special=special)
    if _is_ids(value):
        return list(value)
    return tokens.chat_ids(value, inputs, special=inputs.get("add_special_tokens") is True)


def _questions(inputs: Any) -> list[Question]:
    """What is to be counted in {"messages", "tools"?}, {"prompt"} or {"text"}; the last two may be lists of texts.

    Raises:
        BadRequest: it is none of these.
    """
    fields = inputs if isinstance(inputs, dict) else {}
    if isinstance(messages := fields.get("messages"), list):
        return [(messages, fields.get("tools"))]
    value = fields.get("prompt", fields.get("text"))
    if isinstance(value, str) or _is_ids(value):
        return [(value, None)]
    if isinstance(value, list) and all(isinstance(item, str) or _is_ids(item) for item in value):
        return [(item, None) for item in value]
    raise BadRequest("send 'messages' or 'prompt'", param="prompt", code="missing_required_parameter")


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


# ── tokens and back, in vLLM's shapes ────────────────────────────────────────────────────────────────────────────────


def _tokenize(tokens: Tokens) -> Callable[[Any], dict[str, Any]]:
    def tokenize(inputs: Any) -> dict[str, Any]:
        for name in NO_TOKENIZER_READS:
            if inputs.get(name):
                what = f"this model's tokens are told by its tokenizer, which does not support {name}"
                raise BadRequest(what, param=name, code="unsupported_value")
        [(value, _), *others] = _questions(inputs)
        if others:
            raise BadRequest("'prompt' must be one text", param="prompt", code="invalid_type")
        ids = _ids(tokens, value, inputs, inputs.get("add_special_tokens", True) is not False)
        names = tokens.names(ids) if inputs.get("return_token_strs") else None
        return {"tokens": ids, "count": len(ids), "token_strs": names}

    return tokenize


def _detokenize(tokens: Tokens) -> Callable[[Any], dict[str, Any]]:
    def detokenize(inputs: Any) -> dict[str, Any]:
        ids = inputs.get("tokens") if isinstance(inputs, dict) else None
        if ids is None:
            raise BadRequest("missing required parameter: 'tokens'", param="tokens", code="missing_required_parameter")
        if ids != [] and not _is_ids(ids):
            raise BadRequest("'tokens' must be an array of integers", param="tokens", code="invalid_type")
        try:
            return {"prompt": tokens.text(ids, special=inputs.get("skip_special_tokens") is not True)}
        except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise BadRequest(f"'tokens' holds what the model has no token for: {error}", param="tokens") from error

    return detokenize


def _tokenizer_info(tokens: Tokens) -> Callable[[Any], dict[str, Any]]:
    return lambda inputs: tokens.info


# ── chat of completions ──────────────────────────────────────────────────────────────────────────────────────────────


def _chat(descriptor: Descriptor, tokens: Tokens | None, spec: ModelSpec) -> Iterator[Method]:
    completions = descriptor.methods.get("completions")
    if completions is None or "inputs" not in completions.takes or tokens is None or not tokens.has_template:
        return
    if "chat_completions" not in spec.derive or spec.parity == "strict":
        return

    def chat_completions(inputs: Any, request: Any = None) -> Any:
        """Its value is whatever `completions` makes: a text, a generator, something to await."""
        fields: Any = _continuation(tokens, inputs)
        if completions.input_type is not None:
            fields = truss.validate(fields, completions.input_type)
        return _as_chat(completions.function(*completions.arguments(fields, request)))

    yield Method("chat_completions", chat_completions, "sync", completions.takes, derived=True, looks=completions.looks)


def _continuation(tokens: Tokens, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A chat request as one for completions.

    Raises:
        HTTPError: it asks for what text alone cannot give.
    """
    choice = inputs.get("tool_choice")
    if choice == "required" or isinstance(choice, dict):
        _refuse("a tool that must be called", "tool_choice")
    if inputs.get("logprobs"):
        _refuse("logprobs", "logprobs")
    prompt = tokens.render(inputs["messages"], inputs)
    return {"prompt": prompt, **{name: value for name, value in inputs.items() if name not in CHAT_ONLY}}


def _as_chat(value: Any) -> Any:
    """What completions gave, with `text` under chat's name for it."""
    if is_sync_stream(value):
        return _each(value)
    if hasattr(value, "__aiter__"):
        return _each_later(value)
    return _when_done(value) if inspect.isawaitable(value) else _renamed(value)


def _renamed(item: Any) -> Any:
    if isinstance(item, dict) and "text" in item and not {"choices", "content"} & item.keys():
        return {"content" if name == "text" else name: value for name, value in item.items()}
    return item


def _each(stream: Any) -> Generator[Any, None, Any]:
    try:
        while True:
            try:
                item = next(stream)
            except StopIteration as end:
                return _renamed(end.value)
            yield _renamed(item)
    finally:
        if (close := getattr(stream, "close", None)) is not None:
            close()


async def _each_later(stream: Any) -> AsyncIterator[Any]:
    try:
        async for item in stream:
            yield _renamed(item)
    finally:
        if (close := getattr(stream, "aclose", None)) is not None:
            await close()


async def _when_done(value: Any) -> Any:
    return _as_chat(await value)


def _refuse(what: str, param: str) -> NoReturn:
    text = f"this model's chat is made of its completions, which do not support {what}"
    raise HTTPError(400, text, code="unsupported_value", param=param)
