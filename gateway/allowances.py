"""What gateway.toml allows one model that others may not: code in its weights, links out of it, its callers' keys.

`gateway check`, `gateway serve` and `gateway doctor` each print a line for every one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .wording import table_of

if TYPE_CHECKING:
    from .settings import Settings
    from .spec import ModelSpec

MEANING = {
    "allow_pickle": "its pickle files are code, which runs when they are opened",
    "trust_remote_code": "code that comes with its weights is run",
    "allow_links": "links in its directory may lead to any file that you can read",
    "forward_credentials": "it is handed the keys, tokens and cookies of its callers, which open the gateway",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    model: str
    key: str

    @property
    def what(self) -> str:
        return f"{table_of(self.model)} {self.key} = true: {MEANING[self.key]}"


def allowances(settings: Settings, specs: Iterable[ModelSpec]) -> Iterator[Allowance]:
    """Those of the models that are served, in order."""
    for spec in specs:
        own = settings.model(spec.name)
        for key in MEANING:
            if getattr(own, key):
                yield Allowance(model=spec.name, key=key)
