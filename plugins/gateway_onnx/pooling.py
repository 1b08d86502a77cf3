"""Make one vector of the vectors of tokens, with the same values as the Pooling of sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
TINY = 1e-9  # the least number of tokens that a sum is divided by


def pool(tokens: Any, mask: Any, modes: Sequence[str]) -> Any:
    """Return a float32 matrix: for each text the vectors of all modes behind each other.

    `tokens` are texts × positions × numbers. `mask` is 1 where there is a token that counts; the others are padding
    behind it, or a prompt before it.
    """
    import numpy

    tokens = numpy.asarray(tokens, numpy.float32)
    weights = numpy.asarray(mask, numpy.float32)[:, :, None]
    return numpy.concatenate([_one(tokens, weights, mode) for mode in modes], axis=1)


def _one(tokens: Any, weights: Any, mode: str) -> Any:
    import numpy

    rows, width = numpy.arange(len(tokens)), tokens.shape[1]
    if mode == "cls":
        return tokens[rows, weights[:, :, 0].argmax(1)]
    if mode == "lasttoken":
        return tokens[rows, width - 1 - weights[:, ::-1, 0].argmax(1)]
    if mode == "max":
        return numpy.where(weights > 0, tokens, -numpy.inf).max(1)
    if mode == "weightedmean":
        weights = weights * numpy.arange(1, width + 1, dtype=numpy.float32)[None, :, None]
    count = numpy.maximum(weights.sum(1), TINY)
    return (tokens * weights).sum(1) / (numpy.sqrt(count) if mode == "mean_sqrt_len_tokens" else count)


def normalized(vectors: Any) -> Any:
    import numpy

    return vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
