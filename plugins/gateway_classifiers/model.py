"""`Classifier` and `CrossEncoder`: the probabilities of a text's labels, and the score of a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway_checkpoints import named, unloadable
from gateway_checkpoints.labels import labels_of
from gateway_rating_fields import cuts

from gateway import ConfigError, check_ordinary, peek_json, weights_path

from . import loadable, settings

Inputs = Mapping[str, Any]
COUNT = "one label, so it scores pairs", "several labels, so it classifies texts"


class _Judge:
    """A loaded checkpoint, whose numbers the classes below make answers of."""

    scores: bool  # whether the checkpoint has to have one label

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.capabilities: dict[str, Any] = {}

    def load(self) -> None:
        place = weights_path(self.config, Path.cwd())
        check_ordinary(place)
        self.cuts = (self.config.get("options") or {}).get("truncate", False)
        if not isinstance(self.cuts, bool):
            raise ConfigError(f"options.truncate must be true or false, not {self.cuts!r}")
        loadable.say_unloadable(place)
        named.say_names(place, beside=Path.cwd())
        config = peek_json(place / "config.json")
        self.labels = labels_of(place, config)
        if (len(self.labels) == 1) is not self.scores:
            task, what = ("classify", COUNT[1]) if self.scores else ("rerank", COUNT[0])
            raise ConfigError(f"{place}: config.json has {what}: set options.task to {task}")
        self.function = settings.function_of(place, config, len(self.labels))
        self.network = _network(place, len(self.labels))
        self.capabilities = {"max_model_len": self.network.length}

    def answers(self, bodies: Sequence[Inputs], name: str, other: str | None = None) -> list[Any]:
        """Return the numbers of each request, or the exception that is its result."""
        from gateway_checkpoints.passes import Ask, not_finite

        asks: list[Any] = []
        for body in bodies:
            try:
                asks.append(Ask(body[name], None if other is None else body[other], cuts(body, self.cuts)))
            except Exception as error:  # of this request only
                asks.append(error)
        places = [place for place, ask in enumerate(asks) if isinstance(ask, Ask)]
        rows = self.network.compute([asks[place] for place in places]) if places else []
        for place, row in zip(places, rows, strict=True):
            if isinstance(row, list):
                row = _apply(self.function, row) if all(map(math.isfinite, row)) else not_finite()
            asks[place] = row
        return asks


class Classifier(_Judge):
    """Answers classify, and thereby decisions."""

    scores = False

    def classify_batch(self, inputs: list[Inputs]) -> list[Any]:
        return [row if isinstance(row, Exception) else self._named(row) for row in self.answers(inputs, "input")]

    def _named(self, row: Sequence[float]) -> list[dict[str, Any]]:
        return [{"label": label, "score": value} for label, value in zip(self.labels, row, strict=True)]


class CrossEncoder(_Judge):
    """Answers rerank and score."""

    scores = True

    def rerank_batch(self, inputs: list[Inputs]) -> list[Any]:
        return _first(self.answers(inputs, "query", "document"))

    def score_batch(self, inputs: list[Inputs]) -> list[Any]:
        return _first(self.answers(inputs, "text_1", "text_2"))


def _network(place: Path, labels: int) -> Any:
    from gateway_checkpoints.opening import open_model, open_tokenizer
    from gateway_checkpoints.passes import Network

    tokenizer = open_tokenizer(place)
    model = open_model(place, "AutoModelForSequenceClassification")
    if model.config.num_labels != labels:
        raise unloadable(place, f"transformers finds {model.config.num_labels} labels, and config.json has {labels}")
    network = Network(tokenizer, model, settings.length_of(place))
    print(
        f"{model.num_parameters():,} parameters in {model.dtype} on {model.device}, {labels} label{'s'[: labels > 1]}"
    )
    if not network.together:
        print("warning: the checkpoint has no token for padding, or one that changes its answers: texts share no pass")
    return network


def _apply(function: settings.Function, row: Sequence[float]) -> list[float]:
    """Return probabilities, or the numbers unchanged."""
    if function == "softmax":
        top = max(row)
        powers = [math.exp(value - top) for value in row]
        return [power / sum(powers) for power in powers]
    return [_sigmoid(value) for value in row] if function == "sigmoid" else list(row)


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def _first(rows: Sequence[Any]) -> list[Any]:
    return [row if isinstance(row, Exception) else row[0] for row in rows]
