"""The tokenizer and the network of a checkpoint: texts or pairs of texts in, one row of numbers for each out.

The inputs of one call are sorted by length and computed in passes of similar lengths, so that little is padding.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gateway import BadRequest, HTTPError

PROBES = ("a", "a longer text of some more words, which is not padded")
NEAR = 1e-3  # relative difference of a text alone and in a pass; half precision has 1e-3, a wrong padding far more


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a pass that is efficient on this kind of device."""

    budget: int  # tokens of one pass, padding included: larger passes are not faster per token
    spare: int  # tokens of padding that cost about as much as another pass


# Measured with a network of the same kind, see `gateway_sentence_transformers.encoder`; not measured on a GPU.
CPU = Shape(budget=512, spare=64)
GPU = Shape(budget=16_384, spare=2_048)


@dataclass(frozen=True, slots=True)
class Ask:
    """A text, or a pair of texts, and whether it is cut if it is too long."""

    text: str
    other: str | None = None
    cut: bool = False


def passes(lengths: Sequence[int], shape: Shape, *, together: bool = True) -> Iterator[list[int]]:
    """Yield the places of the inputs that share a pass, longest first."""
    run: list[int] = []
    padding = 0
    for place in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        if run:
            longest = lengths[run[0]]
            padding += longest - lengths[place]
            if not together or padding > shape.spare or longest * (len(run) + 1) > shape.budget:
                yield run
                run, padding = [], 0
        run.append(place)
    if run:
        yield run


class Network:
    """Computes on one device. Threads take turns with the tokenizer, which keeps the settings of a call."""

    def __init__(self, tokenizer: Any, model: Any, length: int | None) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._shape = CPU if model.device.type == "cpu" else GPU
        self._lock = threading.Lock()
        self._takes = inspect.signature(model.forward).parameters
        self.length = _length(tokenizer, model, length)
        self.together = True
        self.together = self._may_share()

    def compute(self, asks: Sequence[Ask]) -> list[Any]:
        """Return a list of float32 for each input, or the exception that is its result."""
        tokens = self._tokenize(asks)
        found: list[Any] = [each if isinstance(each, Exception) else None for each in tokens]
        places = [place for place, each in enumerate(found) if each is None]
        lengths = [len(tokens[place]["input_ids"]) for place in places]
        for run in passes(lengths, self._shape, together=self.together):
            rows = self._forward([tokens[places[each]] for each in run])
            for each, row in zip(run, rows, strict=True):
                found[places[each]] = row
        return found

    def _tokenize(self, asks: Sequence[Ask]) -> list[Any]:
        """Return the token rows of each input. Those that are too long are tokenized again to be cut, or are errors."""
        if self.length is None:
            return self._rows(asks, None)
        rows: list[Any] = self._rows(asks, self.length + 1)  # enough to detect that an input is too long
        long = [place for place, row in enumerate(rows) if len(row["input_ids"]) > self.length]
        cut = [place for place in long if asks[place].cut]
        shorter = self._rows([asks[place] for place in cut], self.length) if cut else []
        for place in long:
            rows[place] = too_long(asks[place], self.length)
        for place, row in zip(cut, shorter, strict=True):
            rows[place] = row
        return rows

    def _rows(self, asks: Sequence[Ask], keep: int | None) -> list[Any]:
        others = None if asks[0].other is None else [ask.other for ask in asks]  # all of one method
        with self._lock:
            found = self._tokenizer(
                [ask.text for ask in asks], others, truncation=keep is not None, max_length=keep, padding=False
            )
        names = [name for name in found if name in self._takes]
        return [{name: found[name][place] for name in names} for place in range(len(asks))]

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Any]) -> list[list[float]]:
        if len(rows) == 1:
            inputs = {name: torch.tensor([values]) for name, values in rows[0].items()}
        else:
            given = {name: [row[name] for row in rows] for name in rows[0]}
            with self._lock:
                inputs = dict(self._tokenizer.pad(given, return_tensors="pt"))
        kept = {"use_cache": False} if "use_cache" in self._takes else {}
        moved = {name: each.to(self._model.device) for name, each in inputs.items() if name in self._takes}
        logits = self._model(**moved, **kept).logits
        found: list[list[float]] = logits.float().cpu().tolist()
        return found

    def _may_share(self) -> bool:
        """Return whether a padded text gives what it gives alone.

        It does not if the network pads with another token than the tokenizer, or if one of them has none.
        """
        rows = self._rows([Ask(text) for text in PROBES], self.length)
        alone = torch.tensor([self._forward([row])[0] for row in rows])
        try:
            shared = torch.tensor(self._forward(rows))
        except (ValueError, TypeError, IndexError, RuntimeError):
            return False
        return bool((shared - alone).abs().max() <= NEAR * max(1.0, float(alone.abs().max())))


def _length(tokenizer: Any, model: Any, saved: int | None) -> int | None:
    """Return how many tokens the network reads, None if any number."""
    lengths = [saved, getattr(model.config, "max_position_embeddings", None)]
    if tokenizer.model_max_length < 1e9:  # otherwise it does not know
        lengths.append(int(tokenizer.model_max_length))
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # the positions of RoBERTa and its like begin after that of padding
            lengths.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return min((length for length in lengths if isinstance(length, int) and length > 0), default=None)


def too_long(ask: Ask, length: int) -> BadRequest:
    """The first words are OpenAI's: clients recognise a too long text by them."""
    what = "the input has more" if ask.other is None else "the two texts have more"
    return BadRequest(
        f"This model's maximum context length is {length} tokens. However, {what}. Send a shorter text, or "
        "truncate: true to have it cut.",
        code="context_length_exceeded",
    )


def not_finite() -> HTTPError:
    return HTTPError(500, "the model computed NaN or infinity", code="invalid_model_output")
