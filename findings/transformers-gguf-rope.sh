#!/usr/bin/env bash
# transformers 5.23.0 (gguf 0.19.0, torch 2.13.0): AutoModelForCausalLM.from_pretrained(…, gguf_file=…)
#
# Expected: the rotary embedding of a GGUF file is scaled as the file says, as llama.cpp does it, or the load says that it
# is not: rope_freqs.weight (every GGUF of Llama 3.1, 3.2 and 3.3), llama.rope.scaling.type = linear or yarn.
# Seen: both are left out without an error or a warning; the model that is returned has the frequencies of one without
# scaling, and gives other logits than the checkpoint that the file was made from.
#
# Exits with 0 while this is what is seen.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0 > "$place/log" 2>&1 || { cat "$place/log"; exit 1; }
"$place/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3 gguf==0.19.0 numpy protobuf sentencepiece \
    accelerate > "$place/log" 2>&1 || { cat "$place/log"; exit 1; }
cd "$place"
cat > try.py <<'PYTHON'
import sys

import gguf
import numpy
from transformers import AutoModelForCausalLM

WIDTH, HEADS, WORDS = 64, 4, 300


def load(name, factors=None, **keys):
    out = gguf.GGUFWriter(name, "llama")
    out.add_context_length(8192)
    out.add_embedding_length(WIDTH)
    out.add_block_count(1)
    out.add_feed_forward_length(WIDTH)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(10000.0)
    for key, value in keys.items():
        getattr(out, f"add_rope_scaling_{key}")(value)
    out.add_tokenizer_model("llama")
    out.add_token_list([f"w{number}" for number in range(WORDS)])
    out.add_token_scores([0.0] * WORDS)
    out.add_token_types([1] * WORDS)
    drawn = numpy.random.default_rng(0)
    square, words, row = (WIDTH, WIDTH), (WORDS, WIDTH), (WIDTH,)
    shapes = {"token_embd": words, "output": words, "output_norm": row, "blk.0.attn_norm": row, "blk.0.ffn_norm": row}
    shapes |= {f"blk.0.attn_{part}": square for part in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{part}": square for part in ("gate", "up", "down")}
    for tensor, shape in shapes.items():
        out.add_tensor(f"{tensor}.weight", drawn.normal(size=shape).astype("float32"))
    if factors is not None:
        out.add_tensor("rope_freqs.weight", numpy.array(factors, "float32"))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return AutoModelForCausalLM.from_pretrained(".", gguf_file=name).model.rotary_emb.inv_freq


plain = load("plain.gguf")
factors = [1, 1, 1, 1, 2, 4, 8, 8]
scaled = load("freqs.gguf", factors=factors)
linear = load("linear.gguf", type=gguf.RopeScalingType.LINEAR, factor=4.0)
print("without scaling     :", plain.tolist())
print("rope_freqs.weight   :", scaled.tolist(), "(expected: divided by", factors, ")")
print("scaling linear by 4 :", linear.tolist(), "(expected: divided by 4)")
sys.exit(0 if plain.equal(scaled) and plain.equal(linear) else 1)
PYTHON
"$place/venv/bin/python" try.py
