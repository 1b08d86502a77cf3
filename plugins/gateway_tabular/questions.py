"""Decisions of a classifier of tables: one row as a text, and its probabilities as answers to questions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import BadRequest, answer_questions


def row_of(text: str) -> Any:
    """Return the row or record in a text of JSON; None if the text is none of these, so that it may be CSV.

    Raises:
        BadRequest: it begins like JSON, but is not.
    """
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"input is not the JSON that it begins like: {error}", param="input") from error


def answers(
    questions: Sequence[Mapping[str, Any]], labels: Sequence[str], prediction: Any, chances: Sequence[float]
) -> list[Any]:
    """Return an answer to each question about a row, from the probability of each label.

    Some libraries let the probabilities of labels that exclude each other not add up to 1: these are scaled.

    Raises:
        BadRequest: a question does not fit the labels.
    """
    if isinstance(prediction, list):  # each label is true or not, whatever the others are
        for index, question in enumerate(questions):
            if question["type"] != "predicate":
                what = "several labels of this model may be true at once: ask for each with a predicate"
                raise BadRequest(what, param=f"questions[{index}].type", code="unsupported_value")
    elif (total := sum(chances)) > 0:
        chances = [chance / total for chance in chances]
    return answer_questions(questions, dict(zip(labels, chances, strict=True)))
