"""Single tokens of a tokenizer, and properties of its decoder.

Computed once per tokenizer. Text always comes from the library; this module knows which tokens it must be given
together, and where the bytes of a character end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

LOST = "\ufffd"  # written by decoders for invalid bytes
REMEMBERED = 2**16  # tokens; a few MiB


class Vocabulary:
    """Properties of a vocabulary. `falls_back` maps tokens that are single bytes, if the decoder has ByteFallback.

    Such a decoder combines adjacent bytes, and one invalid byte loses them all. `is_bytes` says that every token is
    bytes, as with ByteLevel: there, an invalid byte only loses itself. With `is_bytes_alone`, these bytes are the text.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)  # a tokenizer written in Python has none
        added = {} if backend is None else backend.get_added_tokens_decoder()
        decoder = None if backend is None else backend.decoder
        steps = [] if decoder is None else list(_steps(json.loads(decoder.__getstate__())))
        kinds = [step["type"] for step in steps]
        self.is_known = backend is not None
        self.is_bytes = "ByteLevel" in kinds
        self.is_bytes_alone = self.is_bytes and set(kinds) <= {"ByteLevel", "Fuse"}
        self.is_local = _is_local(steps)
        self._special = {token.content for token in added.values() if token.special}
        self._letters = byte_letters() if self.is_bytes else {}
        self.falls_back: dict[int, int] = {}
        if "ByteFallback" in kinds:
            tokens = (f"<0x{byte:{case}}>" for byte in range(256) for case in ("02X", "02x"))
            known = ((backend.token_to_id(token), int(token[3:5], 16)) for token in tokens)
            self.falls_back = {token: byte for token, byte in known if token is not None}
        of_byte = {byte: token for token, byte in self.falls_back.items()}
        self.lost = [of_byte[byte] for byte in LOST.encode()] if of_byte.keys() >= set(LOST.encode()) else []
        if backend is None:
            self.decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            self._written = tokenizer.convert_ids_to_tokens
            self._special = set(tokenizer.all_special_tokens)
        else:  # several times faster
            self.decode = backend.decode
            self._written = backend.id_to_token
        self.skips = lru_cache(REMEMBERED)(self._skips)
        self.bytes = lru_cache(REMEMBERED)(self._bytes)

    def _skips(self, token: int) -> bool:
        """Return whether it adds no text: a special token, or an unused row of the model's embedding."""
        written = self._written(token)
        return written is None or written in self._special

    def _bytes(self, token: int) -> bytes:
        """Return the bytes of the token, possibly an incomplete character."""
        written = self._written(token) or ""
        if written in self._special:
            return written.encode()
        if token in self.falls_back:
            return bytes([self.falls_back[token]])
        if self.is_bytes:
            known = self._letters.keys() >= set(written)
            return bytes(self._letters[letter] for letter in written) if known else written.encode()
        return written.replace("\u2581", " ").encode()


@lru_cache(maxsize=4)  # a worker has one
def vocabulary(tokenizer: Any) -> Vocabulary:
    return Vocabulary(tokenizer)


def _steps(decoder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for step in decoder.get("decoders", [decoder]):
        if "decoders" in step:
            yield from _steps(step)
        else:
            yield step


def _is_local(steps: list[dict[str, Any]]) -> bool:
    """Return whether the beginning of a text never changes with later tokens: not if replacements span tokens."""
    is_joined = False
    for step in steps:
        kind = step["type"]
        if is_joined and (
            kind in ("ByteLevel", "ByteFallback", "BPEDecoder", "CTC")
            or (kind == "WordPiece" and step["cleanup"])
            or (kind == "Replace" and len(step["pattern"].get("String", "several")) > 1)
        ):
            return False
        is_joined = is_joined or kind in ("ByteLevel", "ByteFallback", "Fuse")
    return True


def byte_letters() -> dict[str, int]:
    """Return the letters of byte-level vocabularies: printable bytes as they are, others from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + at): byte for at, byte in enumerate(others)}}
