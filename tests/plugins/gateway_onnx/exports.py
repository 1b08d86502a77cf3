"""Exports of transformers of random weights, as optimum makes them: model.onnx beside the files of the checkpoint."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

TAKES = ("input_ids", "attention_mask", "token_type_ids")


class Exported(torch.nn.Module):
    def __init__(self, network: Any, output: str) -> None:
        super().__init__()
        self.network, self.output = network, output

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        found = self.network(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return found[self.output]


class Whole(torch.nn.Module):
    """A model of sentence-transformers with all its modules."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        features = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return self.model(features)["sentence_embedding"]


def export(network: Any, file: Path, output: str, shape: tuple[int, int] | None = None) -> None:
    """Write the graph of a network; with a `shape`, one without dynamic axes."""
    module = Whole(network) if output == "sentence_embedding" else Exported(network, output)
    file.parent.mkdir(parents=True, exist_ok=True)
    example = torch.ones(shape or (2, 7), dtype=torch.long)
    dynamic = {name: {0: "batch", 1: "sequence"} for name in TAKES} | {output: {0: "batch"}}
    if output == "last_hidden_state":
        dynamic[output][1] = "sequence"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing
        torch.onnx.export(
            module.eval(),
            (example, example, example),
            str(file),
            input_names=list(TAKES),
            output_names=[output],
            dynamic_axes=None if shape else dynamic,
            opset_version=17,
            dynamo=False,
        )


def copied(folder: Path, place: Path) -> Path:
    """A copy of a checkpoint without its weights."""
    return Path(shutil.copytree(folder, place, ignore=shutil.ignore_patterns("*.safetensors", "*.bin")))
