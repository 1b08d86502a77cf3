"""The tokenizer and chat templates of a GGUF file, with the interface that the other modules know from transformers.

So a GGUF file is served without transformers, whose import takes longer than the load of a small model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import templates
from .gguf.tokenizer import Vocabulary, read_vocabulary, rebuild

TEMPLATE = "tokenizer.chat_template"
NAMES = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


class FileTokenizer:
    """A tokenizer made from the metadata of a GGUF file."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        """Raises `ConfigError` for a vocabulary of a kind that cannot be rebuilt."""
        self.file: Vocabulary = read_vocabulary(metadata)
        self.backend_tokenizer = rebuild(metadata, self.file)
        self.chat_template: str | dict[str, str] | None = chat_templates(metadata)
        self.special_tokens_map = {
            name: text for name, theirs in NAMES.items() if (text := self.file.text(theirs)) is not None
        }
        self.all_special_tokens = list(self.special_tokens_map.values())
        self.bos_token_id, self.eos_token_id = self.file.ids.get("bos"), self.file.ids.get("eos")

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        found: dict[int, Any] = self.backend_tokenizer.get_added_tokens_decoder()
        return found

    def __call__(self, text: str, add_special_tokens: bool = True, verbose: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def __len__(self) -> int:
        return len(self.file.tokens)

    def decode(self, tokens: Sequence[int] | int, skip_special_tokens: bool = False, **_: Any) -> str:
        ids = [tokens] if isinstance(tokens, int) else list(tokens)
        text: str = self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def convert_ids_to_tokens(self, tokens: Sequence[int] | int) -> Any:
        if isinstance(tokens, int):
            return self.backend_tokenizer.id_to_token(tokens)
        return [self.backend_tokenizer.id_to_token(token) for token in tokens]

    def get_vocab(self) -> dict[str, int]:
        known: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return known

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: str | None = None,
        tokenize: bool = False,
        **values: Any,
    ) -> str:
        """Return the text of a conversation. `continue_final_message` names the field at whose end it stops.

        Raises `jinja2.TemplateError`, `TypeError` or `ValueError` for messages that the template does not accept.
        """
        assert not tokenize, "the caller makes tokens of it"
        known = self.chat_template
        if isinstance(known, dict):
            known = known["tool_use"] if tools is not None and "tool_use" in known else known.get("default")
        if known is None:
            raise ValueError("there is no chat template")
        if not all(isinstance(document, dict) for document in documents or ()):
            raise TypeError("documents must be a list of objects")
        values = {**self.special_tokens_map, **values, "tools": tools, "documents": documents}
        values["add_generation_prompt"] = add_generation_prompt
        if continue_final_message:
            return templates.render_continued(known, conversation, continue_final_message, **values)
        return templates.render(known, conversation, **values)


def chat_templates(metadata: Mapping[str, Any]) -> str | dict[str, str] | None:
    """Return the chat template of a file; several by their names; None if it has none."""
    named = {
        name.removeprefix(f"{TEMPLATE}."): text
        for name, text in metadata.items()
        if name.startswith(f"{TEMPLATE}.") and isinstance(text, str)
    }
    default = metadata.get(TEMPLATE)
    if isinstance(default, str) and default:
        named = {"default": default, **named}
    if named.keys() <= {"default"}:
        return named.get("default")
    return named
