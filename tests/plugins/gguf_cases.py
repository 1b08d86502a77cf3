"""The vocabularies and texts by which the tokenizers of GGUF files are compared with llama.cpp's, and its answers.

The answers lie in gguf_ids.json. To ask llama.cpp again, in an environment with this project, gguf and xllamacpp:

    python -m tests.plugins.gguf_cases

The vocabularies are ours: trained on the texts below without cutting words first, so that tokens go across words,
digits and blanks, and every cut that is missing or too many shows in the ids.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).with_name("gguf_ids.json")
SPECIAL = ["<|begin|>", "<|close|>", "<|user|>", "<unk>"]
UNMERGED = ["trailing", "Ġleading", "ĠUPPERlower"]  # tokens that no merges make: some vocabularies take them whole
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
FIM = ["<|fim_pad|>", "<|fim_repo|>", "<|file_sep|>", "<|fim_prefix|>"]

TEXTS = [
    "",
    " ",
    "   ",
    "\n\n",
    " \n ",
    "Hello world",
    " Hello  World HELLO helloWorld",
    "don't I'll we've You're 'S 'LL 'Ve isn'tx",
    "1234567 12 123 1,234.50 0x1F 0123456789012",
    "a1b22c333d4444 R2D2 C3PO 3rd",
    "def f(x):\n    return x + 1\n\n\nclass A:\n\tpass\r\n\r\nend",
    "for (int i=0;i<10;i++) { a[i] += b->c; } // done",
    "x = {'a': [1, 2, 3], \"b\": None}  # §",
    "naïve café Ünïcödé ŒUVRE straße ǅ ʰ",
    "Привет, мир! Как Дела?",
    "Γειά σου Κόσμε 10",
    "你好，世界。今天天气很好！123年",
    "こんにちは世界 カタカナ ひらがな！",
    "안녕하세요 세계 3개",
    "नमस्ते दुनिया १२३",
    "สวัสดีชาวโลก",
    "مرحبا بالعالم ١٢٣",
    "שלום עולם",
    "ភាសាខ្មែរ ကမ္ဘာ",
    "😀 😃👨‍👩‍👧 🇩🇪 ❤️ok",
    "price: $5 £3 €4 ¥7 100% #tag @user ~x^2`",
    "a  b   c    d     e      f        g",
    "trailing   ",
    "   leading UPPERlower",
    "one\ntwo\r\nthree\rfour\n\n\n\nfive",
    "a\n \n  \n   b\t\tc",
    "<html><body class='x'>&amp;</body></html>",
    "http://example.com/path?q=1&r=2#frag",
    "... --- !!! ??? ;;; === ?!\n\nNew end.\n\nStart",
    "(a)[b]{c}<d> a/b\\c|d",
    "ａｂｃ１２３！？½ ² ³ Ⅷ ①",
    "e\u0301 n\u0303 क\u094d zero\u200bwidth\u200d",
    "\u00a0nbsp\u2003em\u3000ideo\u3000\u3000{x\u0085y\u2028z",
    "mixed中文English混合123数字",
    "UPPERlower camelCaseWord snake_case kebab-case ABCDef x'Sy won'tgo 'RE'veX",
    "aaaaaaaaaaaaaaaa 9999999999999",
    "don’t “quotes” – dash — em … ‘x’",
    "IMGIMGABZ <sentinel:12> x",
    "Việt Nam Zażółć gęślą",
    "𝕳𝖊𝖑𝖑𝖔 𐐀𐐨 𠀀",
    "😀   5 b    12 ,   x 7",
    "<|user|>hi<|close|> <|begin|>a <unk>",
    "\u2581low\u2581er and 10000 1000 100 10 1",
]


def drawn(count: int, seed: int) -> list[str]:
    """Texts of single letters, signs and blanks, as nobody writes them."""
    source = random.Random(seed)
    parts = [
        *"abcXYZ' .,!?-_/\\(){}[]<>=+*&^%$#@~`|:;\"\n\n\r\t  0123456789",
        "'s",
        "'LL",
        "é",
        "Ä",
        "ж",
        "Д",
        "中",
        "の",
    ]
    parts += [
        "カ",
        "한",
        "क",
        "्",
        "ก",
        "ا",
        "١",
        "😀",
        "\u00a0",
        "\u3000",
        "½",
        "²",
        "€",
        "。",
        "，",
        "…",
        "\u0301",
        "   ",
    ]
    return ["".join(source.choice(parts) for _ in range(source.randint(1, 30))) for _ in range(count)]


ALL_TEXTS = [*TEXTS, *drawn(12, 3)]


# ── metadata of files ────────────────────────────────────────────────────────────────────────────────────────────────


def metadata(vocabulary: Mapping[str, Any], kind: str, **more: Any) -> dict[str, Any]:
    """What a file of this kind says of its tokenizer. `vocabulary` is one of those in gguf_ids.json."""
    tokens = {"bytes": _bytes, "plain": _plain, "pieces": _plain, "words": _words}[kind](vocabulary)
    kinds = [_kind(token) for token in tokens]
    said: dict[str, Any] = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": {"bytes": "gpt2", "plain": "gpt2", "pieces": "llama", "words": "bert"}[kind],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
    }
    if kind == "words":
        said |= {
            f"tokenizer.ggml.{name}_token_id": at for at, name in enumerate(("padding", "unknown", "bos", "seperator"))
        }
    else:
        said |= {
            "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.ggml.unknown_token_id": 3,
        }
    if kind == "pieces":
        said["tokenizer.ggml.scores"] = [0.0 if at < 260 else -float(at) for at in range(len(tokens))]
    elif kind != "words":
        said["tokenizer.ggml.merges"] = vocabulary["merges"]
    return said | {f"tokenizer.ggml.{name}": value for name, value in more.items()}


def _kind(token: str) -> int:
    if token == "<unk>":
        return 2
    return 3 if token in SPECIAL or (token.startswith("[") and token.endswith("]") and len(token) > 2) else 1


def _bytes(vocabulary: Mapping[str, Any]) -> list[str]:
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [merge.replace(" ", "") for merge in vocabulary["merges"]]
    return [*SPECIAL, *letters, *merged, *(UNMERGED if merged else ())]


def _plain(vocabulary: Mapping[str, Any]) -> list[str]:
    return [*SPECIAL, *BYTES, *vocabulary["letters"], *(merge.replace(" ", "") for merge in vocabulary["merges"])]


def _words(vocabulary: Mapping[str, Any]) -> list[str]:
    return list(vocabulary["tokens"])


def files(vocabularies: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every case: a name, and the metadata of its file."""
    from gateway_language.gguf.words import PRE

    for name, words in PRE.items():
        kind = "bytes" if words.bytes else "plain"
        yield f"pre {name}", metadata(vocabularies[kind], kind, pre=name)
    yield "no pre", metadata(vocabularies["bytes"], "bytes")
    yield "begin", metadata(vocabularies["bytes"], "bytes", pre="smollm", add_bos_token=True)
    yield "end", metadata(vocabularies["bytes"], "bytes", pre="qwen2", add_eos_token=True)
    yield "no begin", metadata(vocabularies["bytes"], "bytes", pre="llama-bpe", add_bos_token=False)
    yield "gemma4", metadata(vocabularies["plain"], "plain", model="gemma4", add_bos_token=False)
    yield "pieces", metadata(vocabularies["pieces"], "pieces")
    yield "pieces no space", metadata(vocabularies["pieces"], "pieces", add_space_prefix=False)
    yield "pieces no begin", metadata(vocabularies["pieces"], "pieces", add_bos_token=False)
    yield "pieces end", metadata(vocabularies["pieces"], "pieces", add_eos_token=True)
    yield "words", metadata(vocabularies["words"], "words")
    yield "words as they are", metadata(vocabularies["words"], "words", **{"normalizer.lowercase": False})


def endings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Files whose answers end at other tokens: a name, and the metadata."""
    from gateway_language.gguf import tokenizer as it

    def file(tokens: list[str], kind: int = 3, **said: Any) -> dict[str, Any]:
        letters = _bytes({"merges": []})
        base = {
            "general.architecture": "llama",
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": [*letters, *tokens],
            "tokenizer.ggml.token_type": [*([3] * 3), 2, *([1] * 256), *([kind] * len(tokens))],
            "tokenizer.ggml.merges": ["a b"] if "ab" in tokens else [],
            "tokenizer.ggml.eos_token_id": 1,
        }
        return base | {f"tokenizer.ggml.{name}_token_id": token for name, token in said.items()}

    for token in sorted(it.ENDS | it.END_OF_TURN) + FIM:
        for kind in (3, 1):
            yield f"{token} of kind {kind}", file([token, "ab"], kind)
    yield "turn and message", file(["<|mine|>", "<|more|>", "ab"], eot=260, eom=261)
    yield "turn beside a named one", file(["<|mine|>", "<|im_end|>", "ab"], eot=260)
    yield "filled in", file(["<a>", "<b>", "<c>", "ab"], fim_pad=260, fim_rep=261, fim_sep=262)
    yield "harmony", file(["<|return|>", "<|call|>", "<|end|>", "<|start|>", "ab"])
    yield "solar", file(["<|flush|>", "<|calls|>", "<|end|>", "ab"])
    yield "a tag of HTML", file(["<|tool_response>", "</s>", "<turn|>", "ab"])


# ── asking llama.cpp ─────────────────────────────────────────────────────────────────────────────────────────────────


def train() -> dict[str, Any]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    texts = [*TEXTS * 60, *drawn(1000, 7)]

    def learn(tokenizer: Any, trainer: Any, texts: list[str]) -> dict[str, Any]:
        tokenizer.train_from_iterator(texts, trainer)
        model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
        return model

    one = Tokenizer(models.BPE())
    one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    as_bytes = learn(
        one,
        trainers.BpeTrainer(vocab_size=256 + 900, initial_alphabet=alphabet, max_token_length=8, show_progress=False),
        texts,
    )
    other = Tokenizer(models.BPE())
    other.normalizer = normalizers.Replace(" ", "\u2581")
    plain = learn(
        other,
        trainers.BpeTrainer(vocab_size=600, limit_alphabet=150, max_token_length=6, show_progress=False),
        [text.replace("\n", "") for text in texts],
    )
    third = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    third.normalizer = normalizers.BertNormalizer(lowercase=True)
    third.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    wordpiece = learn(
        third, trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False), texts
    )
    words = [text for text, _ in sorted(wordpiece["vocab"].items(), key=lambda item: item[1])]
    marked = [w if w in special else w[2:] if w.startswith("##") else f"\u2581{w}" for w in words]
    merged = {"".join(pair) for pair in plain["merges"]}
    letters = sorted(token for token in plain["vocab"] if token not in merged)
    pairs = {"letters": letters, "merges": [" ".join(pair) for pair in plain["merges"]]}
    return {
        "bytes": {"merges": [" ".join(pair) for pair in as_bytes["merges"]]},
        "plain": pairs,
        "pieces": pairs,
        "words": {"tokens": marked},
    }


def write(path: Path, said: Mapping[str, Any]) -> None:
    """A file with this metadata and no tensors."""
    import gguf

    out = gguf.GGUFWriter(path, said["general.architecture"])
    shape = {"context_length": 64, "embedding_length": 8, "block_count": 1, "feed_forward_length": 8}
    shape |= {"attention.head_count": 1, "attention.layer_norm_rms_epsilon": 1e-5}
    for key, value in (said | {f"llama.{name}": value for name, value in shape.items()}).items():
        if key == "general.architecture":
            continue
        if isinstance(value, list):
            if value or key.endswith("tokens"):
                out.add_array(key, value)
            continue
        kinds = {bool: out.add_bool, int: out.add_uint32, float: out.add_float32, str: out.add_string}
        kinds[type(value)](key, value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


class Llama:
    """llama.cpp's vocabulary of a file, by the C functions that xllamacpp's library exports."""

    def __init__(self, path: Path) -> None:
        import ctypes as c
        import importlib.util

        (place,) = importlib.util.find_spec("xllamacpp").submodule_search_locations or ()
        self._library = library = c.CDLL(str(next(Path(place).glob("*.so"))))

        class Parameters(c.Structure):
            _fields_ = [
                *((f"pointer{at}", c.c_void_p) for at in range(2)),
                *((f"number{at}", c.c_int32) for at in range(5)),
                *((f"late{at}", c.c_void_p) for at in range(4)),
                ("vocabulary_only", c.c_bool),
                *((f"flag{at}", c.c_bool) for at in range(5)),
            ]

        library.llama_model_default_params.restype = Parameters
        library.llama_model_load_from_file.restype = c.c_void_p
        library.llama_model_load_from_file.argtypes = [c.c_char_p, Parameters]
        library.llama_model_get_vocab.restype = c.c_void_p
        library.llama_model_get_vocab.argtypes = [c.c_void_p]
        library.llama_vocab_is_eog.restype = c.c_bool
        library.llama_vocab_is_eog.argtypes = [c.c_void_p, c.c_int32]
        library.llama_tokenize.argtypes = [
            *(c.c_void_p, c.c_char_p, c.c_int32),
            *(c.POINTER(c.c_int32), c.c_int32, c.c_bool, c.c_bool),
        ]
        parameters = library.llama_model_default_params()
        parameters.vocabulary_only = True
        model = library.llama_model_load_from_file(str(path).encode(), parameters)
        if not model:
            raise ValueError(f"llama.cpp does not read {path}")
        self._vocabulary = library.llama_model_get_vocab(model)

    def ids(self, text: str) -> list[int]:
        import ctypes as c

        data = text.encode()
        room = (c.c_int32 * (8 + 4 * len(data)))()
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), room, len(room), True, True)
        return list(room[:count])

    def ends(self, count: int) -> list[int]:
        return [token for token in range(count) if self._library.llama_vocab_is_eog(self._vocabulary, token)]


def ask() -> dict[str, Any]:
    import tempfile
    from importlib.metadata import version

    import xllamacpp  # noqa: F401 - loads what its library needs

    vocabularies = train()
    same: dict[str, list[str]] = {}
    ends: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for number, (name, said) in enumerate(files(vocabularies)):
            path = Path(directory, f"{number}.gguf")
            write(path, said)
            llama = Llama(path)
            answer = "\n".join(" ".join(map(str, llama.ids(text))) for text in ALL_TEXTS)
            same.setdefault(answer, []).append(name)
        for number, (name, said) in enumerate(endings()):
            path = Path(directory, f"end{number}.gguf")
            write(path, said)
            ends[name] = Llama(path).ends(len(said["tokenizer.ggml.tokens"]))
    return {
        "source": f"llama.cpp in xllamacpp {version('xllamacpp')}",
        "vocabularies": vocabularies,
        "ids": [{"files": names, "ids": answer.split("\n")} for answer, names in same.items()],
        "ends": ends,
    }


if __name__ == "__main__":
    ANSWERS.write_text(json.dumps(ask(), ensure_ascii=False, indent=0) + "\n", "utf-8")
