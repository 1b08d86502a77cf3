"""The state of a model, derived from the states of its replicas, and the log lines about it.

unloaded ──start──> loading ──> ready ──stop──> draining ──> unloaded
                       │          │ all replicas lost
                       │          └──> restarting ──> ready
                       └──> failed  <── crash loop: tries after 1, 2, 4 … 60 s
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from ..spec import State
from ..wording import counted, in_state

log = logging.getLogger("gateway.models")

LEVELS: Mapping[State, int] = {"restarting": logging.WARNING, "failed": logging.ERROR}
BEST_FIRST: tuple[State, ...] = ("ready", "draining", "loading", "restarting", "failed")


def state_of(phases: Collection[State]) -> State:
    """Return the best of the replica states."""
    return next((phase for phase in BEST_FIRST if phase in phases), "unloaded")


def explain(name: str, state: State, reason: str, slots: int, load_seconds: float | None) -> str:
    """Return the state as a sentence."""
    if state == "ready":
        loaded = f", loaded in {load_seconds:.1f} s" if load_seconds is not None else ""
        return f"model '{name}' is ready with {counted(slots, 'slot')}{loaded}"
    return f"model '{name}' {in_state(state)}" + (f": {reason}" if reason else "")


def log_change(name: str, state: State, previous: State, text: str) -> None:
    extra = {"model": name, "state": state, "previous": previous}
    log.log(LEVELS.get(state, logging.INFO), "%s", text, extra=extra)


def log_ill(name: str, state: State, phase: State, ill: str) -> None:
    """Log that one replica has a problem while the model as a whole goes on."""
    text = f"model '{name}' {in_state(state)} still, but {ill}"
    log.log(LEVELS.get(phase, logging.INFO), "%s", text, extra={"model": name})
