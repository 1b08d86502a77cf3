"""Permissions that gateway.toml gives one model: code in its weights, links out of its directory, its callers' keys.

`gateway check`, `gateway serve` and `gateway doctor` print a line for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..wording import table_of

if TYPE_CHECKING:
    from ..spec import ModelSpec
    from .schema import Settings

MEANING = {
    "allow_pickle": "opening its pickle files runs code in them",
    "trust_remote_code": "runs code that comes with its weights",
    "allow_links": "links in its directory and in its weights may lead to any file that you can read",
    "forward_credentials": "receives the keys, tokens and cookies of its callers, which give access to the gateway",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    model: str
    key: str

    @property
    def what(self) -> str:
        return f"{table_of(self.model)} {self.key} = true: {MEANING[self.key]}"


def allowances(settings: Settings, specs: Iterable[ModelSpec]) -> Iterator[Allowance]:
    """Yield the allowances of the models that are served, in order."""
    for spec in specs:
        own = settings.model(spec.name)
        for key in MEANING:
            if getattr(own, key):
                yield Allowance(model=spec.name, key=key)
