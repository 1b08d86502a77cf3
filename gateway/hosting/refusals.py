"""Errors for calls to a model that is not ready (503 with Retry-After, and others), chosen by the model's state."""

from __future__ import annotations

from ..errors import Draining, GatewayError, LoadFailed, Loading, Unavailable
from ..spec import State

MAX_RETRY_AFTER = 110.0  # seconds; above 120 the OpenAI SDK does not retry at all
UNKNOWN_LOAD = 5.0  # seconds; the estimate for a first load, before one was measured


def refusal(
    name: str,
    state: State,
    *,
    loading_for: float,
    expected_load: float | None,
    next_try: float,
    reason: str,
    ending: str = "",
    strict: bool = False,
) -> GatewayError:
    """Return the error for a call to a model that is not ready.

    `loading_for` and `next_try` are seconds from now; `expected_load` is the duration of the last successful load.
    `reason` is shown as given; it is empty if clients must not see it. `ending` is the cause of a stop, for operators.

    Truss only says that the model is not ready. The reason is added to that text, unless `strict` asks for Truss's own
    words.
    """
    error = _refusal(name, state, loading_for, expected_load, next_try, reason, ending)
    why = "" if strict else f": {error.message}"
    error.truss_message = f"Model with name {name} is not ready{why}."
    return error


def _refusal(
    name: str, state: State, loading_for: float, expected_load: float | None, next_try: float, reason: str, ending: str
) -> GatewayError:
    if state == "loading":
        left = (UNKNOWN_LOAD if expected_load is None else expected_load) - loading_for
        return Loading(f"model '{name}' is loading", retry_after=_bounded(left))
    if state == "draining":
        return stopped(name, ending)
    if state == "unloaded":
        return Unavailable(
            f"model '{name}' is not loaded; `gateway load {name}` loads it",
            retry_after=_bounded(next_try),
            cause="unloaded",
        )
    if state == "restarting":
        text = f"model '{name}' is restarting after a crash"
        return Unavailable(text, retry_after=_bounded(next_try), cause="restarting")
    if next_try > 0:
        text = f"model '{name}' keeps crashing; the next try is due soon"
        return Unavailable(text, retry_after=_bounded(next_try), cause="crashing")
    detail = f": {reason}" if reason else f"; `gateway ps` and `gateway logs {name}` say why"
    return LoadFailed(f"model '{name}' could not be loaded{detail}")


def stopped(name: str, cause: str) -> Draining:
    """Return the error for the calls of a model that is being stopped."""
    return Draining(f"model '{name}' is shutting down", retry_after=1, cause=cause)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 1.0), MAX_RETRY_AFTER)
