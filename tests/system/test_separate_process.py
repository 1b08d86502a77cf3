"""A process of its own for what may take any memory and time."""

from __future__ import annotations

import mmap
import os
import select
import signal
import time

import pytest

from gateway.system.separate_process import Apart, Late, Lost

MB = 1 << 20
LONG = 60  # seconds that a question takes which is ended long before
left: list[mmap.mmap] = []  # what questions leave in the memory of the process that answers
heard, told_to = os.pipe()  # a byte for each time that question 3 is asked, whichever process it is


def of_its_own(size: int) -> mmap.mmap:
    """Memory that it has held nowhere before: an allocator would hand out what the tests before this one have freed."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(size // MB):  # in small pieces: a copy of the whole would count too
        memory.write(b"x" * MB)
    return memory


def answer(question: int) -> bytes:
    if question == 1:
        return b"x" * MB
    if question == 2:  # more than it may have, and more than one look at it
        left.append(of_its_own(64 * MB))
        time.sleep(LONG)
    if question == 3:
        os.write(told_to, b"3")
        time.sleep(LONG)
    if question == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    if question == 5:
        raise ValueError("of which nobody here is told")
    if question == 6:  # three quarters of what it may have, each time
        left.append(of_its_own(24 * MB))
        time.sleep(0.5)  # for more than one look at its memory: a look has no event to wait for
    return str(os.getpid()).encode()


def times_asked() -> bytes:
    """What has come since the last time."""
    return os.read(heard, 100) if select.select([heard], [], [], 0)[0] else b""


def test_one_process_answers_all_questions_and_it_is_not_this_one() -> None:
    with Apart(answer, memory=64 * MB, seconds=30) as apart:
        first = apart.ask(0)
        assert apart.ask(1) == b"x" * MB
        assert apart.ask(0) == first != str(os.getpid()).encode()
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)


@pytest.mark.parametrize(
    ("question", "told", "seconds"),
    [
        (2, "not within 32 MB of memory", 30.0),
        (3, "not within 3 s", 3.0),
        (4, "ended by SIGKILL", 30.0),
        (5, "given up", 30.0),
    ],
)
def test_a_question_that_it_comes_to_harm_by_is_told_and_the_next_is_answered(
    question: int, told: str, seconds: float
) -> None:
    with Apart(answer, memory=32 * MB, seconds=seconds) as apart:
        before = apart.ask(0)
        with pytest.raises(Lost, match=told):
            apart.ask(question)
        assert apart.ask(0) not in (before, str(os.getpid()).encode())


def test_what_earlier_questions_have_left_is_no_fault_of_the_next() -> None:
    with Apart(answer, memory=32 * MB, seconds=30) as apart:
        assert len({apart.ask(6) for _ in range(3)}) == 3


def test_who_takes_too_long_is_not_asked_again() -> None:
    with Apart(answer, memory=32 * MB, seconds=3) as apart:
        before = apart.ask(0)
        times_asked()
        with pytest.raises(Late):
            apart.ask(3)
        assert times_asked() == b"3"
        assert apart.ask(0) != before
