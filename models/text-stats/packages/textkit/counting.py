import re
from collections import Counter


def count_words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[\w']+", text.lower()))


def count_sentences(text: str) -> int:
    return len([part for part in re.split(r"[.!?]+", text) if part.strip()])


def longest_word(words: Counter[str]) -> str:
    return max(words, key=len, default="")
