"""`Entities`: the words of a text that have a label, such as names of people and places, with their offsets.

The library's own pipeline groups tokens to words and words to entities; only the passes are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gateway_checkpoints import unloadable
from gateway_inference_api import TRUNCATE, Parameter, caught, one_of, whole, words

from gateway import BadRequest

from .pipeline import TextPipeline

STRATEGIES = ("none", "simple", "first", "average", "max")
MOST_PARTS = 256  # of a text with `stride`
TOKENS = {"return_special_tokens_mask": True, "return_offsets_mapping": True}


class Entities(TextPipeline):
    name = "token-classification"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "aggregation_strategy": one_of("simple", STRATEGIES, "how tokens are grouped; none: each token with its label"),
        "ignore_labels": words(("O",), 1000, "labels that are left out"),
        "stride": whole(None, 0, 100_000, "divide longer texts, into parts with so many tokens in common"),
        "truncate": TRUNCATE,
    }
    answer_item: ClassVar[Mapping[str, Any]] = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "entity_group": {"type": "string", "description": "the label; entity, if tokens are not grouped"},
                "score": {"type": "number"},
                "word": {"type": "string"},
                "start": {"type": "integer", "description": "the first character in the text, counted from 0"},
                "end": {"type": "integer", "description": "the character after the last one"},
            },
            "required": ["score", "word", "start", "end"],
        },
    }
    example: ClassVar[Mapping[str, Any]] = {"inputs": "Ada Lovelace lived in London."}

    def prepare(self, place: Path) -> None:
        from transformers import TokenClassificationPipeline

        if not self.tokenizer.is_fast:
            what = "its tokenizer does not know where in a text its tokens are, which only a tokenizer.json tells"
            raise unloadable(place, f"{what}: save the tokenizer again with a class of the library that is fast")
        self.library = TokenClassificationPipeline(
            model=self.model, tokenizer=self.tokenizer, device=self.model.device, task="token-classification"
        )

    def compute(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        """Return the entities of each text."""
        whole = [place for place, (_, given) in enumerate(jobs) if given["stride"] is None]
        parts: list[Any] = [None] * len(jobs)
        if whole:
            rows = self.network.rows(self.asks([jobs[place] for place in whole]), **TOKENS)
            for place, row in zip(whole, rows, strict=True):
                parts[place] = row if isinstance(row, Exception) else [row]
        for place, (text, given) in enumerate(jobs):
            if given["stride"] is not None:
                parts[place] = caught(self._parts, text, given)
        flat = [row for each in parts if isinstance(each, list) for row in each if row["input_ids"]]
        logits = iter(self.network.outputs(flat))
        answers = []
        for (text, given), each in zip(jobs, parts, strict=True):
            if isinstance(each, Exception):
                answers.append(each)
                continue
            computed = [(row, next(logits)) for row in each if row["input_ids"]]
            answers.append(caught(self._entities, text, computed, given))
        return answers

    def _parts(self, text: str, given: Mapping[str, Any]) -> list[Any]:
        """Return the tokens of a text in parts that the network can read."""
        length = self.network.length
        strategy, stride = given["aggregation_strategy"], given["stride"]
        if strategy == "none":
            raise BadRequest("stride needs an aggregation_strategy other than none", param="stride")
        if length is None:
            return self.network.rows(self.asks([(text, given)]), **TOKENS)
        room = length - self.tokenizer.num_special_tokens_to_add()
        if stride >= room:
            raise BadRequest(f"stride must be below {room}, the tokens that the model reads", param="stride")
        rows = self.network.parts(text, None, length=length, stride=stride, **TOKENS)
        if len(rows) > MOST_PARTS:
            raise BadRequest(
                f"the text is divided into {len(rows)} parts, and {MOST_PARTS} are the most: send a shorter one",
                code="context_length_exceeded",
            )
        return rows

    def _entities(self, text: str, computed: Sequence[tuple[Any, Any]], given: Mapping[str, Any]) -> list[Any]:
        import torch
        from gateway_checkpoints.passes import not_finite
        from transformers.pipelines.token_classification import AggregationStrategy

        if not computed:  # a text without tokens
            return []
        if not all(bool(logits.isfinite().all()) for _, logits in computed):
            raise not_finite()
        outputs = [
            {
                "logits": logits[None],
                "sentence": text,
                **{name: torch.tensor([row[name]]) for name in ("input_ids", "special_tokens_mask", "offset_mapping")},
            }
            for row, logits in computed
        ]
        found = self.library.postprocess(
            outputs, AggregationStrategy(given["aggregation_strategy"]), given["ignore_labels"]
        )
        return [_plain(each) for each in found]


def _plain(entity: Mapping[str, Any]) -> dict[str, Any]:
    return {**entity, "score": float(entity["score"])}
