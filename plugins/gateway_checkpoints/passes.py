"""The tokenizer and the network of a checkpoint: texts or pairs of texts in, what the network computes for each out.

The inputs of one call are sorted by length and computed in passes of similar lengths, so that little is padding.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gateway import BadRequest, HTTPError

PROBES = ("a", "a longer text of some more words, which is not padded")
NEAR = 1e-3  # relative difference of a text alone and in a pass; half precision has 1e-3, a wrong padding far more

# What the tokenizer gives for one input: lists, each with an entry for every token. Other entries are for `Take`.
Row = dict[str, Any]
# From the outputs of a pass, the place of an input in it, its own tokens there and its row, to what is kept of them.
Take = Callable[[Any, int, slice, Row], Any]


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


def numbers(outputs: Any, place: int, own: slice, row: Row) -> list[float]:
    """Take the numbers that a network computes for a whole input, as float32."""
    found: list[float] = outputs.logits[place].float().cpu().tolist()
    return found


class Network:
    """Computes on one device. Threads take turns with the tokenizer, which keeps the settings of a call.

    `take` is what is kept of the outputs unless a call says otherwise. `most` is the largest number of tokens of a
    pass, if that has to be less than what is fast.
    """

    def __init__(
        self, tokenizer: Any, model: Any, length: int | None = None, take: Take = numbers, most: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self._model = model
        self._take = take
        shape = CPU if model.device.type == "cpu" else GPU
        self._shape = shape if most is None else replace(shape, budget=min(shape.budget, most))
        self._lock = threading.Lock()
        self._takes = inspect.signature(model.forward).parameters
        self.length = _length(tokenizer, model, length)
        self.together = True
        self.together = self._may_share()

    def compute(self, asks: Sequence[Ask]) -> list[Any]:
        """Return what is kept for each input, or the exception that is its result."""
        return self.outputs(self.rows(asks))

    def rows(self, asks: Sequence[Ask], cut: bool | str = True, **how: Any) -> list[Row | BadRequest]:
        """Return the tokens of each input. Those that are too long are tokenized again to be cut, or are errors.

        `cut` says which text of a pair is cut: the longer one, or `only_first`. `how` is for the tokenizer: what else
        it returns. All inputs are texts, or all are pairs.
        """
        if self.length is None:
            return [*self._tokenize(asks, None, False, how)]
        rows: list[Any] = self._tokenize(asks, self.length + 1, True, how)  # enough to detect that an input is too long
        long = [place for place, row in enumerate(rows) if len(row["input_ids"]) > self.length]
        cuts = [place for place in long if asks[place].cut]
        shorter = self._tokenize([asks[place] for place in cuts], self.length, cut, how) if cuts else []
        for place in long:
            rows[place] = too_long(asks[place], self.length)
        for place, row in zip(cuts, shorter, strict=True):
            rows[place] = row
        return rows

    def plain(self, text: str) -> list[int]:
        """Return the tokens of a text alone, without those that begin and end an input."""
        with self._lock:
            found: list[int] = self.tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]
        return found

    def parts(self, text: str, other: str | None, *, length: int, stride: int, **how: Any) -> list[Row]:
        """Return the tokens of a text, or of a pair, in parts of at most `length` tokens; the last text is divided.

        Neighbours have `stride` tokens in common. A row also has `sequences`: the number of the text of each token, and
        `words`: the number of its word there; both are None for special tokens. The tokenizer has to be a fast one.
        """
        which = "only_first" if other is None else "only_second"
        with self._lock:
            found = self.tokenizer(
                text,
                other,
                truncation=which,
                max_length=length,
                stride=stride,
                return_overflowing_tokens=True,
                padding=False,
                **how,
            )
        found.pop("overflow_to_sample_mapping", None)
        return [
            {**row, "sequences": found.sequence_ids(place), "words": found.word_ids(place)}
            for place, row in enumerate(_divided(found))
        ]

    def outputs(self, rows: Sequence[Any], take: Take | None = None) -> list[Any]:
        """Return what is kept for each row of tokens. An exception in the place of a row stays there."""
        found: list[Any] = [each if isinstance(each, Exception) else None for each in rows]
        places = [place for place, each in enumerate(found) if each is None]
        lengths = [len(rows[place]["input_ids"]) for place in places]
        for run in passes(lengths, self._shape, together=self.together):
            kept = self._forward([rows[places[each]] for each in run], take or self._take)
            for each, value in zip(run, kept, strict=True):
                found[places[each]] = value
        return found

    def _tokenize(self, asks: Sequence[Ask], keep: int | None, cut: bool | str, how: Mapping[str, Any]) -> list[Row]:
        others = None if asks[0].other is None else [ask.other for ask in asks]
        with self._lock:
            found = self.tokenizer(
                [ask.text for ask in asks], others, truncation=cut, max_length=keep, padding=False, **how
            )
        return _divided(found)

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Row], take: Take) -> list[Any]:
        names = [name for name in rows[0] if name in self._takes]
        lengths = [len(row["input_ids"]) for row in rows]
        if len(rows) == 1:
            inputs = {name: torch.tensor([rows[0][name]]) for name in names}
        else:
            given = {name: [row[name] for row in rows] for name in names}
            with self._lock:
                inputs = dict(self.tokenizer.pad(given, return_tensors="pt"))
        kept = {"use_cache": False} if "use_cache" in self._takes else {}
        moved = {name: each.to(self._model.device) for name, each in inputs.items() if name in self._takes}
        outputs = self._model(**moved, **kept)
        longest = max(lengths)
        starts = [longest - length if self.tokenizer.padding_side == "left" else 0 for length in lengths]
        spans = [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        return [take(outputs, place, own, rows[place]) for place, own in enumerate(spans)]

    def _may_share(self) -> bool:
        """Return whether a padded text gives what it gives alone.

        It does not if the network pads with another token than the tokenizer, or if one of them has none.
        """
        rows = self._tokenize([Ask(text) for text in PROBES], self.length, self.length is not None, {})
        alone = [_flat(self._forward([row], self._take)[0]) for row in rows]
        try:
            shared = self._forward(rows, self._take)
        except (ValueError, TypeError, IndexError, RuntimeError):
            return False
        return all(_is_near(_flat(one), other) for one, other in zip(shared, alone, strict=True))


def _divided(found: Any) -> list[Row]:
    return [{name: found[name][place] for name in found} for place in range(len(found["input_ids"]))]


def _flat(found: Any) -> Any:
    return torch.as_tensor(found).reshape(-1).float().cpu()


def _is_near(one: Any, other: Any) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= NEAR * max(1.0, float(other.abs().max())))


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
