"""`Pipeline` and `TextPipeline`: what is common to the classes of the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gateway_inference_api as api
from gateway_checkpoints import named

from gateway import ConfigError, check_ordinary, weights_path

from . import loadable
from .tasks import BY_NAME, Task


class Pipeline:
    """Answers predict. A subclass defines the rest; all its methods get the inputs of several api."""

    name: ClassVar[str]
    parameters: ClassVar[Mapping[str, api.Parameter]]
    inputs: ClassVar[int] = api.MOST  # of one request
    input_item: ClassVar[Mapping[str, Any]] = {"type": "string"}
    answer_item: ClassVar[Mapping[str, Any]]
    example: ClassVar[Mapping[str, Any]]

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.options: Mapping[str, Any] = config.get("options") or {}
        self.input_schema: dict[str, Any] | None = None
        self.output_schema: dict[str, Any] | None = None
        self.capabilities: dict[str, Any] = {}

    # ── what a task defines ──────────────────────────────────────────────────────────────────────────────────────────

    def open(self, place: Path, task: Task) -> None:
        """Load the checkpoint in a folder that was checked."""
        raise NotImplementedError

    def read_item(self, value: Any) -> Any:
        """Return one input of a request. Raises `BadRequest`."""
        return api.text(value)

    def compute(self, jobs: Sequence[tuple[Any, Mapping[str, Any]]]) -> list[Any]:
        """Return the answer to each input with its parameters, or the exception that is its result."""
        raise NotImplementedError

    # ── what they share ──────────────────────────────────────────────────────────────────────────────────────────────

    def load(self) -> None:
        task = BY_NAME[self.name]
        place = weights_path(self.config, Path.cwd())
        check_ordinary(place)
        loadable.say_unloadable(place, task)
        named.say_names(place, beside=Path.cwd())
        self.open(place, task)
        self.input_schema = api.request_schema(self.input_item, self.parameters, self.example, self.inputs)
        self.output_schema = api.answer_schema(self.answer_item)

    def predict_batch(self, inputs: Sequence[Any]) -> list[Any]:
        """Return the answer to each request, or the exception that is its result."""
        return api.answer_all(inputs, self._read, self.compute)

    def _read(self, body: Any) -> api.Asked:
        return api.read(body, self.parameters, self.read_item, self.inputs)


class TextPipeline(Pipeline):
    """A task that reads texts."""

    length: int | None = None  # tokens of a text, if the folder says so besides the tokenizer and the network

    def open(self, place: Path, task: Task) -> None:
        from gateway_checkpoints.opening import open_model, open_tokenizer
        from gateway_checkpoints.passes import Network

        cuts = self.options.get("truncate", False)
        if not isinstance(cuts, bool):
            raise ConfigError(f"options.truncate must be true or false, not {cuts!r}")
        self.cuts = cuts
        self.tokenizer = open_tokenizer(place)
        self.model = open_model(place, task.opens, may_lack=task.may_lack)
        self.prepare(place)
        self.network = Network(self.tokenizer, self.model, self.length, self.take, self.most())
        self.capabilities = {"max_model_len": self.network.length}
        print(f"{self.model.num_parameters():,} parameters in {self.model.dtype} on {self.model.device}, {self.name}")
        if not self.network.together:
            print(
                "warning: the checkpoint has no token for padding, or one that changes its answers: texts share no pass"
            )

    def prepare(self, place: Path) -> None:
        """Check what this task needs of `tokenizer` and `model`. Raises `ConfigError`."""

    def take(self, outputs: Any, place: int, own: slice, row: Mapping[str, Any]) -> Any:
        """Keep what the task needs of the outputs for one text, whose tokens are at `own`."""
        return outputs.logits[place, own].float().cpu()

    def most(self) -> int | None:
        """Return the most tokens of a pass, None for as many as are fast."""
        return None

    def asks(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any]:
        from gateway_checkpoints.passes import Ask

        return [Ask(text, None, self.cuts if given["truncate"] is None else given["truncate"]) for text, given in jobs]
