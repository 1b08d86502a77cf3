"""The tasks that are served: by which class, from which files, and how many inputs share a batch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    name: str  # as the library calls its pipeline
    target: str
    opens: str  # the class of transformers that opens its network
    reads: str = "texts"  # or images, or sounds
    batch: int = 32  # requests, unless the directory or the operator says otherwise
    needs: tuple[str, ...] = ()  # modules besides those of the format
    labels: bool = False  # config.json has the names of what the network computes
    may_lack: str = ""  # tensors that the task does not use


TASKS = (
    Task("token-classification", "gateway_pipelines.entities:Entities", "AutoModelForTokenClassification", labels=True),
    Task("fill-mask", "gateway_pipelines.gaps:Gaps", "AutoModelForMaskedLM"),
    Task("question-answering", "gateway_pipelines.answers:Answers", "AutoModelForQuestionAnswering"),
    Task("feature-extraction", "gateway_pipelines.features:Features", "AutoModel", batch=8, may_lack=r"(^|\.)pooler\."),
    Task("sparse-encoding", "gateway_pipelines.sparse:Sparse", "AutoModelForMaskedLM"),
    Task(
        "image-classification",
        "gateway_pipelines.images:Images",
        "AutoModelForImageClassification",
        reads="images",
        batch=16,
        needs=("PIL",),
        labels=True,
    ),
    Task(
        "audio-classification",
        "gateway_pipelines.sounds:Sounds",
        "AutoModelForAudioClassification",
        reads="sounds",
        batch=8,
        needs=("soundfile",),
        labels=True,
    ),
)
BY_NAME = {task.name: task for task in TASKS}


def of_target(target: str) -> Task | None:
    return next((task for task in TASKS if task.target == target), None)
