"""The state of a model follows from its replicas, and its history from their events."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.hosting.load_history import History
from gateway.hosting.states import BEST_FIRST, explain, state_of
from gateway.hosting.supervisor import Loaded, NotLoaded
from gateway.spec import State


def test_a_model_is_as_well_as_its_best_replica() -> None:
    for place, best in enumerate(BEST_FIRST):
        for other in BEST_FIRST[place:]:
            assert state_of([other, best]) == state_of([best, other]) == best


def test_without_a_replica_it_is_unloaded() -> None:
    assert state_of([]) == state_of(["unloaded"]) == "unloaded"


@pytest.mark.parametrize(
    ("state", "reason", "sentence"),
    [
        ("ready", "", "model 'm' is ready with 2 slots, loaded in 1.5 s"),
        ("failed", "no module named 'x'", "model 'm' failed: no module named 'x'"),
        ("loading", "", "model 'm' is loading"),
    ],
)
def test_a_state_is_told_in_a_sentence(state: State, reason: str, sentence: str) -> None:
    assert explain("m", state, reason, 2, 1.5) == sentence


def test_loads_and_restarts_are_counted_by_how_and_why() -> None:
    history, replica = History(), object()
    assert (history.restarts, history.last_load, history.results) == (0, None, {})
    given: Any = replica
    for seconds in (2.0, 0.5):
        history.note(Loaded(given, given, seconds))
    history.note(NotLoaded())
    for why in ("crash", "crash", "frozen"):
        history.restarts_for(why)
    assert history.results == {"ok": 2, "error": 1}
    assert history.last_load == 0.5
    assert (history.restarts, history.restart_reasons) == (3, {"crash": 2, "frozen": 1})
