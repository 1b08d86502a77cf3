"""How the BPE vocabularies of GGUF files split a text before merging: `tokenizer.ggml.pre` → `Words`.

The expressions split text as llama.cpp (b11549) does, in the syntax of Oniguruma, which the tokenizers library uses.
Where llama.cpp is less exact than the tokenizer that the model was trained with, we follow llama.cpp, because files are
compared with it. An unknown name is refused: another split would silently give other ids for most texts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    cuts: tuple[str, ...]  # each splits the pieces left by the previous ones; text without a match is a piece too
    whole: bool = False  # a piece that is a token is kept, whatever the merges
    bos: bool = False  # a prompt begins with it, unless the file says otherwise
    bytes: bool = True  # the vocabulary uses byte letters; otherwise plain text, with ▁ for a space


ENDINGS = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
SIGNS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
ASCII_SIGNS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
# Groups of three digits from the right; llama.cpp joins the first group with the preceding text.
THREES = r"\P{N}*+\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))|\P{N}+"
HAN = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b820-\U0002ceaf\U0002ceb0-\U0002ebef\uf900-\ufaff\U0002f800-\U0002fa1f"
)
PUNCTUATED = rf"{ASCII_SIGNS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"


def _cased(letter: str, ending: str, numbers: str) -> str:
    """Return an expression for words split at capitals; only A-Z and a-z have case here."""
    no_small, no_capital = rf"(?:(?={letter})[^a-z])", rf"(?:(?={letter})[^A-Z])"
    before = r"[^\r\n\p{L}\p{N}]?"
    words = f"{before}{no_small}*{no_capital}+{ending}|{before}{no_small}+{no_capital}*{ending}"
    return f"{words}|{numbers}|{SIGNS_AND_SLASHES}|{BLANKS}"


GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",)
DIGITS = (r"\p{N}", *GPT2)
LLAMA3 = (rf"(?:{ENDINGS})|{LETTERS}|\p{{N}}{{1,3}}|{SIGNS}|{BLANKS}",)
QWEN2 = (rf"(?:{ENDINGS})|{LETTERS}|\p{{N}}|{SIGNS}|{BLANKS}",)
LINES = (r"[^\n]+|[\n]+",)
NO_SIGNS = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", *GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
THREE_DIGITS = (r"\p{N}{1,3}", HAN_AND_KANA)
DEEPSEEK3 = (*THREE_DIGITS, rf"{PUNCTUATED}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{BLANKS}")
GPT4O = (_cased(r"\p{L}", f"(?:{ENDINGS})?", r"\p{N}{1,3}"),)
MARKED = rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+(?:{ENDINGS})?"  # ignores case
CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
)
ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff&&[^\\s]]+"

PRE: dict[str, Words] = {
    "default": Words(DEFAULT),
    **dict.fromkeys(
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano".split(),
        Words(LLAMA3, whole=True, bos=True),
    ),
    **dict.fromkeys("dbrx smaug-bpe chatglm-bpe".split(), Words(LLAMA3)),
    **dict.fromkeys("glm4 glm5".split(), Words(LLAMA3, whole=True)),
    "minicpm5": Words(
        (r"\p{N}{1,3}", rf"(?:{ENDINGS})|{LETTERS}|\p{{N}}+|{SIGNS}|{BLANKS}"),
        whole=True,
    ),
    "jais-2": Words(
        (
            rf"(?:{ENDINGS})|{LETTERS}|\p{{N}}{{1,3}}|{SIGNS}|\s*[\r\n]+"
            + "".join(rf"|\s{{{2**power}}}(?!\S)" for power in range(9, 1, -1))
            + r"|\s{1,2}(?!\S)|\s{1}",
        )
    ),
    "deepseek-llm": Words(
        (
            r"[\r\n]",
            rf"\s?[{CASED_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3001\u3002]+",
            r"\s+\z",
            ASIAN,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": Words((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", ASIAN, r"\p{N}")),
    **dict.fromkeys("deepseek-v3 hunyuan-dense hy_v4 joyai-llm".split(), Words(DEEPSEEK3)),
    "spark2_5": Words((*THREE_DIGITS, rf"{PUNCTUATED}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+", r"\p{N}")),
    "youtu": Words(
        (
            "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
            f"\ufe30-\ufe4f]+|[\u3105-\u312f]+|{HAN_AND_KANA}",
            rf"{MARKED}|\p{{N}}|{SIGNS_AND_SLASHES}|{BLANKS}",
        ),
        whole=True,
    ),
    "falcon": Words((r"[\p{P}\$\+<=>\^~\|`]+", *GPT2, "[0-9][0-9][0-9]")),
    **dict.fromkeys(
        "mpt gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en "
        "jina-v2-code roberta-bpe olmo jais exaone4 trillion granite-docling".split(),
        Words(GPT2),
    ),
    **dict.fromkeys(
        "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2".split(),
        Words(DIGITS),
    ),
    **dict.fromkeys(
        "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2".split(),
        Words(QWEN2),
    ),
    "qwen35": Words(
        (
            rf"(?:{ENDINGS})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{BLANKS}",
        )
    ),
    **dict.fromkeys("poro-chat bloom gpt3-finnish".split(), Words((NO_SIGNS,))),
    "viking": Words((NO_SIGNS, r"\p{N}")),
    "tekken": Words((_cased(r"\p{L}", "", r"\p{N}"),), whole=True, bos=True),
    "chameleon": Words(
        (
            "<sentinel:[0-9]+>",
            "(?:IMGIMG)(?:(?:A|B|C|D|E|F|G|H|I){1,4})Z",
            r"[\t\n]|    |  ",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            *GPT2,
        ),
        bos=True,
    ),
    **dict.fromkeys("gpt-4o llama4 kanana2 talkie minimax-m2".split(), Words(GPT4O)),
    "granite-embed-multi-97m": Words((_cased(r"[\p{L}\p{M}]", f"(?:{ENDINGS})?", r"\p{N}{1,3}"),), whole=True),
    **dict.fromkeys(
        "tiny_aya cohere2moe".split(),
        Words((THREES, rf"{MARKED}|\p{{N}}{{1,3}}|{SIGNS_AND_SLASHES}|{BLANKS}")),
    ),
    "kimi-k2": Words(
        (rf"[{HAN}]+|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{HAN}]]+(?:{ENDINGS})?|\p{{N}}{{1,3}}|{SIGNS}|{BLANKS}",)
    ),
    "superbpe": Words((r"\p{N}+", "[0-9]{1,3}(?=(?:[0-9]{3})+(?![0-9]))")),
    **dict.fromkeys(
        "bailingmoe bailingmoe2 llada-moe".split(),
        Words(
            (rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{LETTERS}|\p{{N}}|{SIGNS}|\s*[\r\n]|\s+(?!\S)|\s+",),
        ),
    ),
    "seed-coder": Words((rf"(?:{ENDINGS})|{LETTERS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{BLANKS}",)),
    "ufakzeka": Words((rf"{LETTERS}|\p{{N}}|{SIGNS}|{BLANKS}",)),
    "afmoe": Words(
        (
            THREES,
            "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
            "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
            rf"{PUNCTUATED}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{BLANKS}",
        )
    ),
    "laguna": Words((*LINES, *QWEN2)),
    "exaone-moe": Words(
        (
            rf"(?:{ENDINGS})|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    **dict.fromkeys("gemma4 granite-embed-multi-311m".split(), Words(LINES, bos=True, bytes=False)),
    "sarvam-moe": Words(LINES, bytes=False),
}
