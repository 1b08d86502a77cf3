#!/usr/bin/env bash
# spaCy 3.8.18: the categories of a text without words depend on the texts that are in its batch.
#
# Expected: `nlp.pipe` gives each text what `nlp(text)` gives it, in any batch, up to rounding.
# Seen: textcat gives an empty text 0 for every category if all texts of its batch are empty, also alone; beside a text
# with words it gives probabilities that add up to 1.
# Exits with 0 while this is what is seen.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q spacy==3.8.18
"$place/venv/bin/python" -W ignore - <<'PYTHON'
import spacy
from spacy.training import Example

nlp = spacy.blank("en")
nlp.add_pipe("textcat")
kinds = {"good": {"good": 1.0, "bad": 0.0}, "bad": {"good": 0.0, "bad": 1.0}}
nlp.initialize(lambda: [Example.from_dict(nlp.make_doc(word), {"cats": cats}) for word, cats in kinds.items()])
alone = nlp("").cats
empty = [document.cats for document in nlp.pipe(["", ""])]
beside = next(iter(nlp.pipe(["", "good"]))).cats
print("alone:", alone, "beside another empty text:", empty[0], "beside a text with words:", beside)
assert set(alone.values()) == {0.0} and empty == [alone, alone]
assert abs(sum(beside.values()) - 1) < 1e-3
PYTHON
