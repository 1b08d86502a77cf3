"""lm-eval scores a model behind the gateway as it scores the same weights itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", OMP_NUM_THREADS="1")  # all that is asked is here

import lm_eval
import pytest
import yaml
from lm_eval.tasks import TaskManager

from .asking import ANSWER, QUESTION, TINY

FOLDER = Path(__file__).parents[2] / "models" / TINY
COUNTRIES = {"France": "Paris", "Iceland": "Reykjavik", "Latvia": "Riga", "Australia": "Canberra"}
CAPITALS = [  # after the right one the model ends its answer, which is the one token that is generated
    {"text": f"The capital of {country} is", "choices": [f" {city}." for city in COUNTRIES.values()], "gold": at}
    for at, country in enumerate(COUNTRIES)
]
CONTINUED = [{"text": "The capital of France is", "answer": "Paris."}, {"text": "1 2 3", "answer": "4 5 6 7 8 9 10"}]
ASKED = [{"text": QUESTION, "answer": ANSWER}, {"text": "Count to 5.", "answer": "1 2 3 4 5"}]
UNTIL = {"until": ["\n\n"], "max_gen_toks": 40, "do_sample": False, "temperature": 0}
EXACT = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
SAID = {
    "output_type": "generate_until",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": UNTIL,
    "metric_list": EXACT,
}
TASKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "capitals": (
        CAPITALS,
        {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold", "target_delimiter": ""},
    ),
    "continued": (CONTINUED, SAID),
    "asked": (ASKED, SAID),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> TaskManager:
    folder = tmp_path_factory.mktemp("tasks")
    for name, (rows, settings) in TASKS.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}}
        made = {"task": name, **data, "test_split": "test", "doc_to_text": "{{text}}", "num_fewshot": 0, **settings}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(made))
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture(scope="module", autouse=True)
def signed_in(key: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", key)
        yield


def judged(tasks: TaskManager, name: str, model: str, arguments: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    """What one back end makes of a task: its score, and the answer to each request."""
    made = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=[name],
        task_manager=tasks,
        log_samples=True,
        bootstrap_iters=0,
        **options,
    )
    samples = sorted(made["samples"][name], key=lambda sample: sample["doc_id"])
    scores = {metric: value for metric, value in made["results"][name].items() if isinstance(value, float)}
    return scores, [answer for sample in samples for answer in sample["filtered_resps"]]


def directly(tasks: TaskManager, name: str, **options: Any) -> tuple[Any, Any]:
    arguments = {"pretrained": str(FOLDER), "dtype": "float32", "device": "cpu"}
    return judged(tasks, name, "hf", arguments, **options)


def behind(url: str, **more: Any) -> dict[str, Any]:
    local = {"tokenizer": str(FOLDER), "tokenizer_backend": "huggingface", "max_length": 1024}
    return {"model": TINY, "base_url": f"{url}/v1/completions", **local, **more}


@pytest.mark.parametrize("more", [{}, {"tokenized_requests": False}, {"batch_size": 3}, {"num_concurrent": 4}])
def test_likelihoods_are_those_of_the_weights(url: str, tasks: TaskManager, more: dict[str, Any]) -> None:
    wanted, answers = directly(tasks, "capitals")
    found, others = judged(tasks, "capitals", "local-completions", behind(url, **more))
    assert found == wanted and found["acc,none"] == 1
    for (likelihood, is_greedy), (other, same) in zip(answers, others, strict=True):
        assert other == pytest.approx(likelihood, abs=1e-3) and same == is_greedy


def test_a_prompt_is_continued_as_by_the_weights(url: str, tasks: TaskManager) -> None:
    wanted = directly(tasks, "continued")
    assert judged(tasks, "continued", "local-completions", behind(url)) == wanted
    assert [answer.strip() for answer in wanted[1]] == [row["answer"] for row in CONTINUED]


def test_a_chat_is_answered_as_by_the_weights(url: str, tasks: TaskManager) -> None:
    wanted = directly(tasks, "asked", apply_chat_template=True)
    arguments = {"model": TINY, "base_url": f"{url}/v1/chat/completions"}
    found = judged(tasks, "asked", "local-chat-completions", arguments, apply_chat_template=True)
    assert found == wanted and found[0]["exact_match,none"] == 1
