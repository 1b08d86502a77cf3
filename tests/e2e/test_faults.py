"""Whatever a model does to its process, and whenever: its calls end as the contract says, and nobody else notices."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.testing import Gateway

from .conftest import write_models
from .faulty import (
    MODEL,
    PATIENCE,
    Ledger,
    bystander,
    is_running,
    open_files,
    resident,
    wait_for,
    workers,
    zombies,
)

DEATHS = {
    "killed": ["signal", "SIGKILL"],
    "segfault": ["signal", "SIGSEGV"],
    "exit-0": ["exit", 0],
    "exit-3": ["exit", 3],
    "liar": ["lie", "ffffffff0601000000"],
}
# Frames that no worker may send: an unknown kind, what is no msgpack, items of a call that has no answer yet.
LIES = {"kind": "000000003f01000000", "msgpack": "01000000050100000000", "second-ready": "01000000020000000080"}
BAD_LOADS = {
    "load-exit": ["exit", 0],
    "load-segfault": ["signal", "SIGSEGV"],
    "load-kill": ["signal", "SIGKILL"],
    "load-raise": ["raise", "no weights"],
    "load-hang": ["sleep", 3600],
    "load-hold": ["hold"],
    "load-stop": ["signal", "SIGSTOP"],
    "load-spin": ["spin"],
    "load-lie": ["lie", "ffffffff0601000000"],
}
LATE = "took longer than 4 s"
REASONS = {
    "load-exit": "exited",
    "load-segfault": "SIGSEGV",
    "load-kill": "SIGKILL",
    "load-raise": "no weights",
    "load-hang": LATE,
    "load-hold": LATE,
    "load-stop": LATE,
    "load-spin": LATE,
    "load-lie": "broke the protocol",
}
HANGING = {"sleeping": "sleep", "spinning": "spin", "holding": "hold"}
PLAIN = (
    "bystander",
    *DEATHS,
    *HANGING,
    "lies",
    "stopped",
    "deaf",
    "slow",
    "hungry",
    "chatty",
    "mute",
    "parent",
    "odd",
    "looping",
    "frozen",
    "silent",
    "heavy",
)
SETTINGS = """
[gateway.limits]
slots = 3
max_queue = 20
[models.stopped]
request_timeout = 1
cancel_grace = 0.5
[models.deaf]
request_timeout = 1
cancel_grace = 0.5
[models.frozen]
worker_silence = 4
[models.silent]
worker_silence = 4
[models.heavy]
load = "lazy"
worker_silence = 2
[models.slow]
slots = 1
max_queue = 2
queue_timeout = 0.5
first_item_timeout = 1
gap_timeout = 1
[models.hungry]
memory_limit = "2GiB"
[models.looping]
max_crashes = 2
"""
SETTINGS += "".join(f"[models.{name}]\nrequest_timeout = 1\ncancel_grace = 0.5\n" for name in HANGING)
SETTINGS += "".join(
    f"[models.{name}]\nrequired = false\n" + ("load_timeout = 4\n" if REASONS[name] == LATE else "")
    for name in BAD_LOADS
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("faults").resolve()
    write_models(here / "models", {name: {"model.py": MODEL} for name in (*PLAIN, *BAD_LOADS)})
    for name, step in BAD_LOADS.items():
        (here / "models" / name / "load.json").write_text(json.dumps([step]))
    (here / "models" / "heavy" / "load.json").write_text(json.dumps([["hold", 6]]))
    (here / "gateway.toml").write_text(SETTINGS)
    return here / "models"


@pytest.fixture(scope="module")
def gateway(models: Path) -> Iterator[Gateway]:
    env = {"NUM_LOAD_RETRIES_TRUSS": "0"}  # other tries within the worker add nothing but time here
    with Gateway(models, cwd=models.parent, env=env, until="settled", timeout=300) as running:
        yield running


@pytest.fixture
def ledger(gateway: Gateway) -> Iterator[Ledger]:
    """With a model beside it that is asked all the time, and that nothing may happen to."""
    with bystander(gateway, "bystander"):
        yield Ledger(gateway)
    assert gateway.process.poll() is None
    wait_for(lambda: not zombies(gateway), "every child that ended was waited for")


def is_ready_again(gateway: Gateway, models: Path, name: str, before: set[int]) -> None:
    wait_for(lambda: bool(workers(gateway, models / name) - before), f"{name} has another worker")
    wait_for(lambda: gateway.states()[name] == "ready", f"{name} is ready again")


# ── the end of a process ─────────────────────────────────────────────────────────────────────────────────────────────


def at_once(try_one: Callable[[str], None], names: Iterable[str]) -> None:
    """Each with a model of its own, all at the same time: most of what they take is waiting for new workers."""
    with ThreadPoolExecutor() as threads:
        tried = [(name, threads.submit(try_one, name)) for name in names]
    for name, one in tried:
        if (error := one.exception()) is not None:
            error.add_note(f"this was {name}")
            raise error


def test_a_death_at_any_moment_ends_every_call_with_its_error(
    gateway: Gateway, models: Path, ledger: Ledger, tmp_path: Path
) -> None:
    files = open_files(gateway.process.pid)
    at_once(lambda name: dies(gateway, models, tmp_path / name, name), DEATHS)
    wait_for(lambda: open_files(gateway.process.pid) <= files + 2, "no file is left open")


def dies(gateway: Gateway, models: Path, place: Path, name: str) -> None:
    """One call dies, one is in the middle of its stream, one before its first item, one waits for a slot."""
    place.mkdir()
    ledger = Ledger(gateway)
    go, streaming, silent = (str(place / file) for file in ("go", "streaming", "silent"))
    before = workers(gateway, models / name)
    ledger.predict("dies", name, ["wait", go], DEATHS[name])
    ledger.chat("streams", name, "a ", "b", ["touch", streaming], ["sleep", 3600])
    ledger.chat("begins", name, ["touch", silent], ["sleep", 3600])
    wait_for(lambda: Path(streaming).exists() and Path(silent).exists(), "all slots are taken")
    ledger.predict("waits", name, "never")
    wait_for(lambda: _gauge(gateway, "gateway_requests_queued", name) == 1, "one waits")
    Path(go).touch()
    ledger.check(
        dies="status 502", streams="event 200 model_crashed", begins="status 502 model_crashed", waits="status 502"
    )
    assert ledger.of("streams").value == "a b"
    retries = {call: outcome.headers.get("x-should-retry") for call, outcome in ledger.outcomes.items()}
    assert retries == {"dies": "false", "streams": None, "begins": "false", "waits": "true"}

    is_ready_again(gateway, models, name, before)
    before = workers(gateway, models / name)
    ledger.predict("sets-it-off", name, ["later", *DEATHS[name]], "idle then")
    assert str(ledger.of("sets-it-off")) == "ok 200"
    is_ready_again(gateway, models, name, before)
    ledger.predict("after", name, "well")
    assert ledger.of("after").value == "well"


def test_a_model_that_is_restarting_says_when_to_come_back(gateway: Gateway, models: Path, ledger: Ledger) -> None:
    before = workers(gateway, models / "odd")
    ledger.predict("dies", "odd", ["exit", 1])
    assert str(ledger.of("dies")) == "status 502"
    refused = []
    while not workers(gateway, models / "odd") - before:
        ledger.predict(f"early-{len(refused)}", "odd", 1)
        refused.append(ledger.of(f"early-{len(refused)}"))
    assert refused and {outcome.status for outcome in refused} <= {502, 503}
    assert all(int(outcome.headers["retry-after"]) >= 1 for outcome in refused if outcome.status == 503)
    is_ready_again(gateway, models, "odd", before)


def test_a_crash_loop_opens_the_breaker_and_says_when_the_next_try_is(
    gateway: Gateway, models: Path, ledger: Ledger
) -> None:
    for number in range(3):
        before = workers(gateway, models / "looping")
        ledger.predict(f"dies-{number}", "looping", ["exit", 1])
        assert str(ledger.of(f"dies-{number}")) == "status 502"
        if number < 2:
            is_ready_again(gateway, models, "looping", before)
    wait_for(lambda: gateway.states()["looping"] == "failed", "it is taken out")
    ledger.chat("refused", "looping", "x")
    assert str(ledger.of("refused")) == "status 503 model_unavailable"
    assert 1 <= int(ledger.of("refused").headers["retry-after"]) <= 2
    assert "x-should-retry" not in ledger.of("refused").headers


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_lies_is_replaced(gateway: Gateway, models: Path, ledger: Ledger, lie: str) -> None:
    before, memory = workers(gateway, models / "lies"), resident(gateway.process.pid)
    ledger.predict("lies", "lies", ["lie", LIES[lie]])
    ledger.check(lies="status 502")
    is_ready_again(gateway, models, "lies", before)
    assert "broke the protocol" in gateway.log
    assert resident(gateway.process.pid) - memory < 16 * 1024**2


# ── a load that goes wrong ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", BAD_LOADS)
def test_a_load_that_goes_wrong_fails_its_model_with_the_reason(
    gateway: Gateway, models: Path, ledger: Ledger, name: str
) -> None:
    assert gateway.states()[name] == "failed"
    assert workers(gateway, models / name) == set()
    ledger.chat("refused", name, "x")
    refused = ledger.of("refused")
    assert str(refused) == "status 503 model_failed"
    assert refused.headers["x-should-retry"] == "false" and "retry-after" not in refused.headers
    assert REASONS[name] not in json.dumps(refused.value), "the public body tells what the log should"
    gateway.wait_for(rf"model '{name}' failed: .*{REASONS[name]}")


# ── code that does not come to an end ────────────────────────────────────────────────────────────────────────────────


def test_a_call_that_hangs_is_504_and_its_worker_is_replaced(gateway: Gateway, models: Path, ledger: Ledger) -> None:
    def hangs(name: str) -> None:
        before, ledger = workers(gateway, models / name), Ledger(gateway)
        ledger.predict("hangs", name, [HANGING[name], 3600])
        ledger.check(hangs="status 504")
        is_ready_again(gateway, models, name, before)
        assert not any(is_running(pid) for pid in before)

    at_once(hangs, HANGING)


def test_a_stopped_worker_is_replaced_when_a_call_is_overdue(gateway: Gateway, models: Path, ledger: Ledger) -> None:
    [pid] = before = workers(gateway, models / "stopped")
    os.kill(pid, signal.SIGSTOP)
    ledger.predict("asks", "stopped", "nobody")
    ledger.chat("streams", "stopped", "nobody", X_Request_Timeout="1")
    ledger.check(asks="status 504", streams="status 504 timeout")
    is_ready_again(gateway, models, "stopped", before)
    assert not is_running(pid)


def test_callers_of_a_worker_that_stands_still_get_504_long_before_any_limit(
    gateway: Gateway, models: Path, ledger: Ledger
) -> None:
    def stands_still(name: str) -> None:
        [pid] = before = workers(gateway, models / name)
        ledger = Ledger(gateway)
        if name == "frozen":
            os.kill(pid, signal.SIGSTOP)
        ledger.predict("asks", name, ["hold"])
        ledger.chat("streams", name, ["hold"])
        began = time.monotonic()
        ledger.check(asks="status 504", streams="status 504 timeout")
        assert time.monotonic() - began < 40  # its limits are minutes
        is_ready_again(gateway, models, name, before)

    at_once(stands_still, ("frozen", "silent"))


def test_a_load_may_keep_the_interpreter_longer_than_a_call(gateway: Gateway, models: Path, ledger: Ledger) -> None:
    """As that of a large file by a library. Afterwards the same silence ends the worker."""
    began = time.monotonic()
    ledger.predict("waits", "heavy", 5)
    ledger.check(waits="ok 200")
    assert time.monotonic() - began >= 6
    before = workers(gateway, models / "heavy")
    assert len(before) == 1
    ledger.predict("hangs", "heavy", ["hold"])
    ledger.check(waits="ok 200", hangs="status 504")
    is_ready_again(gateway, models, "heavy", before)


def test_a_gateway_that_was_stopped_kills_nobody_for_it(
    gateway: Gateway, models: Path, ledger: Ledger, tmp_path: Path
) -> None:
    """The answers were given in time; they lie in the sockets."""
    before = workers(gateway, models / "deaf") | workers(gateway, models / "stopped")
    for name in ("deaf", "stopped"):
        ledger.predict(name, name, ["touch", str(tmp_path / name)], ["sleep", 0.5], "in time")
    wait_for(lambda: all((tmp_path / name).exists() for name in ("deaf", "stopped")), "both run")
    os.kill(gateway.process.pid, signal.SIGSTOP)
    try:
        signal.sigtimedwait([], 4)  # longer than its limits, its grace, and what it takes to notice
    finally:
        os.kill(gateway.process.pid, signal.SIGCONT)
    ledger.check(deaf="ok 200", stopped="ok 200")
    assert workers(gateway, models / "deaf") | workers(gateway, models / "stopped") == before


def test_time_limits_of_streams_and_queues_are_told_apart(gateway: Gateway, ledger: Ledger, tmp_path: Path) -> None:
    running, leave = tmp_path / "running", tmp_path / "leave"
    ledger.chat("late", "slow", "a", ["touch", str(running)], ["wait", str(leave)], "b")
    wait_for(running.exists, "the slot is taken")
    ledger.predict("waits", "slow", 1)
    ledger.chat("gives-up", "slow", 1, X_Request_Timeout="0.1")
    assert [ledger.of(name).status for name in ("waits", "gives-up")] == [503, 503]
    assert ledger.of("late").value == "a"
    leave.touch()
    wait_for(lambda: _gauge(gateway, "gateway_requests_in_flight", "slow") == 0, "the slot is free again")
    ledger.chat("first", "slow", ["sleep", 1.5], "too late")
    assert str(ledger.of("first")) == "status 504 timeout"
    ledger.check(
        **{
            "late": "event 200 timeout",
            "waits": "status 503",
            "gives-up": "status 503 queue_timeout",
            "first": "status 504 timeout",
        }
    )


# ── memory, output, other processes ──────────────────────────────────────────────────────────────────────────────────


def test_a_model_that_allocates_too_much_fails_its_call_and_costs_the_gateway_nothing(
    gateway: Gateway, models: Path, ledger: Ledger
) -> None:
    before, memory = workers(gateway, models / "hungry"), resident(gateway.process.pid)
    ledger.predict("greedy", "hungry", ["allocate", 1 << 40])
    ledger.predict("modest", "hungry", ["allocate", 1 << 20])
    ledger.check(greedy="status 500", modest="ok 200")
    assert workers(gateway, models / "hungry") == before
    assert resident(gateway.process.pid) - memory < 16 * 1024**2


def test_megabytes_of_output_without_a_line_break_hold_up_nobody(gateway: Gateway, ledger: Ledger) -> None:
    memory = resident(gateway.process.pid)
    ledger.chat("prints", "chatty", "a", ["print", 50_000_000], "b")
    ledger.check(prints="ok 200")
    assert ledger.of("prints").value == "ab"
    assert resident(gateway.process.pid) - memory < 32 * 1024**2


def test_a_model_without_output_serves_on(gateway: Gateway, models: Path, ledger: Ledger) -> None:
    before = workers(gateway, models / "mute")
    ledger.predict("closes", "mute", ["mute"], "silent")
    assert ledger.of("closes").value == "silent"
    ledger.predict("raises", "mute", ["raise", "whose traceback goes nowhere"])
    ledger.check(closes="ok 200", raises="status 500")
    ledger.predict("goes-on", "mute", "still here")
    assert ledger.of("goes-on").value == "still here"
    assert workers(gateway, models / "mute") == before


def test_processes_of_a_model_end_with_it(gateway: Gateway, models: Path, ledger: Ledger) -> None:
    before = workers(gateway, models / "parent")
    ledger.predict("starts", "parent", ["start"])
    child = ledger.of("starts").value
    assert is_running(child)
    ledger.predict("dies", "parent", ["exit", 1])
    ledger.check(starts="ok 200", dies="status 502")
    wait_for(lambda: not is_running(child), "the child is gone")
    is_ready_again(gateway, models, "parent", before)


# ── answers that are none ────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_model_raises_and_what_has_no_form_are_errors_of_that_call(gateway: Gateway, ledger: Ledger) -> None:
    ledger.predict("raises", "bystander", ["raise", "secret"])
    ledger.predict("object", "bystander", ["object"])
    ledger.chat("raises-late", "bystander", "a", ["raise", "secret"])
    ledger.chat("raises-first", "bystander", ["raise", "secret"])
    ledger.chat("object-late", "bystander", "a", ["object"])
    ledger.chat("not-a-number", "bystander", ["nan"], stream=False)
    ledger.check(
        **{
            "raises": "status 500",
            "object": "status 500",
            "raises-late": "event 200 model_error",
            "raises-first": "status 500 model_error",
            "object-late": "event 200 invalid_model_output",
            "not-a-number": "status 500 invalid_model_output",
        }
    )
    assert not any("secret" in str(outcome.value) for outcome in ledger.outcomes.values())


def _gauge(gateway: Gateway, metric: str, model: str) -> float:
    import urllib.request

    with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=PATIENCE) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f'{metric}{{model="{model}"'))
