"""Check transformers checkpoints before they are loaded: what is missing or wrong in their files.

Used by the plugins for language models and sentence-transformers. `loadable` has the checks of `gateway check` and of
the load, `weights` and `tensor_names` read headers, `named` checks names of other files, `wordless` checks the
tokenizer, `library` reads the library's files.
"""

from __future__ import annotations

from pathlib import Path

from gateway import ConfigError

OTHER_SIZES = "its weights have other sizes than config.json says: get both again, from one place"


def unloadable(place: Path, why: object, by: str = "transformers") -> ConfigError:
    """Return an error in one line, whatever the library's message looks like."""
    if "ignore_mismatched_sizes" in str(why):  # the message refers to a table in the log
        why = OTHER_SIZES
    return ConfigError(f"{place}: {by} cannot load this checkpoint: {' '.join(str(why).split())}")
