"""Derive methods that a class lacks from its tokenizer, its `count_tokens`, or its `completions`.

    count_tokens       from the class's own `count_tokens`, called with one text or one list of messages, or `tokenizer`
    tokenize           from `tokenizer`
    detokenize         from `tokenizer`
    tokenizer_info     from `tokenizer`
    chat_completions   from `completions` and the chat template of `tokenizer`
    decide             from `classify`, or set by `load`, see `derived_decisions.py`

The first four need little CPU, so they take no slot; they run one at a time on a thread of their own. The last two are
another method with another input, and take a slot like any serving method.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import replace
from operator import index
from typing import Any, NoReturn

from ...errors import BadRequest, HTTPError, InvalidOutput
from ...spec import ModelSpec
from ...wording import a_type
from ..bodies import truss
from ..calls.delivery import is_sync_stream
from .derived_decisions import decisions
from .descriptor import Descriptor, Method, kind_of
from .tokens import Tokens, accepts, parameters_of

# Fields of a chat request that have no meaning for text completion.
CHAT_ONLY = frozenset(
    "messages tools tool_choice parallel_tool_calls functions function_call "
    "add_generation_prompt continue_final_message".split()
)
# Fields besides messages and tools that affect the prompt. A class's own `count_tokens` may have parameters for them,
# or a keyword-only parameter `inputs` for the whole request.
OF_PROMPT = (
    "tool_choice add_generation_prompt continue_final_message chat_template_kwargs reasoning_effort "
    "documents reasoning enable_thinking thinking think add_special_tokens add_special "
    "truncate_prompt_tokens truncation_side"
).split()
# Fields that would change the token ids, but that a tokenizer alone cannot apply.
NO_TOKENIZER_READS = (
    "chat_template documents truncate_prompt_tokens truncation_side mm_processor_kwargs media_io_kwargs with_pieces"
).split()
OWN_COUNTS = ("input_tokens", "prompt_tokens", "count")  # names of the number in a result of `count_tokens`

Question = tuple[Any, Any]  # a text, messages or token ids; and tools


def derive(model: Any, descriptor: Descriptor, spec: ModelSpec) -> Descriptor:
    """Return the descriptor with derived methods. Call it after `load`, which creates the tokenizer."""
    tokens = Tokens.of(model)
    found = [*_counting(model, tokens), *_chat(descriptor, tokens, spec)]
    if spec.parity != "strict":
        found += decisions(model, descriptor)
    new = {method.name: method for method in found if method.name not in descriptor.methods}
    return replace(descriptor, methods={**descriptor.methods, **new})


def _counting(model: Any, tokens: Tokens | None) -> Iterator[Method]:
    own = getattr(model, "count_tokens", None)
    count = _by_own(own) if callable(own) else _by_tokenizer(tokens) if tokens is not None else None
    if count is not None:
        yield _slotless("count_tokens", count, derived=not callable(own))
    for name, make in (("tokenize", _tokenize), ("detokenize", _detokenize), ("tokenizer_info", _tokenizer_info)):
        own = getattr(model, name, None)
        if callable(own) and len(parameters_of(own)) == 1:  # a helper of that name may have any parameters
            yield _slotless(name, own, derived=False)
        elif tokens is not None and tokens.decodes:
            yield _slotless(name, make(tokens), derived=True)


def _slotless(name: str, function: Callable[[Any], Any], *, derived: bool) -> Method:
    return Method(name, function, kind_of(function), "inputs", derived=derived, needs_slot=False)


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _by_own(own: Callable[..., Any]) -> Callable[[Any], Any]:
    """Call `own(text)` or `own(messages)`, with `tools=` if accepted; otherwise the tools' JSON is another text."""
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
        number = index(value)  # any integer type, including NumPy's
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
    """Return the token ids of a text, of messages with the other fields of their prompt, or of ids."""
    if isinstance(value, str):
        return tokens.ids(value, special=special)
    if _is_ids(value):
        return list(value)
    return tokens.chat_ids(value, inputs, special=inputs.get("add_special_tokens") is True)


def _questions(inputs: Any) -> list[Question]:
    """Return what to count in {"messages", "tools"?}, {"prompt"} or {"text"}; the last two may be lists of texts.

    Raises:
        BadRequest: none of these.
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
                what = f"this model's tokens come from its tokenizer, which does not support {name}"
                raise BadRequest(what, param=name, code="unsupported_value")
        [(value, _), *others] = _questions(inputs)
        if others:
            raise BadRequest("'prompt' must be a single string", param="prompt", code="invalid_type")
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
            raise BadRequest(f"'tokens' has ids that the model does not know: {error}", param="tokens") from error

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
        """Return whatever `completions` returns: a text, a generator, an awaitable."""
        fields: Any = _continuation(tokens, inputs)
        if completions.input_type is not None:
            fields = truss.validate(fields, completions.input_type)
        return _as_chat(completions.function(*completions.arguments(fields, request)))

    yield Method("chat_completions", chat_completions, "sync", completions.takes, derived=True, looks=completions.looks)


def _continuation(tokens: Tokens, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a chat request to a completions request.

    Raises:
        HTTPError: it asks for something that text completion does not support.
    """
    choice = inputs.get("tool_choice")
    if choice == "required" or isinstance(choice, dict):
        _refuse("a tool that must be called", "tool_choice")
    if inputs.get("logprobs"):
        _refuse("logprobs", "logprobs")
    prompt = tokens.render(inputs["messages"], inputs)
    return {"prompt": prompt, **{name: value for name, value in inputs.items() if name not in CHAT_ONLY}}


def _as_chat(value: Any) -> Any:
    """Convert the result of completions: `text` is renamed to `content`."""
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
    text = f"this model's chat is derived from its completions, which do not support {what}"
    raise HTTPError(400, text, code="unsupported_value", param=param)
