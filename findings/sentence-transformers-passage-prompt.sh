#!/usr/bin/env bash
# sentence-transformers 6.2.0: encode_document does not use a model's `passage` prompt.
#
# Expected, from its docstring: without a prompt, encode_document takes the first available prompt of "document",
# "passage" and "corpus". A model whose config has {"query": …, "passage": …}, as models of the E5 family and others
# write it, has its documents encoded behind its passage prompt.
# Seen: every SentenceTransformer gets a blank prompt "document" when it is made, so "passage" and "corpus" are never
# reached: documents are encoded without any prompt, without a word. encode(…, prompt_name="passage") gives other vectors.
# Exits with 0 while this is what is seen.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q torch==2.13.0
"$dir/venv/bin/pip" install -q sentence-transformers==6.2.0
cat > "$dir/show.py" <<'PY'
import sys

import numpy
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

words = Tokenizer(models.WordLevel({"[UNK]": 0, "query": 1, "passage": 2, "cat": 3}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
made = SentenceTransformer(
    modules=[StaticEmbedding(words, embedding_dim=8)],
    device="cpu",
    prompts={"query": "query ", "passage": "passage "},
)
made.save_pretrained(sys.argv[1])
model = SentenceTransformer(sys.argv[1], device="cpu")

document = model.encode_document(["cat"])
passage = model.encode(["cat"], prompt_name="passage")
nothing = model.encode(["cat"], prompt="")
print("prompts of the model:", model.prompts)
print("encode_document is encode with the prompt 'passage':", numpy.allclose(document, passage))
print("encode_document is encode without a prompt:         ", numpy.allclose(document, nothing))
sys.exit(numpy.allclose(document, passage) or not numpy.allclose(document, nothing))
PY
OMP_NUM_THREADS=1 "$dir/venv/bin/python" "$dir/show.py" "$dir/model"
