"""The content blocks of an Anthropic message, in sequence.

A block is open until the kind of output changes. A tool call is open until its arguments are a complete object. Other
output, text or pieces of another call, is held back in later blocks until then. Streamed and whole answers have the
same blocks.

    current block                            another begins
    text, thinking, given                    it is closed, the next one is current
    tool_use, its arguments are an object    the same
    tool_use, otherwise                      the next one waits until the object is complete or the output ends
"""

from __future__ import annotations

from typing import Any

from ...errors import InvalidOutput
from ..answer import Choice
from ..events import Event, Reasoning, Refusal, Text, ToolCall, encode_json
from ..json_pieces import decoded
from ..partial_json import begun_object

DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
    "signature": ("signature_delta", "signature"),
}


class Given(Event):
    """A block that the model returned whole, in Anthropic's format."""

    choice: int
    block: dict[str, Any]


class Signature(Event):
    """The signature of thinking by Anthropic's own models."""

    choice: int
    text: str


class Block:
    """A block. `start` opens it in a stream. `pieces` are not streamed yet, each with its kind of delta."""

    __slots__ = ("call", "is_open", "kind", "pieces", "start")

    def __init__(self, kind: str, start: dict[str, Any], call: int = -1) -> None:
        self.kind, self.start, self.call = kind, start, call
        self.pieces: list[tuple[str, str]] = []
        self.is_open = False  # it was started in the stream


class Blocks(Choice):
    """The one choice of a message. `hides` leaves its thinking empty."""

    __slots__ = ("_by_call", "_current", "_hides", "_told", "blocks")

    def __init__(self, *, hides: bool = False) -> None:
        super().__init__()
        self._hides = hides
        self.blocks: list[Block] = []
        self._by_call: dict[int, int] = {}
        self._current = 0  # blocks before it are closed
        self._told = 0  # blocks before it are closed in the stream too

    def apply(self, event: Event) -> None:
        super().apply(event)  # type: ignore[arg-type]  # two of the events are defined in this file
        if isinstance(event, Text | Refusal):
            self._piece("text", event.text)
        elif isinstance(event, Reasoning):
            self._piece("thinking", "" if self._hides else event.text)
        elif isinstance(event, ToolCall):
            self._call(event)
        elif isinstance(event, Signature):
            self._piece("thinking", event.text, "signature")
        elif isinstance(event, Given):
            self._given(event.block)
        while self._current < len(self.blocks) - 1 and self._is_done(self.blocks[self._current]):
            self._current += 1

    def _piece(self, kind: str, text: str, delta: str = "") -> None:
        if not self.blocks or self.blocks[-1].kind != kind:
            signed = {"signature": ""} if kind == "thinking" else {}
            self.blocks.append(Block(kind, {"type": kind, kind: "", **signed}))
        if text or not self._hides:
            self.blocks[-1].pieces.append((delta or kind, text))

    def _call(self, event: ToolCall) -> None:
        if event.name is not None:
            self._by_call[event.call] = len(self.blocks)
            start: dict[str, Any] = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
            self.blocks.append(Block("tool_use", start, event.call))
        position = self._by_call[event.call]
        if position >= self._current:
            if event.arguments:
                self.blocks[position].pieces.append(("tool_use", event.arguments))
        elif event.arguments.strip():
            raise InvalidOutput("the model added to a tool call whose arguments were complete")

    def _given(self, block: dict[str, Any]) -> None:
        kind, start = block.get("type"), {**block}
        pieces: list[tuple[str, str]] = []
        if kind == "text":
            start["text"], pieces = "", [("text", block.get("text") or "")]
            self.content.append(pieces[0][1])
        elif kind == "thinking":
            start["thinking"] = start["signature"] = ""
            pieces = [("thinking", block.get("thinking") or ""), ("signature", block.get("signature") or "")]
            self.reasoning.append(pieces[0][1])
        self.blocks.append(Block("given", start))
        self.blocks[-1].pieces = [piece for piece in pieces if piece[1]]

    def _is_done(self, block: Block) -> bool:
        return block.kind != "tool_use" or self.calls[block.call].arguments.whole is not None

    def close(self) -> None:
        """Close all blocks. An empty answer is one empty text block."""
        if not self.blocks:
            self.blocks.append(Block("text", {"type": "text", "text": ""}))
        self._current = len(self.blocks)

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self) -> bytes:
        """Return the events that are not streamed yet and need not wait."""
        out: list[bytes] = []
        while self._told < len(self.blocks) and self._told <= self._current:
            block, index = self.blocks[self._told], self._told
            if not block.is_open:
                block.is_open = True
                out.append(event("content_block_start", index=index, content_block=block.start))
            for kind, text in _joined(block.pieces):
                name, field = DELTAS[kind]
                out.append(event("content_block_delta", index=index, delta={"type": name, field: text}))
            block.pieces.clear()
            if index == self._current:
                break
            out.append(event("content_block_stop", index=index))
            self._told += 1
        return b"".join(out)

    @property
    def open_text(self) -> int | None:
        """The index of the open text block that further text goes to directly, or None."""
        last = len(self.blocks) - 1
        is_text = self._current == self._told == last and self.blocks[last].kind == "text"
        return last if is_text and self.blocks[last].is_open else None

    # ── whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self) -> list[dict[str, Any]]:
        return [self._whole(block) for block in self.blocks]

    def _whole(self, block: Block) -> dict[str, Any]:
        value = {**block.start}
        if block.kind == "tool_use":
            text = self.calls[block.call].arguments.text
            if (found := decoded(text)) is None:
                found = begun_object(text)
            if found is not None:
                value["input"] = found
            elif text.strip():
                value["input"] = {"_raw": text}
            return value
        for kind, text in _joined(block.pieces):
            value[kind] = text
        return value


def _joined(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join the pieces of each kind."""
    return [(kind, "".join(text for other, text in pieces if other == kind)) for kind in dict(pieces)]


def event(name: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode_json({"type": name, **fields}))
