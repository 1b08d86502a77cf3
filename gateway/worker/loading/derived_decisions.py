"""Answer questions about a text from the probabilities that a class's own `classify` gives for its labels.

    choice      the options are labels of the model, or true and false
    score       the levels are labels of the model
    predicate   a model of two labels: the probability of the one that means yes; or the instructions are a label

The labels are only known when a text is classified, so a question that does not fit is refused then, with the labels.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import BadRequest, InvalidOutput
from ...wording import a_type, few
from ..bodies import truss
from .descriptor import Descriptor, Method

YES, NO = ("true", "yes", "1", "positive"), ("false", "no", "0", "negative")
SHOWN = 10  # labels in an error


def decisions(descriptor: Descriptor) -> Iterator[Method]:
    """Yield the method `decide`, if the class has a `classify` that takes texts."""
    classify = descriptor.methods.get("classify")
    if classify is None or "inputs" not in classify.takes:
        return

    def decide(inputs: Any, request: Any = None) -> Any:
        """Return the answers, or an awaitable of them."""
        fields: Any = {"input": [text_of(inputs["input"])]}
        if "model" in inputs:
            fields["model"] = inputs["model"]
        if classify.input_type is not None:
            fields = truss.validate(fields, classify.input_type)
        value = classify.function(*classify.arguments(fields, request))
        if inspect.isawaitable(value):
            return _later(value, inputs["questions"])
        return _answers(value, inputs["questions"])

    yield Method("decide", decide, "sync", classify.takes, derived=True, looks=classify.looks)


def text_of(given: Any) -> str:
    """Return the input as one text.

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


async def _later(value: Any, questions: list[dict[str, Any]]) -> dict[str, Any]:
    return _answers(await value, questions)


def _answers(value: Any, questions: list[dict[str, Any]]) -> dict[str, Any]:
    usage = value.get("usage") if isinstance(value, Mapping) else None
    labels = _by_label(value)
    answers = [_answer(question, f"questions[{index}]", labels) for index, question in enumerate(questions)]
    return {"answers": answers, "usage": usage}


def _answer(question: Mapping[str, Any], where: str, labels: Mapping[str, float]) -> Any:
    if question["type"] == "choice":
        values = [option["value"] for option in question["choices"]]
        return [_probability(value, f"{where}.choices[{i}].value", labels) for i, value in enumerate(values)]
    if question["type"] == "score":
        values = [level["label"] for level in question["levels"]]
        return [_probability(value, f"{where}.levels[{i}].label", labels) for i, value in enumerate(values)]
    instructions = question["instructions"]
    if isinstance(instructions, str) and (found := labels.get(instructions.strip().lower())) is not None:
        return found
    if len(labels) == 2 and (yes := _first(YES, labels)) is not None:
        return yes
    raise _no_label(instructions, f"{where}.instructions", labels)


def _probability(value: Any, where: str, labels: Mapping[str, float]) -> float:
    found = _first(YES if value else NO, labels) if isinstance(value, bool) else labels.get(value.strip().lower())
    if found is None:
        raise _no_label(value, where, labels)
    return found


def _first(names: tuple[str, ...], labels: Mapping[str, float]) -> float | None:
    return next((labels[name] for name in names if name in labels), None)


def _no_label(value: Any, where: str, labels: Mapping[str, float]) -> BadRequest:
    shown = repr(value[:64]) if isinstance(value, str) else value if isinstance(value, bool) else "that"
    told = f"this model knows only its labels, and {shown} is none of them (have: {few(list(labels), SHOWN)})"
    return BadRequest(told, param=where, code="unsupported_value")


def _by_label(value: Any) -> dict[str, float]:
    """Return the probability of each label, in lower case, from what `classify` returned for one text.

    Raises:
        InvalidOutput: it has no labels.
    """
    if isinstance(value, Mapping) and "data" in value:
        value = value["data"]
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping) and not {"label", "probs", "score"} & value.keys():
        pairs = [(name, number) for name, number in value.items() if name != "usage"]
    elif isinstance(value, list | tuple) and all(isinstance(each, Mapping) and "label" in each for each in value):
        pairs = [(each["label"], each.get("score")) for each in value]
    else:
        raise InvalidOutput(f"classify returned {a_type(value)} without a label for each probability")
    try:
        return {str(name).strip().lower(): float(number) for name, number in pairs}
    except (TypeError, ValueError) as error:
        raise InvalidOutput(f"classify returned a probability that is no number: {error}") from None
