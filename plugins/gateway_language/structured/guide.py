"""Say which tokens may come next in an answer that obeys a grammar. The only module that imports llguidance.

The text of every token is the one that answers show, so the tags of thoughts and calls are text unless they are special
tokens.
"""

from __future__ import annotations

import importlib.util
import threading
from typing import Any

from ..vocabulary import vocabulary
from .schemas import KEPT, Schema, not_enforced

MOST_CHECKED = 300  # subschemas that are compiled to find the one that is refused


class Words:
    """What llguidance asks of a tokenizer. The token after the last one stands for the end of the answer."""

    bos_token_id = None

    def __init__(self, tokenizer: Any, count: int) -> None:
        known = vocabulary(tokenizer)
        self.tokens = [known.bytes(token) for token in range(count)] + [b"<end>"]
        self.eos_token_id = count
        self.special_token_ids = [token for token in range(count) if known.skips(token)] + [count]
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        text = text.decode(errors="replace") if isinstance(text, bytes) else text
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


class Guide:
    """The state of one answer. `grammar` is the same for llama.cpp, "" if it has no way to say it.

    `is_over`: nothing may follow.

    After `failure` the answer cannot go on: llguidance has reached a limit.
    """

    def __init__(self, matcher: Any, grammar: str, count: int) -> None:
        self.grammar = grammar
        self.failure = ""
        self.is_over = False
        self.taken = 0  # tokens
        self._matcher, self.count = matcher, count

    @property
    def may_end(self) -> bool:
        return bool(self._matcher.is_accepting())

    def mask(self) -> bytes:
        """Return a bit for each token, the lowest first: whether it may come next. End tokens are not among them."""
        bits = bytearray(self._matcher.compute_bitmask())
        if self._matcher.is_error():
            self._fail()
            return bytes(len(bits))
        bits[self.count // 8] &= ~(1 << self.count % 8) & 0xFF
        return bytes(bits)

    def allowed(self) -> list[int]:
        bits = self.mask()
        return [token for token in range(self.count) if bits[token >> 3] >> (token & 7) & 1]

    def take(self, token: int) -> bool:
        """Add a token to the answer; return False, and add nothing, if it may not come next."""
        if self.failure or self.is_over or self._matcher.try_consume_tokens([token]) != 1:
            if self._matcher.is_error():
                self._fail()
            return False
        self.taken += 1
        self.is_over = bool(self._matcher.is_stopped())
        return True

    def stop_here(self) -> None:
        """End the answer: there is no token that may come next."""
        self.is_over = True
        if not self.failure and not self.may_end:
            self.failure = "there is no token that may come next"

    def _fail(self) -> None:
        self.failure = self.failure or str(self._matcher.get_error()).split("\n")[0] or "it has reached a limit"
        self.is_over = True


class Guides:
    """Makes guides for one model, whose tokens are 0 to `count` - 1."""

    def __init__(self, tokenizer: Any, count: int) -> None:
        self._tokenizer, self._count = tokenizer, count
        self._lock = threading.Lock()
        self._words: Any = None

    def make(self, grammar: str, where: str, *, shown: str = "") -> Guide:
        """Compile a grammar, which takes milliseconds to some tenths of a second. `shown` is the same for llama.cpp.

        Raises:
            BadRequest: llguidance refuses it, or no answer fulfils it.
        """
        import llguidance

        words = self._tokens()
        limits = llguidance.LLParserLimits(verbose_errors=False)
        matcher = llguidance.LLMatcher(words, grammar, log_level=0, limits=limits)
        guide = Guide(matcher, shown, self._count)
        if not matcher.is_error() and not any(guide.mask()) and not guide.may_end:
            raise not_enforced(where, "no answer fulfils it")
        if matcher.is_error():
            raise not_enforced(where, str(matcher.get_error())[:500])
        return guide

    def check(self, schema: Schema, *, spaced: bool = True) -> None:
        """Raise `BadRequest` for the first part of a schema that llguidance refuses."""
        from .grammars import of_schema

        if self._refusal(f"start: {of_schema(schema.value, spaced=spaced)}") is None:
            return
        for count, (where, part) in enumerate(schema.parts()):
            if count == MOST_CHECKED:
                break
            if why := self._refusal(f"start: {of_schema(part, spaced=spaced)}"):
                raise not_enforced(where + self._keyword(part), why)
        raise not_enforced(schema.where, "it cannot be enforced")

    def _keyword(self, part: dict[str, Any]) -> str:
        """Return the keyword without which a subschema would not be refused, as the end of a path."""
        from .grammars import of_schema

        for name in sorted(part, key="type".__eq__):  # another one says more
            rest = {key: value for key, value in part.items() if key != name}
            if name not in KEPT and self._refusal(f"start: {of_schema(rest)}") is None:
                return f".{name}"
        return ""

    def _refusal(self, grammar: str) -> str | None:
        import llguidance

        failed, said = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, self._tokens())
        if not failed:
            return None
        text = str(said[0])
        _, found, why = text.partition("failed to compile JSON schema: ")
        return (why if found else text).strip().split("\n   1 |")[0][:500]

    def _tokens(self) -> Any:
        with self._lock:
            if self._words is None:
                import llguidance

                words = llguidance.TokenizerWrapper(Words(self._tokenizer, self._count))
                self._words = llguidance.LLTokenizer(words, n_vocab=self._count + 1, eos_token=[self._count])
        return self._words


def why_not(tokenizer: Any) -> str:
    """Return what a model lacks to have guides; "" if nothing."""
    if importlib.util.find_spec("llguidance") is None:
        return "the package llguidance where this model runs: pip install llguidance"
    return "" if vocabulary(tokenizer).is_known else "a tokenizer of the library tokenizers, which this model has not"
