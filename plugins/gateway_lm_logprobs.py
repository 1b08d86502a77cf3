"""How likely each token was, in OpenAI's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway_lm_answer import Answer
from gateway_lm_engine import Record
from gateway_lm_sampling import Score
from gateway_lm_tools import Event
from gateway_lm_vocabulary import vocabulary


class Logprobs:
    """Those of an answer's content; they go out with the text that their tokens became."""

    def __init__(self, tokenizer: Any, record: Record) -> None:
        self._bytes, self._record = vocabulary(tokenizer).bytes, record
        self._kept: list[dict[str, Any]] = []

    def keep(self, at: int) -> None:
        """The answer's token number `at` is content."""
        self._kept.append(self._entry(self._record.answer[at]))

    def beside(self, text: str, answer: Answer) -> Event:
        """The text with the logprobs of all tokens that are in it; not yet while a part of them is held back."""
        if answer.holds_back or not self._kept:
            return text
        kept, self._kept = self._kept, []
        return {"content": text, "logprobs": {"content": kept}}

    def of_prompt(self, prompt: Sequence[int]) -> dict[str, Any]:
        """The first token has none: nothing comes before it."""
        first = {**self._token(prompt[0]), "logprob": None, "top_logprobs": []}
        return {"content": [first, *(self._entry(score) for score in self._record.prompt)]}

    def _entry(self, score: Score) -> dict[str, Any]:
        top = [{**self._token(token), "logprob": logprob} for token, logprob in score.top]
        return {**self._token(score.token), "logprob": score.logprob, "top_logprobs": top}

    def _token(self, token: int) -> dict[str, Any]:
        written = self._bytes(token)
        return {"token": written.decode("utf-8", "replace"), "bytes": list(written)}
