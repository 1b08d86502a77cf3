"""Read the labels of a checkpoint from its config.json, and other small JSON objects beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway import peek_json

from . import unloadable

MOST_LABELS = 100_000  # each is a row of the weights, and a number of every answer


def object_of(place: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file, {} without the file.

    Raises:
        ConfigError: the file is something else.
    """
    try:
        found = peek_json(place / name)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise unloadable(place, f"{name} cannot be read ({error}): get it again") from error
    if not isinstance(found, dict):
        raise unloadable(place, f"{name} is not an object: get it again")
    return found


def labels_of(place: Path, config: Mapping[str, Any]) -> list[str]:
    """Return the labels in the order of the model's outputs. Without names the library numbers them."""
    named, count = config.get("id2label"), config.get("num_labels")
    if named is None:
        count = 2 if count is None else count
        if type(count) is not int or not 0 < count <= MOST_LABELS:
            raise unloadable(place, f"num_labels of config.json is {str(count)[:50]}: correct it")
        return [f"LABEL_{number}" for number in range(count)]
    try:
        by_number = {int(number): str(label) for number, label in named.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise unloadable(place, "id2label of config.json does not map numbers to labels: correct it") from error
    if not 0 < len(by_number) <= MOST_LABELS or sorted(by_number) != list(range(len(named))):
        what = f"id2label of config.json has {len(named):,} labels that are not numbered from 0 on"
        raise unloadable(place, f"{what}, or too many: correct it")
    labels = [by_number[number] for number in range(len(by_number))]
    twice = next((label for label, count in Counter(labels).items() if count > 1), None)
    if twice is not None:
        raise unloadable(place, f"id2label of config.json names two classes {twice[:100]}: give each its own name")
    return labels
