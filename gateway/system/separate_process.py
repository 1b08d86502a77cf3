"""Run risky functions in a forked process, because libraries that parse untrusted files may use any memory and time.

The process is forked for the first question and answers later ones too. So it imports a framework once, and this
process never does. If it uses too much memory or time it is killed, and the next question starts a new one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

LOOK = 0.02  # seconds between two checks of its memory, which may grow by some hundred MB meanwhile
PR_SET_PDEATHSIG = 1
FIRST_TO_GO = "1000"  # OOM score: it is killed first when the machine runs out of memory
NUMBER, LENGTH = 4, 8  # bytes of a question, and of the length before an answer


class Lost(Exception):
    """There is no answer; the text says why."""


class Late(Lost):
    """It took too long; earlier questions cannot be the reason."""


class Apart:
    """A process that answers questions: it calls `answer` with the number given to `ask`.

    `memory` is the limit in bytes beyond what it has after the fork. Only its own memory counts; system limits would
    also count mapped files.
    """

    def __init__(self, answer: Callable[[int], bytes], *, memory: int, seconds: float) -> None:
        self._answer, self._memory, self._seconds = answer, memory, seconds
        self._pid = 0
        self._questions = self._answers = -1  # our ends of two pipes
        self._held = 0  # bytes at its start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, question: int) -> bytes:
        """Return the answer.

        Raises:
            Lost: it took too much memory or time, or died.
        """
        is_fresh = not self._pid
        try:
            return self._ask(question)
        except Late:
            raise
        except Lost:
            if is_fresh:
                raise
        return self._ask(question)  # a fresh process, without leftovers of earlier questions

    def _ask(self, question: int) -> bytes:
        if not self._pid:
            self._begin()
        deadline = time.monotonic() + self._seconds
        try:
            os.write(self._questions, question.to_bytes(NUMBER, "big"))
            size = int.from_bytes(self._read(LENGTH, deadline), "big")
            return self._read(size, deadline)
        except BrokenPipeError:
            raise self._died() from None
        except BaseException:
            self._end()
            raise

    def _read(self, size: int, deadline: float) -> bytes:
        found = b""
        while len(found) < size:
            if not select.select([self._answers], [], [], LOOK)[0]:
                if time.monotonic() > deadline:
                    raise Late(f"not within {self._seconds:g} s")
                if self._memory_of(self._pid) - self._held > self._memory:
                    raise Lost(f"not within {self._memory >> 20:,} MB of memory")
                continue
            if not (block := os.read(self._answers, size - len(found))):
                raise self._died()
            found += block
        return found

    def _died(self) -> Lost:
        code = self._end()
        return Lost(
            f"the process that did was ended by {signal.Signals(-code).name}" if code < 0 else "it was given up"
        )

    def _begin(self) -> None:
        its_questions, self._questions = os.pipe()
        self._answers, its_answers = os.pipe()
        us = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            with contextlib.suppress(BaseException):  # an exception in the child must not reach the caller
                os.close(self._questions)
                os.close(self._answers)
                self._serve(us, its_questions, its_answers)
            os._exit(1)
        os.close(its_questions)
        os.close(its_answers)
        self._held = self._memory_of(self._pid)

    def _serve(self, parent: int, questions: int, answers: int) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            with contextlib.suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
        while os.getppid() == parent and (question := os.read(questions, NUMBER)):
            said = memoryview(self._answer(int.from_bytes(question, "big")))
            said = memoryview(len(said).to_bytes(LENGTH, "big") + said)
            while said:
                said = said[os.write(answers, said) :]

    def _end(self) -> int:
        """Kill it. Returns its exit status; negative for a signal."""
        if not self._pid:
            return 0
        os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        os.close(self._questions)
        os.close(self._answers)
        return os.waitstatus_to_exitcode(status)

    @staticmethod
    def _memory_of(pid: int) -> int:
        """Return the bytes that a process holds for itself: resident memory without mapped files."""
        try:
            _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
        except (OSError, ValueError):  # it has ended
            return 0
        return (resident - shared) * resource.getpagesize()
