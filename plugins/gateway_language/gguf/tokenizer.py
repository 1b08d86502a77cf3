"""Rebuild the tokenizer of a GGUF file from its metadata so that it gives llama.cpp's ids, and find the end tokens.

BPE, SentencePiece and WordPiece vocabularies. transformers' own conversion is not used: it treats an unknown
`tokenizer.ggml.pre` as another one, always puts a space before a text, and does not follow the file at the beginning of
a prompt. The result is an ordinary tokenizer.json; `words` defines how BPE splits words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import ConfigError

from .words import PRE, Words

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # types of tokens
ALWAYS_BOS = ("gemma4", "granite-embed-multi-311m")  # trained with it, although files say false

# The meaning of token names if the file does not define it: these end an answer …
END_OF_TURN = frozenset(
    "<|eot_id|> <|im_end|> <|end|> <end_of_turn> <|endoftext|> <|end_of_text|> <EOT> _<EOT> [EOT] <end_of_utterance>"
    " <｜end▁of▁sentence｜>".split()
)
ENDS = END_OF_TURN | frozenset(
    "<|eom_id|> <|return|> <|call|> <|calls|> <|flush|> </s> [EOS] <eos> <turn|> <|tool_response> [e~[".split()
)
# … these begin, pad or separate texts for infilling, so they end an answer too …
FILLING_ENDS = {
    "fim_pad": frozenset("<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]".split()),
    "fim_rep": frozenset("<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>".split()),
    "fim_sep": frozenset(["<|file_sep|>"]),
}
# … and these only occur in prompts.
FILLING = frozenset(
    "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>"
    " <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>"
    " <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>".split()
)
CHANNELS = frozenset("<|channel|> <|message|> <|start|> <|constrain|>".split())  # shown in answers

# tokenizer.ggml.model → default ids: bos, eos, unknown, separator, padding
DEFAULT_IDS = {
    "gpt2": {"bos": 11, "eos": 11},
    "gemma4": {},
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "bert": {"bos": 101, "unknown": 100, "seperator": 102, "padding": 0},
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The metadata of a tokenizer, with defaults filled in."""

    model: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    ids: Mapping[str, int]  # "bos", "eos", "eot" … → the token from the file, or the default of its type
    ends: frozenset[int]  # tokens that end an answer

    def text(self, name: str) -> str | None:
        return self.tokens[self.ids[name]] if name in self.ids else None


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary. Raises `ConfigError` for a type that we cannot rebuild."""
    model = metadata.get("tokenizer.ggml.model")
    if model not in DEFAULT_IDS:
        have = ", ".join(DEFAULT_IDS)
        raise ConfigError(f"its tokenizer is of the kind {model!r} (tokenizer.ggml.model); those known are {have}")
    given = metadata.get("tokenizer.ggml.tokens") or []
    tokens = tuple(token or f"[EMPTY_{index}]" for index, token in enumerate(given))
    known = {token: index for index, token in enumerate(tokens)}
    if len(known) < max(len(tokens), 1):
        what = "holds one token twice" if tokens else "is empty"
        raise ConfigError(f"its vocabulary (tokenizer.ggml.tokens) {what}")
    kinds = list(metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens))
    if len(kinds) < len(tokens):
        raise ConfigError(
            f"the length of tokenizer.ggml.token_type is {len(kinds)}, that of the vocabulary {len(tokens)}"
        )
    ids = _ids(metadata, model, len(tokens))
    if model == "gpt2" and metadata.get("tokenizer.ggml.pre") in ("chatglm-bpe", "glm4", "glm5"):
        ids = {name: token for name, token in ids.items() if name != "bos" or _says(metadata, "bos")}
    ends = _ends(metadata, tokens, known, kinds, ids)
    return Vocabulary(model, tokens, tuple(kinds), ids, ends)


def _ids(metadata: Mapping[str, Any], model: str, count: int) -> dict[str, int]:
    names = "bos eos eot eom unknown seperator padding mask fim_pad fim_rep fim_sep".split()
    given = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in names}
    ids = {**DEFAULT_IDS[model], **{name: token for name, token in given.items() if _is_token(token, count)}}
    return {name: token for name, token in ids.items() if token < count}


def _is_token(value: Any, count: int) -> bool:
    return isinstance(value, int) and 0 <= value < count


def _says(metadata: Mapping[str, Any], name: str) -> bool:
    return f"tokenizer.ggml.{name}_token_id" in metadata


def _ends(
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    known: Mapping[str, int],
    kinds: list[int],
    ids: dict[str, int],
) -> frozenset[int]:
    """Return the tokens that end an answer. Tokens known by name become control tokens in `kinds`.

    1. tokens that the file defines: end of text, turn or message
    2. tokens with such a name, whatever their type in the file, because converters forget to set it
    3. except those that are not ends in some families' vocabularies
    """
    named = {index for name in ("eos", "eot", "eom") if (index := ids.get(name)) is not None}
    if not _says(metadata, "eos") and ids.get("eos") is not None and kinds[ids["eos"]] != CONTROL:
        named.discard(ids["eos"])  # the default of this type does not apply to this vocabulary
    called = {known[text] for text in ENDS if text in known}
    for name, texts in FILLING_ENDS.items():
        found = ids[name] if name in ids else min((known[text] for text in texts if text in known), default=None)
        if found is not None:
            called.add(found)
            if name not in ids:
                kinds[found] = CONTROL
    for text in ENDS | FILLING:
        if text in known:
            kinds[known[text]] = CONTROL
    for text in CHANNELS & known.keys():
        kinds[known[text]] = USER_DEFINED
    ends = named | called
    texts = {tokens[index]: index for index in ends}
    calls = texts.keys() & {"<|call|>", "<|calls|>"}
    if calls and texts.keys() & {"<|return|>", "<|flush|>"} and "<|end|>" in texts:
        ends.discard(texts["<|end|>"])  # it ends one of several messages
        kinds[texts["<|end|>"]] = USER_DEFINED
    if "</s>" in texts and texts.keys() & {"<|tool_response>", "<|plamo:eos|>"}:
        ends.discard(texts["</s>"])  # an HTML tag
        kinds[texts["</s>"]] = NORMAL
    return frozenset(ends)


def rebuild(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Any:
    """Return a tokenizer of the tokenizers library. Raises `ConfigError` if a part of it is unknown or missing."""
    from tokenizers import AddedToken

    make = {"llama": _sentencepiece, "bert": _wordpiece}.get(vocabulary.model, _bpe)
    tokenizer, adds_bos, adds_eos = make(metadata, vocabulary)
    tokenizer.post_processor = _template(vocabulary, adds_bos, adds_eos)
    strips = _strips(metadata, vocabulary)
    special, plain = [], []
    for text, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=False):
        if kind in (CONTROL, UNKNOWN, USER_DEFINED) or text in strips:
            is_special = kind in (CONTROL, UNKNOWN)
            left, right = strips.get(text, (False, False))
            token = AddedToken(text, special=is_special, normalized=False, lstrip=left, rstrip=right)
            (special if is_special else plain).append(token)
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)
    return tokenizer


def _strips(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, tuple[bool, bool]]:
    """Return added tokens that include the whitespace before or after them: the file only reveals this by its name."""
    name = str(metadata.get("general.name", "")).lower()
    pre, architecture = str(metadata.get("tokenizer.ggml.pre", "")), str(metadata.get("general.architecture", ""))
    kinds = dict(zip(vocabulary.tokens, vocabulary.kinds, strict=False))
    added = (CONTROL, UNKNOWN, USER_DEFINED)
    if any(part in pre for part in ("jina-v2-de", "jina-v2-es", "jina-v2-code")) or architecture in (
        "nomic-bert-moe",
        "jina-bert-v3",
    ):
        return {"<mask>": (True, False)} if kinds.get("<mask>") in added else {}
    if "phi-3" in name or "phi3" in name:
        keep = {"<unk>", "<s>", "<|endoftext|>"}
        return {text: (False, True) for text, kind in kinds.items() if kind in added and text not in keep}
    if "modern-bert" in name:
        return {"[MASK]": (True, False)} if kinds.get("[MASK]") in added else {}
    return {}


def _template(vocabulary: Vocabulary, adds_bos: bool, adds_eos: bool) -> Any:
    """Return the post-processor with the tokens at the beginning and end of a prompt."""
    from tokenizers import processors

    ends = "seperator" if vocabulary.model == "bert" else "eos"
    around = {"bos": adds_bos, ends: adds_eos}
    for name in [name for name, wanted in around.items() if wanted and name not in vocabulary.ids]:
        raise ConfigError(f"its prompts should have a {name} token, but there is none (tokenizer.ggml.{name}_token_id)")
    begin, end = vocabulary.text("bos") if adds_bos else None, vocabulary.text(ends) if adds_eos else None
    used = [token for token in (begin, end) if token is not None]
    # numbered instead of named: tokens may contain special characters of the template language
    pieces = ["B"] * (begin is not None) + ["$A"] + ["E"] * (end is not None)
    names = ["B"] * (begin is not None) + ["E"] * (end is not None)
    ids = [vocabulary.ids[name] for name, text in (("bos", begin), (ends, end)) if text is not None]
    special = [
        {"id": name, "ids": [token], "tokens": [text]} for name, token, text in zip(names, ids, used, strict=True)
    ]
    return processors.TemplateProcessing(single=pieces, pair=[*pieces, "$B:1"], special_tokens=special)


def _flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    return bool(metadata.get(f"tokenizer.ggml.{name}", default))


# ── BPE ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def words_of(metadata: Mapping[str, Any]) -> Words:
    name = "gemma4" if metadata.get("tokenizer.ggml.model") == "gemma4" else metadata.get("tokenizer.ggml.pre")
    if (words := PRE.get(name or "default")) is None:
        raise ConfigError(f"its tokenizer cuts words by {name!r} (tokenizer.ggml.pre); known are {', '.join(PRE)}")
    return words


def _bpe(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[Any, bool, bool]:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = words_of(metadata)
    vocab = {token: index for index, token in enumerate(vocabulary.tokens)}
    merges = list(dict.fromkeys(_pair(merge) for merge in _merges(metadata)))
    for left, right in merges:
        if not vocab.keys() >= {left, right, left + right}:
            raise ConfigError(f"its merge of {left!r} and {right!r} (tokenizer.ggml.merges) makes no token it has")
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, ignore_merges=words.whole, byte_fallback=not words.bytes, fuse_unk=False)
    )
    cuts = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in words.cuts]
    if words.bytes:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
        tokenizer.decoder = _plain_decoder(strips=False)
    always = metadata.get("tokenizer.ggml.model") == "gemma4" or metadata.get("tokenizer.ggml.pre") in ALWAYS_BOS
    return tokenizer, always or _flag(metadata, "add_bos_token", words.bos), _flag(metadata, "add_eos_token", False)


def _merges(metadata: Mapping[str, Any]) -> Sequence[str]:
    merges: Sequence[str] | None = metadata.get("tokenizer.ggml.merges")
    if merges is None and metadata.get("tokenizer.ggml.pre") != "kimi-k2":
        raise ConfigError("its tokenizer has no merges (tokenizer.ggml.merges)")
    return merges or ()


def _pair(merge: str) -> tuple[str, str]:
    at = merge.find(" ", 1)
    return merge[:at], merge[at + 1 :]


def _plain_decoder(*, strips: bool) -> Any:
    from tokenizers import decoders

    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strips else steps)


# ── SentencePiece and WordPiece ──────────────────────────────────────────────────────────────────────────────────────


def _sentencepiece(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[Any, bool, bool]:
    """Pieces are merged by score, best first; text without a piece becomes bytes."""
    from tokenizers import Tokenizer, models, normalizers

    scores = metadata.get("tokenizer.ggml.scores") or [0.0] * len(vocabulary.tokens)
    if len(scores) < len(vocabulary.tokens):
        raise ConfigError(
            f"the length of tokenizer.ggml.scores is {len(scores)}, that of the vocabulary {len(vocabulary.tokens)}"
        )
    vocab = {token: index for index, token in enumerate(vocabulary.tokens)}
    pairs = [
        (-scores[index], index, at, token[:at], token[at:])
        for token, index in vocab.items()
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    ]
    merges = [(left, right) for _, _, _, left, right in sorted(pairs)]
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token=vocabulary.text("unknown"), fuse_unk=False, byte_fallback=True)
    )
    prefix = _flag(metadata, "add_space_prefix", True)
    escape = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), escape]) if prefix else escape
    tokenizer.decoder = _plain_decoder(strips=prefix)
    return tokenizer, _flag(metadata, "add_bos_token", True), _flag(metadata, "add_eos_token", False)


def _wordpiece(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[Any, bool, bool]:
    """The file marks tokens that begin a word; the library's model marks those that do not."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    added = (CONTROL, UNKNOWN, USER_DEFINED)
    names = ("unknown", "seperator", "cls", "padding", "mask")  # names in the file, which need not have types
    named = {metadata.get(f"tokenizer.ggml.{name}_token_id") for name in names} | {vocabulary.ids.get("unknown")}
    vocab = {
        text
        if kind in added or index in named
        else text[1:]
        if text.startswith("▁") and text != "▁"
        else f"##{text}": index
        for index, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=False))
    }
    lowercase = _flag(metadata, "normalizer.lowercase", True)
    strips = _flag(metadata, "normalizer.strip_accents", lowercase)
    unknown = vocabulary.text("unknown")
    if unknown is None:
        raise ConfigError("its WordPiece vocabulary has no unknown token (tokenizer.ggml.unknown_token_id)")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=unknown, max_input_chars_per_word=1_000_000))
    bert = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=lowercase
    )
    blank = normalizers.Replace("\x85", " ")  # treated as a control character by the library
    tokenizer.normalizer = normalizers.Sequence([blank, *(_without_marks() if strips else ()), bert])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, True, True


def _without_marks() -> list[Any]:
    """Return normalizers that remove diacritics; like llama.cpp, they reduce Hangul syllables to their first sound."""
    from tokenizers import Regex, normalizers

    first, per_sound = 0xAC00, 588  # syllables
    sounds = [
        normalizers.Replace(Regex(f"[{chr(start)}-{chr(start + per_sound - 1)}]"), chr(0x1100 + number))
        for number, start in enumerate(range(first, first + 19 * per_sound, per_sound))
    ]
    return [*sounds, normalizers.NFD(), normalizers.Replace(Regex(r"\p{M}"), "")]
