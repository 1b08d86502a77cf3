"""`Answers`: the part of a text that answers a question (extractive question answering).

transformers 5 has no pipeline for it any more. The numbers are those of the pipeline of transformers 4: a span has the
product of the probabilities of its first and its last token, which are a softmax over the tokens of the context and
the first token, which stands for no answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gateway_checkpoints import unloadable
from gateway_fields import unsupported
from gateway_inference_api import Parameter, caught, flag, whole

from gateway import BadRequest

from .pipeline import TextPipeline

MOST_PARTS = 256  # of a context
LENGTH, STRIDE = 384, 128  # tokens of a part, and those that neighbours have in common, unless the request says it
TOKENS = {"return_offsets_mapping": True}
Pair = tuple[str, str]


class Answers(TextPipeline):
    name = "question-answering"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "top_k": whole(1, 1, 100, "how many answers; more than one are a list"),
        "max_answer_len": whole(15, 1, 1000, "tokens of an answer"),
        "max_seq_len": whole(
            None, 8, 1_000_000, f"tokens of the question and a part of the context; {LENGTH} by default"
        ),
        "doc_stride": whole(None, 0, 1_000_000, f"tokens that parts have in common; {STRIDE} by default"),
        "handle_impossible_answer": flag(False, "an answer may be empty"),
        "align_to_words": flag(True, "answers begin and end with whole words"),
    }
    input_item: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["question", "context"],
        "properties": {"question": {"type": "string"}, "context": {"type": "string"}},
        "additionalProperties": False,
    }
    answer_item: ClassVar[Mapping[str, Any]] = {
        "type": ["object", "array"],
        "properties": {
            "score": {"type": "number"},
            "start": {"type": "integer", "description": "the first character in the context, counted from 0"},
            "end": {"type": "integer", "description": "the character after the last one"},
            "answer": {"type": "string"},
        },
    }
    example: ClassVar[Mapping[str, Any]] = {
        "inputs": {"question": "Where does Ada live?", "context": "My name is Ada and I live in London."}
    }

    def prepare(self, place: Path) -> None:
        if not self.tokenizer.is_fast or self.tokenizer.padding_side != "right":
            what = "its tokenizer does not know where in a text its tokens are, or puts padding before them"
            raise unloadable(place, f"{what}: save the tokenizer again with a class of the library that is fast")

    def read_item(self, value: Any) -> Pair:
        if not isinstance(value, Mapping):
            raise BadRequest("the input must be an object with question and context", code="invalid_type")
        if unknown := sorted(value.keys() - {"question", "context"}):
            raise BadRequest(f"the input has question and context only, and not {unknown[0][:64]}")
        for name in ("question", "context"):
            if not isinstance(text := value.get(name), str) or not text.strip():
                raise BadRequest(f"{name} must be a text that is not empty", param=name)
        return value["question"], value["context"]

    def take(self, outputs: Any, place: int, own: slice, row: Mapping[str, Any]) -> Any:
        import torch

        return torch.stack([outputs.start_logits[place, own], outputs.end_logits[place, own]]).float().cpu()

    def compute(self, jobs: Sequence[tuple[Pair, Mapping[str, Any]]]) -> list[Any]:
        """Return the best answer to each question, or a list of the best ones."""
        parts = [caught(self._parts, *pair, given) for pair, given in jobs]
        flat = [row for each in parts if isinstance(each, list) for row in each]
        logits = iter(self.network.outputs(flat))
        found = []
        for (pair, given), each in zip(jobs, parts, strict=True):
            if not isinstance(each, Exception):
                each = caught(self._answer, pair[1], [(row, next(logits)) for row in each], given)
            found.append(each)
        return found

    def _parts(self, question: str, context: str, given: Mapping[str, Any]) -> list[Any]:
        """Return the tokens of the question with each part of the context."""
        most = self.network.length
        length = given["max_seq_len"] or min(LENGTH, most or LENGTH)
        if most is not None and length > most:
            raise BadRequest(
                f"max_seq_len must be at most {most}, the tokens that the model reads", param="max_seq_len"
            )
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        room = length - special - len(self.network.plain(question))
        if room < 2:
            raise BadRequest(
                f"This model's maximum context length is {length} tokens. However, the question alone has "
                f"{length - special - room}. Send a shorter question.",
                param="question",
                code="context_length_exceeded",
            )
        stride = given["doc_stride"]
        if stride is None:
            stride = min(STRIDE, room // 2)
        elif stride >= room:
            raise BadRequest(f"doc_stride must be below {room}, the tokens beside the question", param="doc_stride")
        rows = self.network.parts(question, context, length=length, stride=stride, **TOKENS)
        if len(rows) > MOST_PARTS:
            raise BadRequest(
                f"the context is divided into {len(rows)} parts, and {MOST_PARTS} are the most: send a shorter one",
                param="context",
                code="context_length_exceeded",
            )
        return rows

    def _answer(self, context: str, parts: Sequence[tuple[Any, Any]], given: Mapping[str, Any]) -> Any:
        from gateway_checkpoints.passes import not_finite

        best: dict[tuple[int, int], float] = {}
        none = 1.0
        for row, logits in parts:
            if not bool(logits.isfinite().all()):
                raise not_finite()
            allowed = [sequence == 1 for sequence in row["sequences"]]
            empty = row["input_ids"].index(cls) if (cls := self.tokenizer.cls_token_id) in row["input_ids"] else None
            starts, ends = (_chances(each, allowed, empty) for each in logits)
            if empty is not None:
                none = min(none, starts[empty] * ends[empty])
            elif given["handle_impossible_answer"]:
                raise unsupported("this model has no token that stands for no answer", "handle_impossible_answer")
            for chance, first, last in _spans(starts, ends, allowed, given["max_answer_len"], given["top_k"]):
                place = _characters(row, first, last, given["align_to_words"])
                best[place] = max(chance, best.get(place, 0.0))
        answers = [
            {"score": chance, "start": start, "end": end, "answer": context[start:end]}
            for (start, end), chance in best.items()
        ]
        if given["handle_impossible_answer"]:
            answers.append({"score": none, "start": 0, "end": 0, "answer": ""})
        answers.sort(key=lambda each: -each["score"])
        if not answers:
            raise BadRequest("the context has no tokens", param="context")
        return answers[0] if given["top_k"] == 1 else answers[: given["top_k"]]


def _chances(logits: Any, allowed: Sequence[bool], empty: int | None) -> list[float]:
    """Return the probability of each token: 0 for those outside the context, but not for the one that means none."""
    powers: list[float] = [0.0] * len(allowed)
    places = [place for place, is_allowed in enumerate(allowed) if is_allowed or place == empty]
    values = logits.tolist()
    top = max((values[place] for place in places), default=0.0)
    for place in places:
        powers[place] = math.exp(values[place] - top)
    total = sum(powers) or 1.0
    return [power / total for power in powers]


def _spans(
    starts: Sequence[float], ends: Sequence[float], allowed: Sequence[bool], most: int, count: int
) -> Iterator[tuple[float, int, int]]:
    """Yield the best spans of at most `most` tokens of the context: probability, first and last token."""
    import torch

    first = torch.tensor(starts, dtype=torch.float64) * torch.tensor(allowed)
    last = torch.tensor(ends, dtype=torch.float64) * torch.tensor(allowed)
    size = len(first)
    # a row for each length, a column for each first token
    table = torch.stack([first * torch.roll(last, -ahead) for ahead in range(min(most, size))])
    for ahead in range(1, len(table)):
        table[ahead, size - ahead :] = 0  # would end behind the last token
    values, places = table.flatten().topk(min(count, table.numel()))
    for value, place in zip(values.tolist(), places.tolist(), strict=True):
        if value > 0:
            yield value, place % size, place % size + place // size


def _characters(row: Mapping[str, Any], first: int, last: int, whole: bool) -> tuple[int, int]:
    """Return where a span of tokens, or of their whole words, begins and ends in the context."""
    offsets, words = row["offset_mapping"], row["words"]
    if not whole:
        return offsets[first][0], offsets[last][1]
    while first and row["sequences"][first - 1] == 1 and words[first - 1] == words[first]:
        first -= 1
    while last + 1 < len(words) and row["sequences"][last + 1] == 1 and words[last + 1] == words[last]:
        last += 1
    return offsets[first][0], offsets[last][1]
