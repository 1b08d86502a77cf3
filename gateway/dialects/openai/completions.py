"""POST /v1/completions: OpenAI's legacy completions, streamed and whole, for one or more prompts.

Each prompt is one call, or n calls. The choices of all prompts are numbered: prompt × n + choice.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import InvalidOutput
from ...field_copies import check_copies
from ...hookspecs import hookimpl
from ...spec import Capabilities, Endpoint
from ...wording import a_type
from .. import answer_schemas
from ..answer import CallOutput, Choice
from ..base import Context, Dialect, Prepared, one_of_n
from ..events import AnyEvent, Head, Logprobs, Refusal, Text, ToolCall, Usage, encode_json, unwrap
from .chunks import ChunkEncoder, ChunkEnding
from .completion_request import SCHEMA, read_completion, unsupported


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(
            path="/v1/completions",
            method="completions",
            dialect="openai_completions",
            summary="OpenAI completions.",
            derived_from="chat_completions",
        )
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("openai_completions", CompletionsDialect())


class CompletionsDialect(Dialect):
    protocol, ending = "completions", ChunkEnding
    takes_ids = True
    request_schema = SCHEMA
    response_schema = answer_schemas.COMPLETION
    event_schema = answer_schemas.COMPLETION_EVENT

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        return read_completion(body, derived=method != "completions")

    def calls(self, prepared: Prepared, capabilities: Capabilities) -> list[dict[str, Any]]:
        """Return one call for each prompt, or n if the model gives one answer for each call."""
        prompts = prepared.options["prompts"]
        calls_each = 1 if capabilities.supports_n else prepared.n
        check_copies(len(prepared.inputs) + 1, len(prompts) * calls_each, "choices" if calls_each > 1 else "prompts")
        asked = [{**prepared.inputs, **prompt} for prompt in prompts]
        if calls_each == 1:
            return asked
        if "best_of" in prepared.inputs:
            raise unsupported(
                "this model makes one choice for each call, so it cannot pick the best of several", "best_of"
            )
        return [one_of_n(inputs, index) for inputs in asked for index in range(prepared.n)]

    def encoder(self, prepared: Prepared, context: Context) -> CompletionsEncoder:
        return CompletionsEncoder(prepared, context)


class CompletionsEncoder(ChunkEncoder):
    """Encodes the texts of all choices of all prompts. Reasoning is left out."""

    whole_kind = chunk_kind = "text_completion"
    id_prefix = "cmpl-"

    def __init__(self, prepared: Prepared, context: Context) -> None:
        self._sizes: list[int] = prepared.options["sizes"]  # sizes of the prompts
        self._derived = prepared.options["derived"]
        choices = len(self._sizes) * prepared.n
        super().__init__(prepared, context, choices=choices, prompt_size=sum(self._sizes))
        self._logprobs = [LegacyLogprobs() for _ in self.choices]
        self._scored: dict[int, list[Any]] = {}  # by choice: tokens whose text follows

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def events(self, item: Any, output: CallOutput) -> list[AnyEvent]:
        events = [self._fitting(event) for event in super().events(_with_content(item), output)]
        if self._derived:  # a chat id is not valid for completions
            events = [event for event in events if not isinstance(event, Head)]
        if any(isinstance(event, Logprobs) for event in events):
            events = _together(events)
        return events

    def _fitting(self, event: AnyEvent) -> AnyEvent:
        if isinstance(event, ToolCall):
            raise InvalidOutput("the model called a tool, which a completion cannot contain")
        return Text(event.choice, event.text) if isinstance(event, Refusal) else event

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def encode(self, event: AnyEvent) -> bytes:
        if isinstance(event, Logprobs):
            self._scored.setdefault(event.choice, []).extend(event.content)
        elif isinstance(event, Text):
            return self._chunk(event.choice, encode_json(event.text))
        return b""

    def last(self, index: int) -> bytes:
        return self._chunk(index, b'""', encode_json(self._reason(index)))

    def frame(self, choice: int) -> tuple[bytes, bytes]:
        mark = b"\0"
        before, _, after = self._chunk(choice, mark).partition(mark)
        return before, after

    def _chunk(self, index: int, text: bytes, reason: bytes = b"null") -> bytes:
        scored = self._scored.pop(index, None)
        logprobs = encode_json(self._logprobs[index].read(scored)) if scored else b"null"
        choice = b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b}' % (index, text, logprobs, reason)
        return self.chunk(choice)

    # ── whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole_choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return {
            "index": index,
            "text": "".join(choice.content),
            "logprobs": self._logprobs[index].read(choice.logprobs) if choice.logprobs else None,
            "finish_reason": self._reason(index),
        }

    def _reason(self, index: int) -> str:
        reason = self.reason(index)
        return "stop" if reason in ("tool_calls", "function_call") else reason

    def counts(self) -> tuple[Usage, bool]:
        """Return the sums over all prompts. The n choices of one prompt count it once."""
        width = len(self.outputs) // len(self._sizes)
        groups = [
            self.counts_of(self.outputs[number * width : (number + 1) * width], size)
            for number, size in enumerate(self._sizes)
        ]
        counts = [usage for usage, _ in groups]
        return Usage(
            sum(usage.prompt or 0 for usage in counts),
            sum(usage.completion or 0 for usage in counts),
            sum(usage.total or 0 for usage in counts),
            sum(usage.cached for usage in counts),
            sum(usage.reasoning for usage in counts),
        ), any(estimated for _, estimated in groups)


def _with_content(item: Any) -> Any:
    """Rename `text` in a dict, the completions field for the content, to `content`."""
    if isinstance(item, list):
        return [_with_content(part) for part in item]
    value = unwrap(item)
    if isinstance(value, dict) and "text" in value and not {"choices", "content"} & value.keys():
        return {"content" if key == "text" else key: part for key, part in value.items()}
    return item


def _together(events: list[AnyEvent]) -> list[AnyEvent]:
    """Put logprobs directly before the text that they belong to, which may be empty."""
    scores = {event.choice: event for event in events if isinstance(event, Logprobs)}
    ordered: list[AnyEvent] = []
    for event in events:
        if isinstance(event, Text) and (score := scores.pop(event.choice, None)) is not None:
            ordered += [score, event]
        elif not isinstance(event, Logprobs):
            ordered.append(event)
    for choice, score in scores.items():
        ordered += [score, Text(choice, "")]
    return ordered


class LegacyLogprobs:
    """Converts chat's logprobs to the four lists of completions. One for each choice, which continues its offsets."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may span two tokens
        self._offset = 0

    def read(self, entries: list[Any]) -> dict[str, list[Any] | None]:
        """Return the four lists. Raises `InvalidOutput` for an entry that is not a token with its logprob."""
        tokens, logprobs, tops, offsets = [], [], [], []
        has_tops = False  # also if only a first token, which has none, is present
        for entry in map(unwrap, entries):
            token, logprob, top = _scored(entry)
            has_tops = has_tops or entry.get("top_logprobs") is not None
            tokens.append(token)
            logprobs.append(logprob)
            tops.append(top)
            given, written = entry.get("text_offset"), entry.get("bytes")
            offsets.append(given if type(given) is int else self._offset)
            self._offset += len(self._decoder.decode(bytes(written)) if _are_bytes(written) else token)
        top_logprobs = tops if has_tops else None
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top_logprobs, "text_offset": offsets}


def _scored(entry: Any) -> tuple[str, float | None, Mapping[str, float] | None]:
    """Return a token, its logprob, and the logprobs of the most likely tokens, including itself."""
    token, logprob = _token(entry)
    top = entry.get("top_logprobs")
    if top is None or (logprob is None and not top):
        return token, logprob, None
    if not isinstance(top, list):
        raise InvalidOutput(f"the model returned top_logprobs that are {a_type(top)}, not a list")
    likely: dict[str, float] = {}
    for other, number in [*map(_token, map(unwrap, top)), (token, logprob)]:
        if number is not None:
            likely.setdefault(other, number)  # several tokens may have the same text; the most likely comes first
    return token, logprob, likely


def _token(entry: Any) -> tuple[str, float | None]:
    if isinstance(entry, dict) and isinstance(entry.get("token"), str):
        logprob = entry.get("logprob")
        if isinstance(logprob, int | float | None) and not isinstance(logprob, bool):
            return entry["token"], logprob
    raise InvalidOutput("the model returned logprobs that are not tokens, each with its number")


def _are_bytes(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(byte) is int and 0 <= byte < 256 for byte in value)
