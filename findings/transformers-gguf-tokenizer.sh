#!/usr/bin/env bash
# transformers 5.23.0 (tokenizers 0.23.3, gguf 0.19.0, torch 2.13.0): AutoTokenizer.from_pretrained(…, gguf_file=…)
#
# Expected: the tokenizer of a GGUF file cuts texts as its metadata says, or the load says that it cannot.
# Seen: tokenizer.ggml.add_space_prefix = false is ignored, so that "ab" begins with a space that the model was not
# trained with; and whatever tokenizer.ggml.pre says (deepseek-coder, which takes digits one by one, or a name that does
# not exist), the words are cut in one and the same way. Both without an error or a warning; the ids are simply others
# than llama.cpp's for the same file.
#
# Exits with 0 while this is what is seen.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 > "$place/log" 2>&1 || { cat "$place/log"; exit 1; }
"$place/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3 gguf==0.19.0 numpy protobuf sentencepiece \
    > "$place/log" 2>&1 || { cat "$place/log"; exit 1; }
cd "$place"
cat > try.py <<'PYTHON'
import sys
from pathlib import Path

import gguf
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer


def write(name, kind, tokens, types, **more):
    out = gguf.GGUFWriter(Path(name), "llama")
    out.add_context_length(64)
    out.add_embedding_length(8)
    out.add_block_count(1)
    out.add_feed_forward_length(8)
    out.add_head_count(1)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_tokenizer_model(kind)
    out.add_token_list(tokens)
    out.add_token_types(types)
    for key, value in more.items():
        getattr(out, f"add_{key}")(value)
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    out.add_unk_token_id(2)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return AutoTokenizer.from_pretrained(".", gguf_file=name)


special = ["<s>", "</s>", "<unk>"]
pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁ab"]
types = [3, 3, 2, *([6] * 256), *([1] * 5)]
scores = [0.0] * 262 + [-1.0, -2.0]
spaced = write("spaced.gguf", "llama", pieces, types, token_scores=scores, add_space_prefix=True)
plain = write("plain.gguf", "llama", pieces, types, token_scores=scores, add_space_prefix=False)
with_prefix, without = (one.tokenize("ab") for one in (spaced, plain))
print("add_space_prefix true :", with_prefix)
print("add_space_prefix false:", without, "(expected: ['ab'])")

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
tokens = [*special, *letters, "12"]
kinds = [3, 3, 2, *([1] * 257)]
cut = {}
for pre in ("gpt-2", "deepseek-coder", "no-such-name"):
    one = write(f"{pre}.gguf", "gpt2", tokens, kinds, token_merges=["1 2"], tokenizer_pre=pre)
    cut[pre] = one.tokenize("12")
    print(f"tokenizer.ggml.pre {pre}:", cut[pre])
print("expected of deepseek-coder: ['1', '2']; of no-such-name: an error")

sys.exit(not (with_prefix == without and cut["gpt-2"] == cut["deepseek-coder"] == cut["no-such-name"]))
PYTHON
"$place/venv/bin/python" try.py 2> "$place/log" || { tail -5 "$place/log"; exit 1; }
