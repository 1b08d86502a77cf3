"""`SignalPipeline`: what is common to the classifiers of images and of sounds.

They answer predict, and classify with a data URL or base64 in place of a text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gateway_checkpoints import unloadable
from gateway_checkpoints.labels import labels_of
from gateway_fields import Field, folded, misspelt, refused
from gateway_inference_api import Parameter, caught, one_of, whole
from gateway_media.payloads import file_of

from gateway import BadRequest, peek_json

from .pipeline import Pipeline
from .tasks import Task

FUNCTIONS = ("softmax", "sigmoid", "none")
# Fields of classify in other servers that would change the answer.
TABLE: Mapping[str, Field] = {
    **refused(True, names="use_activation activation softmax"),
    **refused(False, names="raw_scores"),
}
MEANT = folded(list(TABLE))
TOGETHER = 8  # files of one pass


def read_by(kinds: str) -> dict[str, str]:
    """Return `body_readers` for bodies of these content types."""
    return dict.fromkeys(kinds.split(), "read_file")


class SignalPipeline(Pipeline):
    """A subclass says what it reads, and makes tensors of it."""

    what: ClassVar[str]  # "an image"
    body_readers: ClassVar[Mapping[str, str]]  # content types of bodies that are such a file
    inputs = 64
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "top_k": whole(5, 1, 100_000, "how many labels, the likeliest first"),
        "function_to_apply": one_of(None, FUNCTIONS, "from numbers to scores; the one that config.json implies"),
    }
    answer_item: ClassVar[Mapping[str, Any]] = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
            "required": ["label", "score"],
        },
    }

    def open(self, place: Path, task: Task) -> None:
        from gateway_checkpoints.opening import open_model

        config = peek_json(place / "config.json")
        self.labels = labels_of(place, config)
        self.function = _function(config)
        self.open_processor(place)
        self.model = open_model(place, task.opens)
        if self.model.config.num_labels != len(self.labels):
            what = f"transformers finds {self.model.config.num_labels} labels, and config.json has {len(self.labels)}"
            raise unloadable(place, what)
        self.prepare(place)
        print(f"{self.model.num_parameters():,} parameters in {self.model.dtype} on {self.model.device}, {self.name}")

    def open_processor(self, place: Path) -> None:
        """Load what makes tensors of a file. Raises `ConfigError`."""
        raise NotImplementedError

    def prepare(self, place: Path) -> None:
        """Finish the load, with the network loaded."""

    def tensors(self, data: bytes) -> dict[str, Any]:
        """Return the inputs of the network for a file. Raises `BadRequest`."""
        raise NotImplementedError

    def read_file(self, body: bytes, content_type: str) -> dict[str, Any]:
        return {"inputs": body}

    def read_item(self, value: Any) -> bytes:
        return file_of(value, self.what)

    def compute(self, jobs: Sequence[tuple[bytes, Mapping[str, Any]]]) -> list[Any]:
        """Return the likeliest labels of each file."""
        return [
            each if isinstance(each, Exception) else caught(self._ranked, each, given)
            for each, (_, given) in zip(self._numbers([data for data, _ in jobs]), jobs, strict=True)
        ]

    def classify_batch(self, inputs: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the probabilities of all labels for the file of each request."""
        read = [caught(self._classified, body) for body in inputs]
        found = iter(self._numbers([each for each in read if not isinstance(each, Exception)]))
        return [each if isinstance(each, Exception) else self._named(next(found)) for each in read]

    def _classified(self, body: Mapping[str, Any]) -> bytes:
        for name, value in body.items():
            if (field := TABLE.get(name)) is not None and value is not None and not field.is_neutral(value):
                raise field.refusal(name)
            if error := misspelt(name, MEANT):
                raise error
        return file_of(body["input"], self.what)

    def _named(self, row: Any) -> Any:
        if isinstance(row, Exception):
            return row
        scores = _scores(row, self.function)
        return [{"label": label, "score": score} for label, score in zip(self.labels, scores, strict=True)]

    def _ranked(self, row: Any, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        scores = _scores(row, given["function_to_apply"] or self.function)
        found = [{"label": label, "score": score} for label, score in zip(self.labels, scores, strict=True)]
        found.sort(key=lambda each: -each["score"])
        return found[: given["top_k"]]

    def _numbers(self, files: Sequence[bytes]) -> list[Any]:
        """Return a tensor with a number for each label, for each file, or the exception that is its result."""
        from gateway_checkpoints.passes import not_finite

        found = [caught(self.tensors, data) for data in files]
        groups: dict[Any, list[int]] = defaultdict(list)  # of files whose tensors have the same shapes
        for place, each in enumerate(found):
            if isinstance(each, dict):
                groups[tuple((name, tuple(value.shape)) for name, value in each.items())].append(place)
        for group in groups.values():
            for start in range(0, len(group), TOGETHER):
                places = group[start : start + TOGETHER]
                rows = self.forward([found[place] for place in places])
                for place, row in zip(places, rows, strict=True):
                    found[place] = row if bool(row.isfinite().all()) else not_finite()
        return found

    def forward(self, inputs: Sequence[Mapping[str, Any]]) -> Any:
        import torch

        with torch.inference_mode():
            joined = {name: torch.cat([each[name] for each in inputs]) for name in inputs[0]}
            moved = {
                name: each.to(self.model.device, self.model.dtype if each.is_floating_point() else None)
                for name, each in joined.items()
            }
            return self.model(**moved).logits.float().cpu()


def _function(config: Mapping[str, Any]) -> str:
    kind = config.get("problem_type")
    if kind == "regression":
        return "none"
    return "sigmoid" if kind == "multi_label_classification" else "softmax"


def _scores(row: Any, function: str) -> list[float]:
    made = {"softmax": lambda: row.softmax(-1), "sigmoid": row.sigmoid, "none": lambda: row}[function]()
    found: list[float] = made.tolist()
    return found


def no_processor(place: Path, error: Exception) -> Exception:
    return unloadable(place, f"what prepares its inputs cannot be loaded ({error})")


def damaged(error: Exception) -> BadRequest:
    return BadRequest(f"the model cannot read this input: {' '.join(str(error).split())[:200]}", param="inputs")
