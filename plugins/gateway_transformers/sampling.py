"""Choose the next token from a row of logits: greedy, or drawn by the request's own generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from gateway_language.sampling import Sampling, Score
from torch import Tensor

NEVER = float("-inf")
RANKED = 1024  # tokens sorted for top_p; a larger nucleus requires sorting the whole vocabulary


def generator(sampling: Sampling) -> torch.Generator:
    """Return the source of a request's random numbers."""
    source = torch.Generator()
    if sampling.seed is None:
        source.seed()
    else:
        source.manual_seed(sampling.seed % 2**63)
    return source


def score(logits: Tensor, token: int, count: int) -> Score:
    """Return the log probability of a token, and the `count` most likely ones."""
    logprobs = logits.float().cpu().log_softmax(0)
    values, tokens = logprobs.topk(count)
    return Score(token, float(logprobs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))


def draw(
    logits: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    prompt: Sequence[int],
    answer: Sequence[int],
    ends: Collection[int] = (),
) -> int:
    """Draw one token. The same seed gives the same tokens, whatever else is in the batch. `ends` end the answer.

    If no token is allowed, the answer ends.
    """
    logits = logits.float().cpu()
    if sampling.changes_logits:
        logits = penalise(logits, sampling, prompt, answer)
    if sampling.begins and (allowed := sampling.may_follow(answer)):
        return choose(only(logits, allowed), sampling, generator)
    if sampling.guide is not None:
        return guided(logits, sampling, generator, ends if len(answer) >= sampling.min_tokens else ())
    if sampling.allowed is not None:
        logits = only(logits, sampling.allowed)
    if len(answer) < sampling.min_tokens:
        logits = logits.clone()
        logits[[token for token in ends if token < len(logits)]] = NEVER
    while True:
        if bool(logits.max() == NEVER):
            return min(ends, default=0)
        token = choose(logits, sampling, generator)
        if sampling.forbids is None or token in ends or not sampling.forbids(answer, token):
            return token
        logits = logits.clone()
        logits[token] = NEVER


def guided(logits: Tensor, sampling: Sampling, generator: torch.Generator, ends: Collection[int]) -> int:
    """Draw one token that the grammar of the answer allows, and give it to the guide. `ends` may end the answer here.

    Returns an end, or 0, if there is none: then the guide is over.
    """
    guide = sampling.guide
    assert guide is not None
    packed = torch.frombuffer(bytearray(guide.mask()), dtype=torch.uint8)
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)).bitwise_and(1).bool().flatten()[: len(logits)]
    allowed = torch.zeros(len(logits), dtype=torch.bool)
    allowed[: len(bits)] = bits
    if guide.may_end:
        allowed[[token for token in ends if token < len(logits)]] = True
    if guide.failure or not bool(allowed.any()):
        guide.stop_here()
        return min(ends, default=0)
    token = choose(logits.masked_fill(~allowed, NEVER), sampling, generator)
    if not guide.take(token) and not (token in ends and guide.may_end):
        raise RuntimeError(f"token {token} is in the mask of the guide, but it does not take it")
    return token


def only(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """Return the logits with all other tokens excluded."""
    kept = torch.full_like(logits, NEVER)
    kept[list(tokens)] = logits[list(tokens)]
    return kept


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax())
    tokens, weights = candidates(logits / sampling.temperature, sampling)
    mass = weights.cumsum(0, dtype=torch.float64)
    point = torch.rand((), generator=generator, dtype=torch.float64) * mass[-1]
    index = min(int(torch.searchsorted(mass, point, right=True)), len(mass) - 1)
    return index if tokens is None else int(tokens[index])


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """Return the tokens that may be drawn (None: all) and their weights, after top_k, typical_p, top_p and min_p."""
    tokens = None
    if 0 < sampling.top_k < len(logits):
        logits, tokens = logits.topk(sampling.top_k)
    weights = logits.softmax(0)
    if sampling.typical_p < 1:
        weights = typical(weights, sampling.typical_p)
    if sampling.top_p < 1:
        ranked, ranks = weights.topk(min(RANKED, len(weights)))
        if ranked.sum() < sampling.top_p:
            ranked, ranks = weights.sort(descending=True)
        inside = ranked.cumsum(0) - ranked < sampling.top_p  # the token that crosses the threshold is included
        inside[0] = True
        weights, tokens = ranked[inside], ranks[inside] if tokens is None else tokens[ranks[inside]]
    if sampling.min_p > 0:
        weights = weights.where(weights >= sampling.min_p * weights.max(), 0.0)
    return tokens, weights


def typical(weights: Tensor, mass: float) -> Tensor:
    """Apply locally typical sampling (arXiv 2202.00666).

    It keeps the tokens whose surprise is closest to the expected one, up to this share of the mass, and at least one.
    """
    surprise = -weights.log()
    expected = (weights * surprise).nansum()
    ranks = (surprise - expected).abs().argsort()
    before = weights[ranks].cumsum(0) - weights[ranks]
    inside = before < mass
    inside[0] = True
    kept = torch.zeros_like(weights)
    kept[ranks[inside]] = weights[ranks[inside]]
    return kept / kept.sum()


def penalise(logits: Tensor, sampling: Sampling, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Return logits after bias and penalties: OpenAI's two consider the answer, repetition_penalty the prompt too."""
    logits = logits.clone()
    for token, bias in sampling.logit_bias:
        logits[token] += bias
    if sampling.repetition_penalty != 1:
        read = [*prompt, *answer]
        last = len(read) if sampling.repeat_last_n < 0 else sampling.repeat_last_n
        seen = torch.tensor(sorted(set(read[max(0, len(read) - last) :])), dtype=torch.long)
        values, penalty = logits[seen], sampling.repetition_penalty
        logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if counts := Counter(answer):
        times = torch.tensor(list(counts.values()), dtype=logits.dtype)
        logits[list(counts)] -= sampling.presence_penalty + sampling.frequency_penalty * times
    return logits
