"""`Gaps`: the most likely tokens in place of each mask of a text (fill-mask)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gateway_checkpoints import unloadable
from gateway_inference_api import TRUNCATE, Parameter, caught, whole, words

from gateway import BadRequest

from .pipeline import TextPipeline

MOST_NUMBERS = 1 << 26  # of a pass: a number for each token of the text and each of the vocabulary; 256 MiB
MOST_ANSWERS = 10_000  # tokens of one text, each with the text that it makes


def most_tokens(model: Any) -> int:
    """Return how many tokens a pass may have in a network that computes numbers for the whole vocabulary."""
    return max(1, MOST_NUMBERS // max(1, model.config.get_text_config().vocab_size))


class Gaps(TextPipeline):
    name = "fill-mask"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "top_k": whole(5, 1, 1000, "how many tokens"),
        "targets": words(None, 1000, "only these, each of which has to be one token"),
        "truncate": TRUNCATE,
    }
    answer_item: ClassVar[Mapping[str, Any]] = {
        "type": "array",
        "description": "the likeliest first; with several masks, a list of such lists",
        "items": {
            "type": ["object", "array"],
            "properties": {
                "score": {"type": "number"},
                "token": {"type": "integer"},
                "token_str": {"type": "string"},
                "sequence": {"type": "string", "description": "the text with this token"},
            },
        },
    }

    def prepare(self, place: Path) -> None:
        if self.tokenizer.mask_token_id is None:
            raise unloadable(place, "its tokenizer has no mask token, so no text has a gap: get its files again")
        self.vocabulary = self.tokenizer.get_vocab()
        self.example = {"inputs": f"Paris is the {self.tokenizer.mask_token} of France."}  # type: ignore[misc]

    def most(self) -> int:
        return most_tokens(self.model)

    def take(self, outputs: Any, place: int, own: slice, row: Mapping[str, Any]) -> Any:
        """Return the probabilities and numbers of the likeliest tokens for each mask."""
        logits = outputs.logits[place, own]
        if "masks" not in row:
            return logits
        import torch

        chances = logits[row["masks"]].float().softmax(dim=-1)
        targets = torch.tensor(row["targets"], device=chances.device) if row["targets"] else None
        if targets is not None:
            chances = chances[..., targets]
        values, places = chances.topk(min(row["top_k"], chances.shape[-1]))
        return values.tolist(), (places if targets is None else targets[places]).tolist()

    def compute(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        """Return the tokens for the gap of each text, or for each of its gaps."""
        rows = [
            each if isinstance(each, Exception) else caught(self._asked, each, given)
            for each, (_, given) in zip(self.network.rows(self.asks(jobs)), jobs, strict=True)
        ]
        return [
            each if isinstance(each, Exception) else caught(self._answer, row, *each)
            for row, each in zip(rows, self.network.outputs(rows), strict=True)
        ]

    def _asked(self, row: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row of a text with its masks, and with what is asked about them."""
        masks = [place for place, token in enumerate(row["input_ids"]) if token == self.tokenizer.mask_token_id]
        if not masks:
            raise BadRequest(f"the text has no {self.tokenizer.mask_token}, which stands for what is missing")
        targets = None if given["targets"] is None else sorted({self._token(each) for each in given["targets"]})
        if targets == []:
            raise BadRequest("targets must have at least one text", param="targets")
        count = len(masks) * min(given["top_k"], len(targets or self.vocabulary))
        if count > MOST_ANSWERS:
            raise BadRequest(f"{len(masks)} masks with {given['top_k']} tokens each are too many: lower top_k")
        return {**row, "masks": masks, "targets": targets, "top_k": given["top_k"]}

    def _token(self, target: str) -> int:
        """Return the number of a target. The library takes the first token of one that has several."""
        if (number := self.vocabulary.get(target)) is not None:
            return int(number)
        found = self.network.plain(target)
        if len(found) != 1:
            what = f"{target[:64]!r} is {len(found)} tokens of this model"
            raise BadRequest(f"{what}: each of targets has to be one", param="targets")
        return int(found[0])

    def _answer(self, row: Mapping[str, Any], values: Sequence[Any], tokens: Sequence[Any]) -> Any:
        from gateway_checkpoints.passes import not_finite

        if not all(math.isfinite(each) for chances in values for each in chances):
            raise not_finite()
        found = [
            [self._filled(row, mask, chance, token) for chance, token in zip(chances, numbers, strict=True)]
            for mask, chances, numbers in zip(row["masks"], values, tokens, strict=True)
        ]
        return found[0] if len(found) == 1 else found

    def _filled(self, row: Mapping[str, Any], mask: int, chance: float, token: int) -> dict[str, Any]:
        whole = [*row["input_ids"][:mask], token, *row["input_ids"][mask + 1 :]]
        kept = [each for each in whole if each != self.tokenizer.pad_token_id]
        others = len(row["masks"]) > 1  # masks are special tokens too
        return {
            "score": chance,
            "token": token,
            "token_str": self.tokenizer.decode([token]),
            "sequence": self.tokenizer.decode(kept, skip_special_tokens=not others),
        }
