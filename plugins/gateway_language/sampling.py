"""How an engine chooses tokens, and what it reports about them. Values only: the engines compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .structured.guide import Guide


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose tokens. The defaults are greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    repeat_last_n: int = -1  # tokens that repetition_penalty considers; -1 means all
    typical_p: float = 1.0
    allowed: tuple[int, ...] | None = None  # the only allowed tokens
    forbids: Callable[[Sequence[int], int], bool] | None = None  # whether a token may not follow an answer
    guide: Guide | None = None  # the grammar of the answer, and its state: an engine gives it each token
    min_tokens: int = 0  # the answer cannot end before
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    begins: tuple[tuple[int, ...], ...] = ()  # alternatives of tokens with which the answer must begin
    logprobs: int | None = None  # alternatives to report per token; None reports not even the token's own
    prompt_logprobs: bool = False  # the same for the prompt

    @property
    def changes_logits(self) -> bool:
        penalties = self.presence_penalty, self.frequency_penalty, self.repetition_penalty
        return penalties != (0, 0, 1) or bool(self.logit_bias)

    @property
    def is_greedy(self) -> bool:
        """Return whether the next token is always the most likely one."""
        limits = self.begins, self.min_tokens
        return self.temperature == 0 and not self.changes_logits and not any(limits) and self.is_free

    @property
    def is_free(self) -> bool:
        return self.allowed is None and self.forbids is None and self.guide is None

    def may_follow(self, answer: Sequence[int]) -> list[int]:
        """Return the only tokens that may come next; [] means all."""
        at = len(answer)
        return sorted({begin[at] for begin in self.begins if at < len(begin) and tuple(answer) == begin[:at]})


@dataclass(frozen=True, slots=True)
class Score:
    """The probability of a token as the model computed it: before temperature, penalties and so on."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # the most likely tokens, and their log probabilities


@dataclass
class Record:
    """Additional data about an answer. The engine fills it before it delivers the token concerned."""

    cached: int = 0  # prompt tokens that need not be computed
    prompt: list[Score] = field(default_factory=list)  # from the second token on, if requested
    answer: list[Score | None] = field(default_factory=list)  # one per token, if requested; None if it is not known
