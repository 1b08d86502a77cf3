"""Numbers and names of types within a sentence: "1 call", "2 calls", "an int", "a UUID"."""

from __future__ import annotations

# Spelt out letter by letter, these begin with a vowel: "an HTTPError", "an NDArray".
_SPOKEN_WITH_A_VOWEL = frozenset("AEFHILMNORSX")
_SPOKEN_WITH_A_CONSONANT = ("uni", "use", "usa", "uti", "uint", "uuid", "uri", "url", "ufunc", "eu", "one")


def counted(number: int, noun: str, plural: str = "") -> str:
    """ "1 call", "2 calls"; `plural` is for nouns that do more than take an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def with_article(name: str) -> str:
    """A name, such as that of a type, after "a" or "an" as it is spoken."""
    plain = name.lstrip("_")
    if len(plain) > 1 and plain[:2].isupper():
        is_vowel = plain[0] in _SPOKEN_WITH_A_VOWEL
    else:
        low = plain.lower()
        is_vowel = low.startswith(("a", "e", "i", "o", "u", "nd")) and not low.startswith(_SPOKEN_WITH_A_CONSONANT)
    return f"{'an' if is_vowel else 'a'} {name}"


def a_type(value: object) -> str:
    """What a value is: "an int", "a str"."""
    return with_article(type(value).__name__)
