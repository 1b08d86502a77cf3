"""What the events of one answer add up to, for every dialect that encodes them: text, calls, reason, token counts."""

from __future__ import annotations

from typing import Any

from ..errors import GatewayError, InvalidOutput
from ..wording import counted
from .base import ESTIMATED, Context, Encoder, Used, prompt_of
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
from .object_pieces import ObjectPieces
from .outputs import Normalizer
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
        self.answered = False  # the model said something about it

    @property
    def written(self) -> str:
        """All that the model wrote."""
        arguments = (call.arguments.text for call in self.calls)
        return "".join((*self.reasoning, *self.content, *self.refusal, *arguments))

    def apply(self, event: ChoiceEvent) -> None:
        """Keep what the whole answer needs of an event of this choice."""
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


class Run:
    """One call of the Model's method: it answers one choice, or `width` of them from `choice` on."""

    __slots__ = ("asks", "choice", "counted", "counted_prompt", "frame", "normalizer", "usage", "width")

    def __init__(self, choice: int, width: int) -> None:
        self.choice, self.width = choice, width
        self.normalizer = Normalizer(choice, width)
        self.usage: Usage | None = None  # what the model says
        self.counted: int | None = None  # what its `count_tokens` says of the answer
        self.counted_prompt: int | None = None
        self.asks = ""  # under which name that is asked
        self.frame: tuple[bytes, bytes] | None = None  # what stands around a further piece of its text


class EventEncoder(Encoder):
    """An encoder over the event vocabulary. A dialect says in `encode` what an event looks like in its stream.

    `prompt_size` is the UTF-8 bytes of the prompt, for the estimate where nobody counted; `max_tokens` the client's
    limit, which tells "length" from "stop" where the model does not.
    """

    def __init__(
        self, context: Context, *, stream: bool, choices: int = 1, prompt_size: int, max_tokens: int | None
    ) -> None:
        self.context, self.stream = context, stream
        self.choices = [Choice() for _ in range(choices)]
        width = choices // context.runs
        self.runs = [Run(run * width, width) for run in range(context.runs)]
        self.head: Head | None = None  # what the model's first dict fixed
        self._prompt_size, self._max_tokens = prompt_size, max_tokens
        self._cutters = [StopCutter(context.stops) for _ in self.choices] if context.stops else []

    # ── what a dialect says ──────────────────────────────────────────────────────────────────────────────────────

    def encode(self, event: AnyEvent) -> bytes:
        """The stream's bytes for an event of a choice, which is applied already. Not called for whole answers."""
        raise NotImplementedError

    def frame(self, choice: int) -> tuple[bytes, bytes] | None:
        """What stands before and after the JSON of one more piece of the choice's text; None: it is not that simple."""
        return None

    # ── items ────────────────────────────────────────────────────────────────────────────────────────────────────

    def feed(self, items: list[Any], run: int = 0) -> bytes:
        current = self.runs[run]
        frame, streaming, content = current.frame, self.stream, self.choices[current.choice].content
        out: list[bytes] = []
        try:
            for item in items:
                if frame is not None and type(item) is str:
                    # the one hot case: a further piece of text
                    if item:
                        content.append(item)
                        if streaming:
                            out += (frame[0], encode_json(item), frame[1])
                    continue
                for event in self.events(item, current):
                    out.append(self.take(event, current))
                frame = current.frame = self._frame(current)
        except GatewayError as error:
            if not (streaming and out):
                raise
            self.failure = error  # what came before it goes out first
        return b"".join(out)

    def events(self, item: Any, run: Run) -> list[AnyEvent]:
        """The events of one value; a dialect may know values of its own."""
        return run.normalizer.feed(item)

    def _frame(self, run: Run) -> tuple[bytes, bytes] | None:
        return self.frame(run.choice) if run.normalizer.is_plain and not self._cutters else None

    def take(self, event: AnyEvent, run: Run) -> bytes:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Usage):
            run.usage = event
            return b""
        if isinstance(event, Head):
            if self.head is None:
                self.head = event
            return b""
        return b"".join([self._put(part) for part in self._cut(event)]) if self._cutters else self._put(event)

    def _put(self, event: ChoiceEvent) -> bytes:
        self.choices[event.choice].apply(event)
        return self.encode(event) if self.stream else b""

    def _cut(self, event: ChoiceEvent) -> list[ChoiceEvent]:
        """The event, without what comes at or behind a stop string; what was held back comes before its like."""
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
        """The events that only the end of the values brings; `finish` and `whole` begin with it.

        Raises:
            GatewayError: the answer is not complete.
        """
        if self.failure is not None:
            raise self.failure
        if self.is_complete:  # whatever the model was about to say
            return b""
        out = [self.take(event, run) for run in self.runs for event in run.normalizer.end()]
        out += [self._put(Text(index, rest)) for index, cutter in enumerate(self._cutters) if (rest := cutter.rest())]
        for index, choice in enumerate(self.choices):
            for number, call in enumerate(choice.calls):
                if not call.arguments:  # clients parse them as JSON
                    out.append(self.take(ToolCall(index, number, None, None, "{}"), self.runs[0]))
        answered = sum(choice.answered for choice in self.choices)
        if len(self.runs) < len(self.choices) != answered:
            raise InvalidOutput(f"the model answered {answered} of {counted(len(self.choices), 'choice')}")
        return b"".join(out)

    # ── what the model may leave out ─────────────────────────────────────────────────────────────────────────────

    def reason(self, index: int = 0) -> str:
        """OpenAI's finish reason: the model's word, else what its output shows."""
        choice = self.choices[index]
        if choice.calls and choice.finish in (None, "stop", "tool_calls"):
            return "tool_calls"
        if choice.finish is not None:
            return choice.finish
        usage = self.runs[index].usage if len(self.runs) == len(self.choices) else None
        if self._max_tokens is not None and usage is not None and (usage.completion or 0) >= self._max_tokens:
            return "length"
        return "stop"

    def counts(self) -> tuple[Usage, bool]:
        """Token counts, all of them given, and whether some are estimates."""
        return self.counts_of(self.runs, self._prompt_size)

    def counts_of(self, runs: list[Run], prompt_size: int) -> tuple[Usage, bool]:
        """The same for runs that answer one prompt: it counts once, their completions are summed."""
        usages = [run.usage for run in runs if run.usage is not None]
        prompts = [usage.prompt for usage in usages] + [run.counted_prompt for run in runs]
        prompt = next((count for count in prompts if count is not None), None)
        silent = [run for run in runs if self._completion(run) is None]
        estimated = prompt is None or bool(silent)
        if prompt is None:
            prompt = max(1, estimate_tokens(prompt_size))
        completion = sum(self._completion(run) or 0 for run in runs)
        size = sum(len(text.encode()) for run in silent for text in self._written(run))
        completion += estimate_tokens(round(size * self.scale))
        total = usages[0].total if len(runs) == 1 and usages and not estimated else None
        cached = usages[0].cached if usages else 0
        reasoning = sum(usage.reasoning for usage in usages)
        return Usage(prompt, completion, total or prompt + completion, cached, reasoning), estimated

    def _written(self, run: Run) -> list[str]:
        return [choice.written for choice in self._choices_of(run)]

    def _choices_of(self, run: Run) -> list[Choice]:
        return self.choices[run.choice : run.choice + run.width]

    def _completion(self, run: Run) -> int | None:
        """The tokens that a run gave, when somebody counted them, or when it said nothing."""
        if run.usage is not None and run.usage.completion is not None:
            return run.usage.completion
        if run.counted is None and not any(choice.answered for choice in self._choices_of(run)):
            return 0
        return run.counted

    def uncounted(self, inputs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        asked: dict[str, dict[str, Any]] = {}
        prompts: list[dict[str, Any] | None] = []
        for index, run in enumerate(self.runs):
            prompt = prompt_of(inputs[index])
            prompts.append(prompt)
            run.asks = f"prompt {prompts.index(prompt)}"  # once for all runs that have the same one
            if prompt is not None and (run.usage is None or run.usage.prompt is None):
                asked[run.asks] = prompt
            if self._completion(run) is None and self.scale == 1.0:
                asked[f"completion {index}"] = {"text": self._written(run)}
        return asked

    def counted(self, numbers: dict[str, int]) -> None:
        for index, run in enumerate(self.runs):
            run.counted_prompt, run.counted = numbers.get(run.asks), numbers.get(f"completion {index}")

    @property
    def has_usage(self) -> bool:
        return True

    def usage(self) -> Used:
        counts, is_estimated = self.counts()
        return Used(counts.prompt or 0, counts.completion or 0, self.reason(), is_estimated)

    def usage_headers(self) -> list[tuple[bytes, bytes]]:
        """What a whole answer says about its counts beside them."""
        return [ESTIMATED] if self.counts()[1] else []
