"""The device ledger: what each replica claims, and where it starts.

`placement` decides; the ledger records. A placed model need not be loaded yet. During a reload the old replicas keep
their claims until they have ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..devices.claims import Claim, NoFit, Placement, claims_of
from ..devices.placement import explain, plan_models

if TYPE_CHECKING:
    from ..devices.device import Device
    from ..settings.schema import PlacementSettings
    from ..spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Places:
    """Where the replicas of a model start, by claim owner; `shown` are their devices, for display."""

    by_owner: Mapping[str, Placement] = field(default_factory=dict)
    shown: tuple[str, ...] = ()


class Ledger:
    """`devices` are those of this machine; `claims` are the current claims on them."""

    def __init__(self, devices: Sequence[Device], rules: PlacementSettings) -> None:
        self.devices = devices
        self.claims: list[Claim] = []
        self._rules = rules
        self._places: dict[str, Places] = {}

    def place(self, specs: Sequence[ModelSpec]) -> dict[str, tuple[str, str]]:
        """Claim devices for every replica of these models; each model gets all its devices or none.

        Returns the models that got none, each with "impossible" or "busy" and a sentence.
        """
        unmatched, headroom = self._rules.unmatched_accelerator, self._rules.headroom
        planned = plan_models(self.devices, specs, claims=self.claims, headroom=headroom, unmatched=unmatched)
        refused: dict[str, tuple[str, str]] = {}
        for name, replicas in planned.items():
            by_owner = dict(self.places_of(name).by_owner)  # an old replica may restart while new ones load
            shown = []
            for request, outcome in replicas:
                if isinstance(outcome, NoFit):
                    refused[name] = (outcome.reason, explain(request, outcome))
                    break
                by_owner[request.owner] = outcome
                self.claims += claims_of(request, outcome)
                shown.append(",".join(device.id for device in outcome.devices) or "cpu")
            else:
                self._places[name] = Places(by_owner, tuple(shown))
        return refused

    def held_by(self, name: str) -> list[Claim]:
        """Return the claims of a model's replicas."""
        return [claim for claim in self.claims if claim.owner.rpartition("/")[0] == name]

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Release exactly these claims, compared by identity: during a reload, two equal claims may exist."""
        gone = {id(claim) for claim in claims}
        self.claims = [claim for claim in self.claims if id(claim) not in gone]

    def hold(self, claims: Sequence[Claim]) -> None:
        """Claim again what was released a moment ago."""
        self.claims += claims

    def places_of(self, name: str) -> Places:
        return self._places.get(name, Places())

    def placement_of(self, name: str, index: int) -> Placement:
        """Return where one replica starts: on the CPU if it was never placed."""
        return self.places_of(name).by_owner.get(f"{name}/{index}", Placement())

    def devices_of(self, name: str) -> list[str]:
        """Return where its replicas are, for display: one entry for each replica, device ids or "cpu"."""
        return list(self.places_of(name).shown)

    def put_back(self, name: str, places: Places) -> None:
        """Restore the places of a model after a reload has failed."""
        self._places[name] = places

    def forget(self, name: str) -> None:
        self._places.pop(name, None)
