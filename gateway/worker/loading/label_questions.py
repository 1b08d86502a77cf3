"""Answer questions about an input from the probabilities of a classifier's labels.

    choice      the options are labels of the model, or true and false
    score       the levels are labels of the model
    predicate   a model of two labels: the probability of the one that means yes; or the instructions are a label

A question that does not fit is refused, with the labels. Plugins use this for models whose `decide` is their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadRequest
from ...wording import few

YES, NO = ("true", "yes", "1", "positive"), ("false", "no", "0", "negative")
SHOWN = 10  # labels in an error
ROUNDING = 1e-3  # by which a sum of probabilities may exceed 1


def question_text(given: str | Sequence[Mapping[str, Any]]) -> str:
    """Return the input of a request for decisions as one text.

    Raises:
        BadRequest: it holds something else, such as an image.
    """
    if isinstance(given, str):
        return given
    texts = []
    for index, item in enumerate(given):
        content = item.get("content", item.get("output", item.get("input", item.get("arguments"))))
        for part in [content] if isinstance(content, str) else content or ():
            text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
            if not isinstance(text, str):
                raise BadRequest("this model classifies texts only", param=f"input[{index}]", code="unsupported_value")
            texts.append(text)
    return "\n".join(texts)


def answer_questions(questions: Sequence[Mapping[str, Any]], probabilities: Mapping[str, float]) -> list[Any]:
    """Return what `decide` returns for each question, from the probability of each label.

    Labels and options are compared in any case, unless labels differ in case only. A question is refused (None) if none
    of its options is possible.

    Raises:
        BadRequest: an option is no label, or the probabilities of several add up to more than 1.
    """
    labels = dict(probabilities)
    for name, number in probabilities.items():
        labels.setdefault(name.strip().lower(), number)
    return [
        _answer(question, f"questions[{index}]", labels, list(probabilities))
        for index, question in enumerate(questions)
    ]


def _answer(question: Mapping[str, Any], where: str, labels: Mapping[str, float], names: list[str]) -> Any:
    if question["type"] == "predicate":
        instructions = question["instructions"]
        if isinstance(instructions, str) and (found := _named(instructions, labels)) is not None:
            return found
        if len(names) == 2 and (yes := _first(YES, labels)) is not None:
            return yes
        raise _no_label(instructions, f"{where}.instructions", names)
    field, key = ("choices", "value") if question["type"] == "choice" else ("levels", "label")
    numbers: list[float] = []
    for index, option in enumerate(question[field]):
        value = option[key]
        number = _first(YES if value else NO, labels) if isinstance(value, bool) else _named(value, labels)
        if number is None:
            raise _no_label(value, f"{where}.{field}[{index}].{key}", names)
        numbers.append(number)
    if sum(numbers) > 1 + ROUNDING:
        what = "several labels of this model may be true at once: ask for each with a predicate"
        raise BadRequest(what, param=f"{where}.{field}", code="unsupported_value")
    return numbers if sum(numbers) > 0 else None


def _named(value: str, labels: Mapping[str, float]) -> float | None:
    return labels[value] if value in labels else labels.get(value.strip().lower())


def _first(names: tuple[str, ...], labels: Mapping[str, float]) -> float | None:
    return next((labels[name] for name in names if name in labels), None)


def _no_label(value: Any, where: str, names: list[str]) -> BadRequest:
    shown = repr(value[:64]) if isinstance(value, str) else value if isinstance(value, bool) else "that"
    told = f"this model knows only its labels, and {shown} is none of them (have: {few(names, SHOWN)})"
    return BadRequest(told, param=where, code="unsupported_value")
