#!/usr/bin/env bash
# transformers 5.23.0: continuing an empty last message damages the header of the answer.
#
# Expected: apply_chat_template(continue_final_message=True) removes what the template writes behind the last message.
# Where that message is empty, nothing stands between the header of the answer and its end, so the prompt is the one that
# add_generation_prompt=True makes. Harnesses and agents fill in the beginning of an answer, and sometimes it is empty.
# Seen: with a template that trims what is said, as those of Llama 3 and Gemma do, the blanks that belong to the header
# are taken for blanks of the message and go too: the model is shown a header without its newlines, as it was never
# trained, and nothing is said of it. With a template that does not trim, the two prompts are equal.
# Exits with 0 while this is what is seen.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q transformers==5.23.0 jinja2==3.1.6
cat > "$dir/show.py" <<'PY'
import sys

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}<|header|>\n\n{{ SAID }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|header|>\n\n{% endif %}"
)
ASKED = [{"role": "user", "content": "Hi"}]


def prompts(said: str) -> tuple[str, str]:
    template = TEMPLATE.replace("SAID", said)
    begun = [*ASKED, {"role": "assistant", "content": ""}]
    new = tokenizer.apply_chat_template(ASKED, chat_template=template, tokenize=False, add_generation_prompt=True)
    more = tokenizer.apply_chat_template(begun, chat_template=template, tokenize=False, continue_final_message=True)
    return new, more


trimmed, plain = prompts("m['content'] | trim"), prompts("m['content']")
for name, (new, more) in (("a template that trims:", trimmed), ("one that does not:", plain)):
    print(f"{name:24}new answer {new!r}\n{'':24}continued  {more!r}")
sys.exit(plain[0] != plain[1] or trimmed[1] != trimmed[0].rstrip())
PY
"$dir/venv/bin/python" "$dir/show.py" 2>/dev/null
