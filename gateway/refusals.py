"""Why a model takes no calls in its present state, and when its clients may come back."""

from __future__ import annotations

from .errors import Draining, GatewayError, LoadFailed, Loading, Unavailable
from .spec import State

MAX_RETRY_AFTER = 110.0  # seconds; above 120 the OpenAI SDK does not retry at all
UNKNOWN_LOAD = 5.0  # seconds a first load is said to take while nothing was measured


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
    """The error for a call that meets a model which is not ready.

    `loading_for` and `next_try` are seconds from now, `expected_load` what the last good load took; `reason` is shown
    as it is, empty when it is not for clients; `ending` says what ends it, for operators.
    Where Truss says only that it is not ready, the why stands behind that, unless `strict` wants its words alone.
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
    """The error of the calls of a model that ends."""
    return Draining(f"model '{name}' is shutting down", retry_after=1, cause=cause)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 1.0), MAX_RETRY_AFTER)
