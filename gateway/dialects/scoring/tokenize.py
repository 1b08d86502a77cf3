"""Convert texts to token ids and back, and describe the tokenizer, in vLLM's formats and paths.

POST /v1/tokenize and /v1/detokenize, also without /v1, and GET /tokenizer_info.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...errors import BadRequest
from ...hookspecs import hookimpl
from ...spec import Endpoint
from .. import answer_schemas
from ..base import Context, Dialect, Prepared
from ..fields import echoed, missing, take, wrong_type
from ..openai.chat_request import check_continued, check_messages, check_tools
from ..single_value import ValueEncoder, floats

TOKENIZE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "prompt": {"type": "string", "description": "Either this or messages"},
        "messages": {"type": "array", "items": {"type": "object"}},
        "add_special_tokens": {"type": "boolean", "description": "True for a prompt, false for messages"},
        "add_generation_prompt": {"type": "boolean", "default": True, "description": "For messages"},
        "continue_final_message": {
            "type": "boolean",
            "default": False,
            "description": "Instead of add_generation_prompt",
        },
        "return_token_strs": {"type": "boolean", "default": False},
    },
    "additionalProperties": True,
    "example": {"prompt": "Hello"},
}
DETOKENIZE: dict[str, Any] = {
    "type": "object",
    "required": ["tokens"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "skip_special_tokens": {"type": "boolean", "default": False, "description": "Leave them out of the text"},
    },
    "additionalProperties": True,
    "example": {"tokens": [1, 2, 3]},
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    for method, summary in (("tokenize", "Token ids of a text."), ("detokenize", "The text of token ids.")):
        for path in (f"/v1/{method}", f"/{method}"):
            register(Endpoint(path=path, method=method, dialect=method, summary=summary))
    name = "tokenizer_info"
    register(Endpoint(path=f"/{name}", method=name, dialect=name, summary="The model's tokenizer.", verb="GET"))


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("tokenize", TokenizeDialect())
    register("detokenize", DetokenizeDialect())
    register("tokenizer_info", TokenizerInfoDialect())


def _check_spelling(inputs: dict[str, Any], known: Iterable[str]) -> None:
    """Refuse a field that differs from one of the route's only in case, `-` or `_`: a model would ignore it."""
    meant = {_folded(name): name for name in known}
    for name in inputs:
        ours = meant.get(_folded(name), name)
        if ours != name:
            what = f"there is no field {name[:64]}; did you mean {ours}?"
            raise BadRequest(what, param=name[:64], code="unsupported_value")


def _folded(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


class TokenizeDialect(Dialect):
    request_schema = TOKENIZE
    response_schema = answer_schemas.TOKENS

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        _check_spelling(inputs, TOKENIZE["properties"])
        is_chat = "messages" in inputs
        if is_chat and "prompt" in inputs:
            raise BadRequest("send 'prompt' or 'messages', not both", param="messages")
        if is_chat:
            check_messages(inputs)
            check_tools(inputs)  # also chat's legacy fields, which are part of its prompt
            goes_on = check_continued(inputs)
            inputs["add_generation_prompt"] = take(inputs, "add_generation_prompt", bool, not goes_on)
        elif take(inputs, "prompt", str) is None:
            raise missing("prompt")
        # a chat template writes special tokens itself
        special = take(inputs, "add_special", bool, not is_chat)  # llama.cpp's name
        inputs["add_special_tokens"] = take(inputs, "add_special_tokens", bool, special)
        inputs["return_token_strs"] = take(inputs, "return_token_strs", bool, False)
        inputs.pop("stream", None)
        return Prepared(model, inputs)

    def encoder(self, prepared: Prepared, context: Context) -> TokenizeEncoder:
        return TokenizeEncoder(prepared, context)


class TokenizeEncoder(ValueEncoder):
    """Accepts a list of token ids, or a dict with `tokens` and optional `token_strs` and `max_model_len`."""

    method = "tokenize"

    def answer(self, value: Any) -> dict[str, Any]:
        fields = value if isinstance(value, dict) else {"tokens": value}
        tokens = _tokens(fields.get("tokens"))
        if tokens is None:
            raise self.invalid(value, "a list of token ids")
        texts = fields.get("token_strs") if self.inputs["return_token_strs"] else None
        if texts is not None and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
            raise self.invalid(texts, "a list of strings as token_strs")
        longest = fields.get("max_model_len")
        return {
            "count": len(tokens),
            "max_model_len": longest if type(longest) is int else self.context.capabilities.max_model_len,
            "tokens": tokens,
            "token_strs": texts,
        }


def _tokens(value: Any) -> list[int] | None:
    if isinstance(value, list) and set(map(type, value)) <= {int}:  # there may be millions
        return value
    numbers = floats(value)  # an array has floats
    if numbers is None or not all(number.is_integer() for number in numbers):
        return None
    return [int(number) for number in numbers]


class DetokenizeDialect(Dialect):
    takes_ids = True
    request_schema = DETOKENIZE
    response_schema = answer_schemas.PROMPT

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        _check_spelling(inputs, DETOKENIZE["properties"])
        tokens = take(inputs, "tokens", list)
        if tokens is None:
            raise missing("tokens")
        if set(map(type, tokens)) - {int} or min(tokens, default=0) < 0:  # there may be millions
            raise _odd(tokens)
        take(inputs, "skip_special_tokens", bool)
        inputs.pop("stream", None)
        return Prepared(model, inputs)

    def encoder(self, prepared: Prepared, context: Context) -> DetokenizeEncoder:
        return DetokenizeEncoder(prepared, context)


def _odd(tokens: list[Any]) -> BadRequest:
    """Return the error for the first invalid token id."""
    index, token = next((index, token) for index, token in enumerate(tokens) if type(token) is not int or token < 0)
    if type(token) is not int:
        return wrong_type(f"tokens[{index}]", "an integer", token)
    return BadRequest(f"'tokens[{index}]' must be at least 0, not {echoed(token)}", param=f"tokens[{index}]")


class DetokenizeEncoder(ValueEncoder):
    """Accepts the text, or a dict with it as `prompt` or `text`."""

    method = "detokenize"

    def answer(self, value: Any) -> dict[str, Any]:
        text = value.get("prompt", value.get("text")) if isinstance(value, dict) else value
        if not isinstance(text, str):
            raise self.invalid(value, "a text")
        return {"prompt": text}


class TokenizerInfoDialect(Dialect):
    response_schema = answer_schemas.TOKENIZER

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        return Prepared(take(body, "model", str), body)

    def encoder(self, prepared: Prepared, context: Context) -> TokenizerInfoEncoder:
        return TokenizerInfoEncoder(prepared, context)


class TokenizerInfoEncoder(ValueEncoder):
    """Accepts a dict with `tokenizer_class` and further fields of tokenizer_config.json."""

    method = "tokenizer_info"

    def answer(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not isinstance(value.get("tokenizer_class"), str):
            raise self.invalid(value, "an object with a tokenizer_class")
        return value
