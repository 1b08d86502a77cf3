"""`Sparse`: the tokens that a text is about, with their weights, as a sparse encoder (SPLADE) computes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gateway_inference_api import TRUNCATE, Job, Parameter, whole

from . import sparse_settings
from .gaps import most_tokens
from .pipeline import TextPipeline


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


class Sparse(TextPipeline):
    name = "sparse-encoding"
    parameters: Mapping[str, Parameter]  # type: ignore[misc]  # the names of its prompts are known when it is loaded
    answer_item: ClassVar[Mapping[str, Any]] = {
        "type": "array",
        "description": "the heaviest first",
        "items": {
            "type": "object",
            "properties": {
                "index": {"type": "integer", "description": "the number of the token"},
                "value": {"type": "number"},
                "token": {"type": "string"},
            },
            "required": ["index", "value", "token"],
        },
    }
    example: ClassVar[Mapping[str, Any]] = {"inputs": "a cat"}

    def prepare(self, place: Path) -> None:
        self.settings = sparse_settings.read(place)
        self.length = self.settings.length
        prompts = self.settings.prompts

        def prompt(value: Any) -> str:
            if value not in prompts:
                raise ValueError(f"one of {', '.join(prompts) or 'none: this model has no prompts'}")
            return prompts[value]

        about = "what is put before a text"
        self.parameters = {
            "prompt_name": Parameter(self.settings.prompt, prompt, {"enum": [*prompts], "description": about}),
            "max_active_dims": whole(self.settings.most, 1, 1_000_000, "the heaviest so many tokens"),
            "truncate": TRUNCATE,
        }

    def most(self) -> int:
        return most_tokens(self.model)

    def take(self, outputs: Any, place: int, own: slice, row: Mapping[str, Any]) -> Any:
        """Return the weight of each token of the vocabulary, or the heaviest."""
        weights = outputs.logits[place, own].float().relu().log1p()
        if self.settings.twice:
            weights = weights.log1p()
        found = weights.sum(dim=0) if self.settings.adds else weights.amax(dim=0)
        if "count" not in row:
            return found
        count = len(found) if row["count"] is None else min(row["count"], len(found))
        values, indices = found.topk(count)
        kept = int((values != 0).sum())  # NaN too, which is not 0
        return values[:kept].tolist(), indices[:kept].tolist()

    def compute(self, jobs: Sequence[Job]) -> list[Any]:
        """Return the tokens of each text with their weights."""
        asks = self.asks([(given["prompt_name"] + text, given) for text, given in jobs])
        rows = [
            each if isinstance(each, Exception) else {**each, "count": given["max_active_dims"]}
            for each, (_, given) in zip(self.network.rows(asks), jobs, strict=True)
        ]
        return [each if isinstance(each, Exception) else self._answer(*each) for each in self.network.outputs(rows)]

    def _answer(self, values: Sequence[float], indices: Sequence[int]) -> Any:
        from gateway_checkpoints.passes import not_finite

        if not all(map(math.isfinite, values)):
            return not_finite()
        tokens = self.tokenizer.convert_ids_to_tokens(list(indices))
        return [
            {"index": index, "value": value, "token": token}
            for index, value, token in zip(indices, values, tokens, strict=True)
        ]
