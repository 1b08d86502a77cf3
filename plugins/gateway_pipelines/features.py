"""`Features`: the vector that a network computes for each token of a text (feature-extraction)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gateway_inference_api import TRUNCATE, Parameter

from gateway import BadRequest

from .pipeline import TextPipeline

MOST_NUMBERS = 1_000_000  # of one request with several texts; in JSON each takes about twenty bytes


class Features(TextPipeline):
    name = "feature-extraction"
    parameters: ClassVar[Mapping[str, Parameter]] = {"truncate": TRUNCATE}
    answer_item: ClassVar[Mapping[str, Any]] = {
        "type": "array",
        "description": "one list with a vector for each token",
        "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    }
    example: ClassVar[Mapping[str, Any]] = {"inputs": "a cat"}

    def take(self, outputs: Any, place: int, own: slice, row: Mapping[str, Any]) -> Any:
        return outputs[0][place, own].float().cpu()

    def compute(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        """Return for each text a list with the list of its vectors, as the library's pipeline does."""
        from gateway_checkpoints.passes import not_finite

        rows = [
            BadRequest("the text has no tokens", param="inputs")
            if isinstance(each, dict) and not each["input_ids"]
            else each
            for each in self.network.rows(self.asks(jobs))
        ]
        width = self.model.config.get_text_config().hidden_size
        counts: dict[int, int] = {}  # of the numbers of each request
        for place, (row, (_, given)) in enumerate(zip(rows, jobs, strict=True)):
            if isinstance(row, Exception):
                continue
            before = counts.get(id(given), 0)
            counts[id(given)] = count = before + width * len(row["input_ids"])
            if before and count > MOST_NUMBERS:
                what = f"the vectors of these texts have more than {MOST_NUMBERS:,} numbers"
                rows[place] = BadRequest(f"{what}: send fewer texts", param="inputs")
        found = self.network.outputs(rows)
        return [
            each if isinstance(each, Exception) else [each.tolist()] if bool(each.isfinite().all()) else not_finite()
            for each in found
        ]
