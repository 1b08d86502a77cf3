"""The record that a model keeps of each replica, updated from the events of its supervisor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..admission.queue import Seat
from ..runners.replica import Replica
from ..spec import State
from ..wording import in_state
from .supervisor import Event, Launched, LoadBegan, Loaded, Lost, PhaseChanged, Supervisor

if TYPE_CHECKING:
    from .loaded_files import Files


@dataclass(slots=True, eq=False)
class Member:
    """One replica; `phase` is its state. Times are those of the event loop's clock."""

    index: int
    load_began: float
    supervisor: Supervisor = field(init=False)
    phase: State = "loading"
    reason: str = ""  # why it is restarting or failed
    replica: Replica | None = None  # once it is ready
    loading: Replica | None = None
    files: Files = field(default_factory=dict)  # the files at the start of its last load
    next_try: float = 0.0
    seat: Seat | None = None  # its seat in the limiter, while it takes calls

    def note(self, event: Event) -> None:
        self.loading = None
        match event:
            case LoadBegan(at):
                self.load_began = at
            case Launched(replica):
                self.loading = replica
            case Loaded(replica, files):
                self.replica, self.files = replica, files
            case Lost() if self.phase != "draining":  # a draining one is stopped with the others
                self.replica = None
            case PhaseChanged(phase, reason, next_try):
                self.phase, self.reason, self.next_try = phase, reason, next_try

    def __str__(self) -> str:
        """Return its number and state in words, for messages about a replica that has a problem."""
        return f"its replica {self.index} {in_state(self.phase)}" + (f": {self.reason}" if self.reason else "")
