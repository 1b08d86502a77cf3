"""Collects the events of one answer for dialects that encode events: text, tool calls, reason, token counts."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import GatewayError, InvalidOutput
from ..wording import counted
from .base import ESTIMATED, Context, Encoder, Used, prompt_of, source_of
from .events import (
    AnyEvent,
    ChoiceEvent,
    Failed,
    Finish,
    Head,
    Logprobs,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
    encode_json,
    estimate_tokens,
)
from .json_pieces import ObjectPieces
from .normalize import Normalizer
from .stops import StopCutter


class Called:
    """A tool call so far."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, id: str | None, name: str, arguments: str) -> None:
        self.id, self.name = id, name
        self.arguments = ObjectPieces(arguments)

    @property
    def function(self) -> dict[str, str]:
        return {"name": self.name, "arguments": self.arguments.text}


class Choice:
    """One choice so far."""

    __slots__ = (
        "answered",
        "calls",
        "content",
        "finish",
        "logprobs",
        "reasoning",
        "refusal",
        "refusal_logprobs",
        "stop_sequence",
    )

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: list[Called] = []
        self.logprobs: list[Any] = []
        self.refusal_logprobs: list[Any] = []
        self.finish: str | None = None
        self.stop_sequence: str | None = None
        self.answered = False  # the model gave output for it

    @property
    def written(self) -> str:
        """All text that the model wrote for this choice."""
        arguments = (call.arguments.text for call in self.calls)
        return "".join((*self.reasoning, *self.content, *self.refusal, *arguments))

    def apply(self, event: ChoiceEvent) -> None:
        """Record an event of this choice for the whole answer."""
        self.answered = True
        if isinstance(event, Text):
            self.content.append(event.text)
        elif isinstance(event, Reasoning):
            self.reasoning.append(event.text)
        elif isinstance(event, Refusal):
            self.refusal.append(event.text)
        elif isinstance(event, ToolCall):
            if event.name is not None:
                self.calls.append(Called(event.id, event.name, event.arguments))
            else:
                self.calls[event.call].arguments.add(event.arguments)
        elif isinstance(event, Logprobs):
            self.logprobs += event.content
            self.refusal_logprobs += event.refusal
        elif isinstance(event, Finish):
            self.finish, self.stop_sequence = event.reason, event.stop_sequence


class CallOutput:
    """The output of one call of the Model's method: one choice, or `width` choices starting at `choice`."""

    __slots__ = ("asks", "choice", "counted", "counted_prompt", "frame", "held", "normalizer", "usage", "width")

    def __init__(self, choice: int, width: int) -> None:
        self.choice, self.width = choice, width
        self.normalizer = Normalizer(choice, width)
        self.held = 0  # bytes that it holds back
        self.usage: Usage | None = None  # counts reported by the model
        self.counted: int | None = None  # the answer's count from `count_tokens`
        self.counted_prompt: int | None = None
        self.asks = ""  # the name of the prompt's question to `count_tokens`
        self.frame: tuple[bytes, bytes] | None = None  # the bytes before and after a further piece of its text


class EventEncoder(Encoder):
    """An encoder for events. A dialect defines in `encode` how an event looks in its stream.

    `prompt_size` is the size of the prompt in UTF-8 bytes, for an estimate if the tokens were not counted. `max_tokens`
    is the client's limit; it distinguishes "length" from "stop" if the model gives no finish reason.
    """

    reads_arguments: ClassVar[bool] = False  # of tool calls, all pieces of them when they are complete

    def __init__(
        self, context: Context, *, stream: bool, choices: int = 1, prompt_size: int, max_tokens: int | None
    ) -> None:
        self.context, self.stream = context, stream
        self.choices = [Choice() for _ in range(choices)]
        width = choices // context.calls
        self.outputs = [CallOutput(call * width, width) for call in range(context.calls)]
        self.head: Head | None = None  # set by the model's first dict
        self._prompt_size, self._max_tokens = prompt_size, max_tokens
        self._cutters = [StopCutter(context.stops) for _ in self.choices] if context.stops else []

    # ── methods that a dialect defines ───────────────────────────────────────────────────────────────────────────────

    def encode(self, event: AnyEvent) -> bytes:
        """Return the stream's bytes for an event of a choice, which is already applied. Not used for whole answers."""
        raise NotImplementedError

    def frame(self, choice: int) -> tuple[bytes, bytes] | None:
        """Return the bytes before and after the JSON of a further piece of text; None if they are not constant."""
        return None

    # ── items ────────────────────────────────────────────────────────────────────────────────────────────────────

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        current = self.outputs[call]
        frame, streaming, content = current.frame, self.stream, self.choices[current.choice].content
        out: list[bytes] = []
        try:
            for item in items:
                if frame is not None and type(item) is str:
                    # the hot path: a further piece of text
                    if item:
                        content.append(item)
                        if streaming:
                            out += (frame[0], encode_json(item), frame[1])
                    continue
                for event in self.events(item, current):
                    out.append(self.take(event, current))
                frame = current.frame = self._frame(current)
                if current.held or current.normalizer.kept_pieces or not current.normalizer.is_plain:
                    self._hold(current)
        except GatewayError as error:
            if not (streaming and out):
                raise
            self.failure = error  # the output before the error is sent first
        return b"".join(out)

    def events(self, item: Any, output: CallOutput) -> list[AnyEvent]:
        """Return the events of one value. A dialect may accept further values."""
        return output.normalizer.feed(item)

    def _hold(self, output: CallOutput) -> None:
        before, output.held = output.held, output.normalizer.held
        self.held += output.held - before

    def _frame(self, output: CallOutput) -> tuple[bytes, bytes] | None:
        return self.frame(output.choice) if output.normalizer.is_plain and not self._cutters else None

    def take(self, event: AnyEvent, output: CallOutput) -> bytes:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Usage):
            output.usage = event
            return b""
        if isinstance(event, Head):
            if self.head is None:
                self.head = event
            return b""
        if self.reads_arguments and isinstance(event, ToolCall):
            self.held += len(event.arguments)
        return b"".join([self._put(part) for part in self._cut(event)]) if self._cutters else self._put(event)

    def _put(self, event: ChoiceEvent) -> bytes:
        self.choices[event.choice].apply(event)
        return self.encode(event) if self.stream else b""

    def _cut(self, event: ChoiceEvent) -> list[ChoiceEvent]:
        """Return the event without text from a stop string on. Held back text comes first."""
        cutter = self._cutters[event.choice]
        if cutter.found is not None:
            return []
        if not isinstance(event, Text):
            rest = cutter.rest() if isinstance(event, ToolCall | Finish) else ""
            return [Text(event.choice, rest), event] if rest else [event]
        shown = cutter.push(event.text)
        events: list[ChoiceEvent] = [Text(event.choice, shown)] if shown else []
        if cutter.found is not None:
            events.append(Finish(event.choice, "stop", cutter.found))
            self.is_complete = all(cutter.found is not None for cutter in self._cutters)
        return events

    def end(self) -> bytes:
        """Return the events at the end of the values. `finish` and `whole` call it first.

        Raises:
            GatewayError: the answer is not complete.
        """
        if self.failure is not None:
            raise self.failure
        if self.is_complete:  # the rest of the model's output is ignored
            return b""
        out = [self.take(event, output) for output in self.outputs for event in output.normalizer.end()]
        out += [self._put(Text(index, rest)) for index, cutter in enumerate(self._cutters) if (rest := cutter.rest())]
        for index, choice in enumerate(self.choices):
            for number, call in enumerate(choice.calls):
                if not call.arguments:  # clients parse the arguments as JSON
                    out.append(self.take(ToolCall(index, number, None, None, "{}"), self.outputs[0]))
        answered = sum(choice.answered for choice in self.choices)
        if len(self.outputs) < len(self.choices) != answered:
            raise InvalidOutput(f"the model answered {answered} of {counted(len(self.choices), 'choice')}")
        return b"".join(out)

    # ── values that the model may leave out ──────────────────────────────────────────────────────────────────────────

    def reason(self, index: int = 0) -> str:
        """Return OpenAI's finish reason: the model's own, or else derived from its output."""
        choice = self.choices[index]
        if choice.calls and choice.finish in (None, "stop", "tool_calls"):
            return "tool_calls"
        if choice.finish is not None:
            return choice.finish
        usage = self.outputs[index].usage if len(self.outputs) == len(self.choices) else None
        if self._max_tokens is not None and usage is not None and (usage.completion or 0) >= self._max_tokens:
            return "length"
        return "stop"

    def counts(self) -> tuple[Usage, bool]:
        """Return complete token counts, and whether some are estimates."""
        return self.counts_of(self.outputs, self._prompt_size)

    def counts_of(self, outputs: list[CallOutput], prompt_size: int) -> tuple[Usage, bool]:
        """Return counts for calls with the same prompt: the prompt counts once, their completions are summed."""
        usages = [output.usage for output in outputs if output.usage is not None]
        prompts = [usage.prompt for usage in usages] + [output.counted_prompt for output in outputs]
        prompt = next((count for count in prompts if count is not None), None)
        silent = [output for output in outputs if self._completion(output) is None]
        estimated = prompt is None or bool(silent)
        if prompt is None:
            prompt = max(1, estimate_tokens(prompt_size))
        completion = sum(self._completion(output) or 0 for output in outputs)
        size = sum(len(text.encode()) for output in silent for text in self._written(output))
        completion += estimate_tokens(round(size * self.scale))
        total = usages[0].total if len(outputs) == 1 and usages and not estimated else None
        cached = usages[0].cached if usages else 0
        reasoning = sum(usage.reasoning for usage in usages)
        return Usage(prompt, completion, total or prompt + completion, cached, reasoning), estimated

    def _written(self, output: CallOutput) -> list[str]:
        return [choice.written for choice in self._choices_of(output)]

    def _choices_of(self, output: CallOutput) -> list[Choice]:
        return self.choices[output.choice : output.choice + output.width]

    def _completion(self, output: CallOutput) -> int | None:
        """Return the completion tokens of a call if they were counted, 0 if it had no output, else None."""
        if output.usage is not None and output.usage.completion is not None:
            return output.usage.completion
        if output.counted is None and not any(choice.answered for choice in self._choices_of(output)):
            return 0
        return output.counted

    def uncounted(self, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        asked: dict[str, dict[str, Any]] = {}
        numbers: dict[int, int] = {}  # of the prompts; calls with the same prompt refer to the same object
        for index, output in enumerate(self.outputs):
            number = numbers.setdefault(id(source_of(inputs[index])), len(numbers))
            output.asks = f"prompt {number}"  # asked once for all calls with the same prompt
            if output.asks not in asked and (output.usage is None or output.usage.prompt is None):
                prompt = prompt_of(inputs[index])
                if prompt is not None:
                    asked[output.asks] = prompt
            if self._completion(output) is None and self.scale == 1.0:
                asked[f"completion {index}"] = {"text": self._written(output)}
        return asked

    def counted(self, numbers: dict[str, int]) -> None:
        for index, output in enumerate(self.outputs):
            output.counted_prompt, output.counted = numbers.get(output.asks), numbers.get(f"completion {index}")

    @property
    def has_usage(self) -> bool:
        return True

    def usage(self) -> Used:
        counts, is_estimated = self.counts()
        return Used(counts.prompt or 0, counts.completion or 0, self.reason(), is_estimated)

    def usage_headers(self) -> list[tuple[bytes, bytes]]:
        """Return headers about the counts of a whole answer."""
        return [ESTIMATED] if self.counts()[1] else []
