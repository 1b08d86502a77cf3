"""Read a completions request: one or more prompts, each a call of its own, and the inputs of each call.

A class's own `completions` gets the prompt unchanged, a string or a list of token ids. If `chat_completions` answers
instead, the prompt becomes a user message, and fields without an equivalent in chat are refused.
"""

from __future__ import annotations

from typing import Any

from ...errors import BadRequest
from ...wording import counted
from ..base import Prepared
from ..fields import missing, take, take_range, wrong_type
from .chat_request import (
    MAX_BIAS,
    MAX_N,
    MAX_STOP,
    MAX_TOP_LOGPROBS,
    NUMBERS,
    STREAM_OPTIONS,
    check_sampling,
    usage_options,
)

MAX_CHOICES = 128  # of all prompts together: their calls are admitted together or not at all
MAX_BEST_OF = 20

Prompt = str | list[int]

_NUMBER, _WHOLE, _FLAG, _TEXT = {"type": "number"}, {"type": "integer"}, {"type": "boolean"}, {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "model": {**_TEXT, "description": "Optional if only one model serves the route"},
        "prompt": {
            "oneOf": [
                _TEXT,
                {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MAX_CHOICES},
                {"type": "array", "items": _WHOLE, "minItems": 1, "description": "One prompt of token ids"},
                {"type": "array", "items": {"type": "array", "items": _WHOLE, "minItems": 1}, "minItems": 1},
            ]
        },
        "suffix": _TEXT,
        "max_tokens": {**_WHOLE, "minimum": 0},
        **dict.fromkeys(NUMBERS, _NUMBER),
        "n": {**_WHOLE, "minimum": 1, "maximum": MAX_N, "default": 1},
        "best_of": {**_WHOLE, "minimum": 1, "maximum": MAX_BEST_OF},
        "stream": {**_FLAG, "default": False},
        "stream_options": STREAM_OPTIONS,
        "logprobs": {**_WHOLE, "minimum": 0, "maximum": MAX_TOP_LOGPROBS},
        "echo": {**_FLAG, "default": False},
        "stop": {"type": ["string", "array"], "items": _TEXT, "maxItems": MAX_STOP},
        "seed": _WHOLE,
        "logit_bias": {"type": "object", "additionalProperties": _NUMBER, "maxProperties": MAX_BIAS},
    },
    "additionalProperties": True,
    "example": {"prompt": "Once upon a time"},
}


def read_completion(body: dict[str, Any], *, derived: bool) -> Prepared:
    """Return the checked request. `options["prompts"]` has the inputs that each prompt adds to its calls.

    Raises:
        BadRequest: with the JSON path of the error in `param`.
    """
    inputs = {name: value for name, value in body.items() if value is not None}
    model = take(inputs, "model", str)
    prompts = read_prompts(inputs.pop("prompt", None))
    stream = take(inputs, "stream", bool, False)
    n = take_range(inputs, "n", 1, MAX_N, 1)
    if len(prompts) * n > MAX_CHOICES:
        what = f"{counted(len(prompts), 'prompt')} with {counted(n, 'choice')} each are more than {MAX_CHOICES} choices"
        raise BadRequest(f"{what}; send fewer prompts at a time", param="prompt")
    check_sampling(inputs, least_tokens=1 if derived else 0)
    take(inputs, "suffix", str)
    take(inputs, "echo", bool)
    take_range(inputs, "logprobs", 0, MAX_TOP_LOGPROBS)
    check_best_of(inputs, n, stream)
    options: dict[str, Any] = {**usage_options(inputs, stream), "derived": derived}
    options["sizes"] = [size_of(prompt) for prompt in prompts]
    if derived:
        check_derived(inputs, prompts)
        options["prompts"] = [{"messages": [{"role": "user", "content": prompt}]} for prompt in prompts]
    else:
        options["prompts"] = [{"prompt": prompt} for prompt in prompts]
    return Prepared(model, inputs, stream, n, options)


def read_prompts(value: Any) -> list[Prompt]:
    """Return a list of prompts from any of the four accepted forms."""
    if value is None:
        raise missing("prompt")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise wrong_type("prompt", "a string or an array of strings or token ids", value)
    if not value:
        raise BadRequest("'prompt' must hold at least one prompt", param="prompt")
    if type(value[0]) is int:
        return [read_tokens(value, "prompt")]
    if len(value) > MAX_CHOICES:
        raise BadRequest(f"'prompt' may hold at most {MAX_CHOICES} prompts", param="prompt")
    is_text = isinstance(value[0], str)
    for index, item in enumerate(value):
        if is_text and not isinstance(item, str):
            raise wrong_type(f"prompt[{index}]", "a string, as the first one is", item)
        if not is_text:
            read_tokens(item, f"prompt[{index}]")
    return value


def read_tokens(value: Any, where: str) -> list[int]:
    if not isinstance(value, list):
        raise wrong_type(where, "a string or an array of token ids", value)
    if not value:
        raise BadRequest(f"'{where}' holds no token ids", param=where)
    if set(map(type, value)) != {int}:  # there may be ten million
        wrong = next(item for item in value if type(item) is not int)
        raise wrong_type(where, "an array of token ids only", wrong)
    if min(value) < 0:
        raise BadRequest(f"'{where}' holds a negative token id", param=where)
    return value


def check_best_of(inputs: dict[str, Any], n: int, stream: bool) -> None:
    """Check `best_of`. If it equals n there is nothing to choose, and it is removed."""
    best_of = take_range(inputs, "best_of", 1, MAX_BEST_OF)
    if best_of is None:
        return
    if best_of < n:
        raise BadRequest(f"'best_of' must be at least 'n', which is {n}", param="best_of")
    if best_of == n:
        del inputs["best_of"]
    elif stream:
        raise unsupported("the best of several answers is known only at the end, so it cannot be streamed", "best_of")


def check_derived(inputs: dict[str, Any], prompts: list[Prompt]) -> None:
    """Refuse fields that chat does not have. Neutral values are removed."""
    why = "this model's completions come from its chat, which has no"
    for name, neutral in (("echo", False), ("suffix", ""), ("logprobs", None), ("best_of", None)):
        if inputs.pop(name, neutral) != neutral:
            raise unsupported(f"{why} '{name}'", name)
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise unsupported(f"{why} prompts of token ids", "prompt")


def unsupported(what: str, param: str) -> BadRequest:
    return BadRequest(what, param=param, code="unsupported_value")


def size_of(prompt: Prompt) -> int:
    """Return the UTF-8 bytes of a prompt, for an estimate; a token id counts as four."""
    return len(prompt.encode()) if isinstance(prompt, str) else 4 * len(prompt)
