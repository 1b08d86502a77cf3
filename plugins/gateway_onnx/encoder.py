"""The tokenizer and the graph of an export: texts to tokens, and tokens to the graph's output, in passes.

A pass has texts of similar length, so that little is computed for padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import BadRequest, ConfigError, check_ordinary

from .header import Header
from .session import Session
from .settings import Settings

# Of all-MiniLM-L6-v2 on one core: larger passes are not faster per token, and smaller ones have a fixed cost.
BUDGET = 512  # tokens of a pass, padding included
PADDING = 64  # tokens of padding that cost less than another pass
PROBE = "a"
LARGEST = 256 << 20  # bytes of a tokenizer.json


@dataclass(frozen=True, slots=True)
class Tokens:
    ids: list[int]
    types: list[int]
    skipped: int = 0  # tokens at the beginning that have no part in the vector

    @property
    def count(self) -> int:
        return len(self.ids)


class Encoder:
    """Threads may share it."""

    def __init__(self, place: Path, header: Header, session: Session, settings: Settings) -> None:
        self._session, self._settings, self.limit = session, settings, settings.limit
        self._tokenizer, self._cutter = _tokenizers(place / "tokenizer.json", settings)
        self._types = {value.name: value.type.element for value in header.inputs}
        dims = next(value.type.dims for value in header.inputs if value.name == "input_ids") or (None, None)
        # An export without dynamic axes takes texts in this number and of this length.
        self._rows, self._width = (dim if isinstance(dim, int) else None for dim in dims)
        self._before, self._behind, self._kinds = self._frame()

    def _frame(self) -> tuple[list[int], list[int], tuple[int, int, int]]:
        """Return the tokens that belong before and behind a text, and the types of the three parts."""
        bare, whole = (self._tokenizer.encode(PROBE, add_special_tokens=each) for each in (False, True))
        for start in range(len(whole.ids) - len(bare.ids) + 1):
            if whole.ids[start : start + len(bare.ids)] == bare.ids and bare.ids:
                end = start + len(bare.ids)
                first, inner, last = whole.type_ids[0], whole.type_ids[start], whole.type_ids[-1]
                return whole.ids[:start], whole.ids[end:], (first, inner, last)
        raise ConfigError("tokenizer.json makes other tokens of a text with its special tokens than without")

    # ── texts to tokens ──

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts, without those that belong around them."""
        return [each.ids for each in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def text(self, ids: list[int], prompt: int = 0, keep: int | None = None, side: str | None = None) -> Tokens:
        """Return a text as the graph takes it: `ids` begin with a prompt of so many tokens, and may be cut to `keep`.

        Raises:
            BadRequest: it is too long, or is to be cut to nothing.
        """
        around = len(self._before) + len(self._behind)
        if keep is None:
            if self.limit is not None and len(ids) + around > self.limit:
                raise too_long(self.limit)
        elif len(ids) + around > keep:
            room = keep - around
            if room < 1 or (side == "left" and prompt >= room):
                what = "truncate_prompt_tokens leaves no room for a text: send a larger number"
                raise BadRequest(what, param="truncate_prompt_tokens")
            ids = ids[:prompt] + ids[len(ids) - room + prompt :] if side == "left" else ids[:room]
        first, inner, last = self._kinds
        types = [first] * len(self._before) + [inner] * len(ids) + [last] * len(self._behind)
        return Tokens([*self._before, *ids, *self._behind], types)

    def whole(self, texts: Sequence[str] | Sequence[tuple[str, str]], *, cuts: bool) -> list[Tokens | BadRequest]:
        """Return texts or pairs of texts as the graph takes them; an error for each that is too long."""
        tokenizer = self._cutter if cuts else self._tokenizer
        found = [Tokens(each.ids, each.type_ids) for each in tokenizer.encode_batch(list(texts))]
        if self.limit is None:
            return list(found)
        return [each if each.count <= self.limit else too_long(self.limit) for each in found]

    @property
    def before(self) -> int:
        return len(self._before)

    # ── tokens to what the graph computes ──

    def passes(self, texts: Sequence[Tokens]) -> Iterator[tuple[list[int], Any, Any]]:
        """Compute all texts; yield the places of those of one pass, the graph's output for them, and their mask."""
        import numpy

        for places in self._divided(texts):
            rows = self._rows or len(places)
            width = self._width or max(texts[place].count for place in places)
            arrays = {name: numpy.zeros((rows, width), numpy.int64) for name in ("attention_mask", "token_type_ids")}
            arrays["input_ids"] = numpy.full((rows, width), self._settings.pad, numpy.int64)
            for row, place in enumerate(places):
                count = texts[place].count
                arrays["input_ids"][row, :count] = texts[place].ids
                arrays["token_type_ids"][row, :count] = texts[place].types
                arrays["attention_mask"][row, :count] = 1
            arrays["position_ids"] = numpy.broadcast_to(numpy.arange(width), (rows, width))
            feed = {
                name: numpy.ascontiguousarray(arrays[name], kind)
                for name, kind in self._types.items()
                if name in arrays
            }
            (found,) = self._session.run(feed, [self._settings.output])
            mask = arrays["attention_mask"][: len(places)]
            for row, place in enumerate(places):
                mask[row, : texts[place].skipped] = 0
            yield places, found[: len(places)], mask

    def _divided(self, texts: Sequence[Tokens]) -> Iterator[list[int]]:
        places = sorted(range(len(texts)), key=lambda place: -texts[place].count)
        run: list[int] = []
        longest = padding = 0
        for place in places:
            count = texts[place].count
            if run and self._is_full(len(run), longest, padding + longest - count):
                yield run
                run, padding = [], 0
            if not run:
                longest = count
            run.append(place)
            padding += longest - count
        if run:
            yield run

    def _is_full(self, rows: int, longest: int, padding: int) -> bool:
        if self._rows is not None:
            return rows >= self._rows
        return (rows + 1) * longest > BUDGET or padding > PADDING


def too_long(limit: int) -> BadRequest:
    """The first words are OpenAI's: clients recognise a too long text by them."""
    return BadRequest(
        f"This model's maximum context length is {limit} tokens. However, a text has more, counted with the tokens "
        "that the model adds. Send a shorter text, or truncate: true to have it cut.",
        param="input",
        code="context_length_exceeded",
    )


def _tokenizers(file: Path, settings: Settings) -> tuple[Any, Any]:
    """Return the tokenizer, and one that cuts to the model's limit. Requests do not change either."""
    import tokenizers

    check_ordinary(file)
    if (size := file.stat().st_size) > LARGEST:
        raise ConfigError(f"{file} has {size} bytes, more than a tokenizer needs; get it again")
    found = []
    for _ in range(2):
        try:
            each = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises no other class
            raise ConfigError(f"{file} cannot be read ({error}); get it again") from error
        each.no_padding()
        each.no_truncation()
        if settings.lower:
            lower = tokenizers.normalizers.Lowercase()
            each.normalizer = tokenizers.normalizers.Sequence([lower, each.normalizer] if each.normalizer else [lower])
        found.append(each)
    if settings.limit is not None:
        try:
            found[1].enable_truncation(settings.limit, strategy="longest_first")
        except Exception as error:
            raise ConfigError(f"{file}: texts cannot be cut to {settings.limit} tokens ({error})") from error
    return found[0], found[1]
