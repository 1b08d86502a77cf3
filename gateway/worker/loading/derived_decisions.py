"""Answer questions about a text from the probabilities that a class's own `classify` gives for its labels.

`label_questions` relates questions to labels. The labels are only known when a text is classified, so a question that
does not fit is refused then, with the labels.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import InvalidOutput
from ...wording import a_type
from ..bodies import truss
from .descriptor import Descriptor, Method, kind_of
from .label_questions import answer_questions, question_text


def decisions(model: Any, descriptor: Descriptor) -> Iterator[Method]:
    """Yield the method `decide`: that which `load` has set, or of a class with a `classify` that takes texts."""
    own = getattr(model, "decide", None)
    if callable(own) and "decide" not in descriptor.methods:  # only the loaded model knows whether it has probabilities
        yield Method("decide", own, kind_of(own), "inputs")
        return
    classify = descriptor.methods.get("classify")
    if classify is None or "inputs" not in classify.takes:
        return

    def decide(inputs: Any, request: Any = None) -> Any:
        """Return the answers, or an awaitable of them."""
        fields: Any = {"input": [question_text(inputs["input"])]}
        if "model" in inputs:
            fields["model"] = inputs["model"]
        if classify.input_type is not None:
            fields = truss.validate(fields, classify.input_type)
        value = classify.function(*classify.arguments(fields, request))
        if inspect.isawaitable(value):
            return _later(value, inputs["questions"])
        return _answers(value, inputs["questions"])

    yield Method("decide", decide, "sync", classify.takes, derived=True, looks=classify.looks)


async def _later(value: Any, questions: list[dict[str, Any]]) -> dict[str, Any]:
    return _answers(await value, questions)


def _answers(value: Any, questions: list[dict[str, Any]]) -> dict[str, Any]:
    usage = value.get("usage") if isinstance(value, Mapping) else None
    return {"answers": answer_questions(questions, _by_label(value)), "usage": usage}


def _by_label(value: Any) -> dict[str, float]:
    """Return the probability of each label from what `classify` returned for one text.

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
        return {str(name): float(number) for name, number in pairs}
    except (TypeError, ValueError) as error:
        raise InvalidOutput(f"classify returned a probability that is no number: {error}") from None
