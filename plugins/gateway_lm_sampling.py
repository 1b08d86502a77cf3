"""The next token from a row of logits: greedy, or drawn by the request's own generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RANKED = 1024  # tokens sorted for top_p; a nucleus that is larger costs a sort of the whole vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose. The defaults are greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    begins: tuple[tuple[int, ...], ...] = ()  # tokens that the answer begins with; one of these alternatives
    logprobs: int | None = None  # how many alternatives to tell beside each token; None is not even the token's own
    prompt_logprobs: bool = False  # the same for the prompt

    @property
    def changes_logits(self) -> bool:
        penalties = self.presence_penalty, self.frequency_penalty, self.repetition_penalty
        return penalties != (0, 0, 1) or bool(self.logit_bias)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0 and not self.changes_logits and not self.begins

    def may_follow(self, answer: Sequence[int]) -> list[int]:
        """The only tokens that may come next; none is all of them."""
        at = len(answer)
        return sorted({begin[at] for begin in self.begins if at < len(begin) and tuple(answer) == begin[:at]})

    def generator(self) -> torch.Generator:
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed % 2**63)
        return generator


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a token was, as the model saw it: before temperature, penalties and the like."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # the likeliest tokens, and how likely

    @classmethod
    def of(cls, logits: Tensor, token: int, count: int) -> Score:
        logprobs = logits.float().cpu().log_softmax(0)
        values, tokens = logprobs.topk(count)
        return cls(token, float(logprobs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))


def draw(
    logits: Tensor, sampling: Sampling, generator: torch.Generator, prompt: Sequence[int], answer: Sequence[int]
) -> int:
    """One token. The same seed gives the same tokens, whatever else is in the batch."""
    logits = logits.float().cpu()
    if sampling.changes_logits:
        logits = penalise(logits, sampling, prompt, answer)
    if sampling.begins and (allowed := sampling.may_follow(answer)):
        only = torch.full_like(logits, float("-inf"))
        only[allowed] = logits[allowed]
        logits = only
    if sampling.temperature == 0:
        return int(logits.argmax())
    tokens, weights = candidates(logits / sampling.temperature, sampling)
    mass = weights.cumsum(0, dtype=torch.float64)
    point = torch.rand((), generator=generator, dtype=torch.float64) * mass[-1]
    index = min(int(torch.searchsorted(mass, point, right=True)), len(mass) - 1)
    return index if tokens is None else int(tokens[index])


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """The tokens that may be drawn (None is all of them) and their weights, after top_k, top_p and min_p."""
    tokens = None
    if 0 < sampling.top_k < len(logits):
        logits, tokens = logits.topk(sampling.top_k)
    weights = logits.softmax(0)
    if sampling.top_p < 1:
        ranked, ranks = weights.topk(min(RANKED, len(weights)))
        if ranked.sum() < sampling.top_p:
            ranked, ranks = weights.sort(descending=True)
        inside = ranked.cumsum(0) - ranked < sampling.top_p  # the token that crosses the line is still in
        inside[0] = True
        weights, tokens = ranked[inside], ranks[inside] if tokens is None else tokens[ranks[inside]]
    if sampling.min_p > 0:
        weights = weights.where(weights >= sampling.min_p * weights.max(), 0.0)
    return tokens, weights


def penalise(logits: Tensor, sampling: Sampling, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Logits after bias and penalties: OpenAI's two look at the answer, repetition at the prompt too."""
    logits = logits.clone()
    for token, bias in sampling.logit_bias:
        logits[token] += bias
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted({*prompt, *answer}))
        values, penalty = logits[seen], sampling.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if counts := Counter(answer):
        times = torch.tensor(list(counts.values()), dtype=logits.dtype)
        logits[list(counts)] -= sampling.presence_penalty + sampling.frequency_penalty * times
    return logits
