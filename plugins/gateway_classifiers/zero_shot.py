"""`ZeroShot`: labels of the client's choice, by a model that says whether one text follows from another (NLI).

A label becomes a sentence, the hypothesis, and the text has to entail it. The numbers are those of the library's
pipeline `zero-shot-classification`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gateway_inference_api as api
from gateway_fields import unsupported
from gateway_rating_fields import cuts

from gateway import BadRequest, ConfigError

from .model import Classifier
from .settings import entailment_of

TEMPLATE = "This example is {}."
GAP = "{}"
MOST_LABELS = 255
MOST_PAIRS = 4096  # of all questions of a request
LONGEST = 2000  # characters of a label, and of a template
MOST_PREDICTED = 1 << 15  # texts of a request times their labels
MOST_READ = 1 << 22  # characters of the texts of a request, each of which is read again with every label


def _labels(value: Any) -> list[str]:
    found = [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value
    if not isinstance(found, list) or not 1 <= len(found) <= MOST_LABELS:
        raise ValueError(f"a list of 1 to {MOST_LABELS} texts, or texts with commas between them")
    if not all(isinstance(each, str) and 0 < len(each.strip()) <= LONGEST for each in found):
        raise ValueError(f"a list of texts of 1 to {LONGEST} characters")
    if len(set(found)) < len(found):
        raise ValueError("a list of different texts")
    return found


def _template(value: Any) -> str:
    """Read a template. Python's own `format` could be made to write any length, or attributes."""
    if not isinstance(value, str) or len(value) > LONGEST or value.count(GAP) != 1 or value.count("{") != 1:
        raise ValueError(f"a text with one {GAP}, where the label goes")
    return value


PARAMETERS: Mapping[str, api.Parameter] = {
    "candidate_labels": api.Parameter(
        None,
        _labels,
        {
            "type": ["array", "string"],
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": MOST_LABELS,
            "description": "the labels",
        },
    ),
    "hypothesis_template": api.Parameter(
        TEMPLATE,
        _template,
        {"type": "string", "default": TEMPLATE, "description": "the sentence about a label, which goes where {} is"},
    ),
    "multi_label": api.flag(False, "each label is decided on its own"),
    "truncate": api.TRUNCATE,
}
ANSWER = {
    "type": "array",
    "description": "the likeliest first",
    "items": {
        "type": "object",
        "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
        "required": ["label", "score"],
    },
}
EXAMPLE = {"inputs": "The train to Bern is late again.", "parameters": {"candidate_labels": ["travel", "cooking"]}}


class ZeroShot(Classifier):
    """Answers classify with `candidate_labels`, and without them as a classifier; decisions about anything; predict."""

    def load(self) -> None:
        super().load()
        self.entailment = entailment_of(self.labels)
        if self.entailment is None:
            listed = ", ".join(self.labels[:5])[:200]
            raise ConfigError(f"no label in config.json is entailment ({listed}): set options.task to classify")
        self.contradiction = -1 if self.entailment == 0 else 0  # as the library has it
        self.input_schema = api.request_schema({"type": "string"}, PARAMETERS, EXAMPLE)
        self.output_schema = api.answer_schema(ANSWER)

    def predict_batch(self, inputs: Sequence[Any]) -> list[Any]:
        return api.answer_all(inputs, self._read, self._predictions)

    def classify_batch(self, inputs: Sequence[Mapping[str, Any]]) -> list[Any]:
        fixed = [place for place, body in enumerate(inputs) if body.get("candidate_labels") is None]
        found = (
            dict(zip(fixed, super().classify_batch([inputs[place] for place in fixed]), strict=True)) if fixed else {}
        )
        chosen = [place for place in range(len(inputs)) if place not in found]
        asked = [api.caught(self._classified, inputs[place]) for place in chosen]
        jobs = [each for each in asked if not isinstance(each, Exception)]
        rows = iter(self._scores(jobs))
        for place, each in zip(chosen, asked, strict=True):
            found[place] = each if isinstance(each, Exception) else next(rows)
            if isinstance(found[place], list):
                found[place] = _named(each[1]["candidate_labels"], found[place])
        return [found[place] for place in range(len(inputs))]

    def decide_batch(self, inputs: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the probabilities for the questions of each request."""
        asked = [api.caught(self._questions, body) for body in inputs]
        pairs = [pair for each in asked if isinstance(each, tuple) for pair in each[0]]
        rows = iter(self._logits(pairs) if pairs else ())
        return [each if isinstance(each, Exception) else self._decided(*each, rows) for each in asked]

    # ── predict and classify ─────────────────────────────────────────────────────────────────────────────────────────

    def _read(self, body: Any) -> api.Asked:
        asked = api.read(body, PARAMETERS, api.text)
        if asked.parameters["candidate_labels"] is None:
            raise BadRequest(
                "candidate_labels is missing: the labels to choose from",
                param="candidate_labels",
                code="missing_required_parameter",
            )
        _weigh(asked.inputs, len(asked.parameters["candidate_labels"]), "inputs")
        return asked

    def _predictions(self, jobs: Sequence[api.Job]) -> list[Any]:
        found = []
        for (_, given), row in zip(jobs, self._scores(jobs), strict=True):
            if isinstance(row, list):
                row = sorted(_named(given["candidate_labels"], row), key=lambda each: -each["score"])
            found.append(row)
        return found

    def _classified(self, body: Mapping[str, Any]) -> api.Job:
        given = {name: value for name, value in body.items() if name in PARAMETERS and name != "truncate"}
        rest = {name: value for name, value in body.items() if name not in given}
        asked = self._read({"inputs": body["input"], "parameters": given})
        return asked.inputs[0], {**asked.parameters, "truncate": cuts(rest, self.cuts)}

    def _scores(self, jobs: Sequence[api.Job]) -> list[Any]:
        """Return the probabilities of the labels of each job, or the exception that is its result."""
        pairs = [
            (text, given["hypothesis_template"].replace(GAP, label), self._cuts(given))
            for text, given in jobs
            for label in given["candidate_labels"]
        ]
        rows = iter(self._logits(pairs) if pairs else ())
        found = []
        for _, given in jobs:
            mine = [next(rows) for _ in given["candidate_labels"]]
            error = next((each for each in mine if isinstance(each, Exception)), None)
            found.append(error or self._shares(mine, alone=given["multi_label"] or len(mine) == 1))
        return found

    def _cuts(self, given: Mapping[str, Any]) -> bool:
        return bool(self.cuts if given["truncate"] is None else given["truncate"])

    def _shares(self, rows: Sequence[Sequence[float]], *, alone: bool) -> list[float]:
        """Return probabilities from the numbers of each hypothesis: among each other, or of each `alone`."""
        if alone:
            return [_softmax([row[self.contradiction], row[self.entailment]])[1] for row in rows]
        return _softmax([row[self.entailment] for row in rows])

    def _logits(self, pairs: Sequence[tuple[str, str, bool]]) -> list[Any]:
        """Return the numbers for each text with a hypothesis. Only the text is cut, if it may be."""
        from gateway_checkpoints.passes import Ask, not_finite

        asks = [Ask(text, hypothesis, cut) for text, hypothesis, cut in pairs]
        long = {hypothesis: self._too_long(hypothesis) for hypothesis in {pair[1] for pair in pairs}}
        fit = [place for place, pair in enumerate(pairs) if not long[pair[1]]]
        rows = self.network.rows([asks[place] for place in fit], cut="only_first") if fit else []
        found: list[Any] = [
            BadRequest(
                "a label, with its template, is longer than what the model reads", code="context_length_exceeded"
            )
        ] * len(pairs)
        for place, row in zip(fit, self.network.outputs(rows), strict=True):
            found[place] = row if isinstance(row, Exception) or all(map(math.isfinite, row)) else not_finite()
        return found

    def _too_long(self, hypothesis: str) -> bool:
        if self.network.length is None:
            return False
        special = self.network.tokenizer.num_special_tokens_to_add(pair=True)
        return len(self.network.plain(hypothesis)) >= self.network.length - special

    # ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _questions(self, body: Mapping[str, Any]) -> tuple[list[tuple[str, str, bool]], list[tuple[str, int]]]:
        """Return the pairs of all questions, and for each question how they become its answer, and their number."""
        text = _text(body["input"], "input")
        pairs, plans = [], []
        for place, question in enumerate(body["questions"]):
            kind, hypotheses = _hypotheses(question, f"questions[{place}]")
            plans.append((kind, len(hypotheses)))
            pairs += [(text, hypothesis, self.cuts) for hypothesis in hypotheses]
        if len(pairs) > MOST_PAIRS:
            raise BadRequest(
                f"the questions have {len(pairs)} options, and {MOST_PAIRS} are the most", param="questions"
            )
        _weigh([text], len(pairs), "input")
        return pairs, plans

    def _decided(self, pairs: Sequence[Any], plans: Sequence[tuple[str, int]], rows: Any) -> Any:
        mine = [next(rows) for _ in pairs]
        if error := next((each for each in mine if isinstance(each, Exception)), None):
            return error
        answers: list[Any] = []
        for kind, count in plans:
            of, mine = mine[:count], mine[count:]
            shares = self._shares(of, alone=kind != "among")
            answers.append(shares if kind == "among" else shares[0] if kind == "alone" else _both(kind, shares[0]))
        return answers


def _weigh(texts: Sequence[str], labels: int, param: str) -> None:
    """Refuse texts that are small once, and not with each of their labels, before any is read."""
    size = sum(map(len, texts))
    if size * labels > MOST_READ or len(texts) * labels > MOST_PREDICTED:
        what = f"{size:,} characters are read with each of {labels:,} labels"
        raise BadRequest(
            f"{what}: send shorter texts, fewer labels or several requests", param=param, code="context_length_exceeded"
        )


def _hypotheses(question: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
    """Return the hypotheses of a question: `among` each other, or one `alone`, or `true-first` or `false-first`."""
    said = _text(question["instructions"], f"{where}.instructions")
    if question["type"] == "predicate":
        return "alone", [said]
    options = question["choices"] if question["type"] == "choice" else question["levels"]
    values = [option["value" if question["type"] == "choice" else "label"] for option in options]
    if all(isinstance(value, bool) for value in values):
        return "true-first" if values[0] else "false-first", [said]
    if any(isinstance(value, bool) for value in values):
        raise unsupported("this model chooses among texts, or between true and false", f"{where}.choices")
    template = said if said.count(GAP) == 1 and said.count("{") == 1 else TEMPLATE
    names = [option.get("description") or value for option, value in zip(options, values, strict=True)]
    return "among", [template.replace(GAP, name) for name in names]


def _both(kind: str, share: float) -> list[float]:
    return [share, 1 - share] if kind == "true-first" else [1 - share, share]


def _text(given: Any, where: str) -> str:
    """Return the text of an input, of messages, or of content parts."""
    if isinstance(given, str):
        return given
    texts = []
    for part in given:
        content = part.get("content", part.get("output", part.get("text")))
        texts.append(content if isinstance(content, str) else _text(content, where) if content else None)
    if not texts or any(text is None for text in texts):
        raise unsupported("this model reads texts only", where)
    return "\n".join(filter(None, texts))


def _named(labels: Sequence[str], scores: Sequence[float]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]


def _softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]
