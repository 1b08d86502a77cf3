"""For tests of models and plugins: a real gateway over a directory, in a process of its own.

    from gateway.testing import Gateway

    with Gateway("models/") as gateway:
        client = OpenAI(base_url=f"{gateway.url}/v1", api_key="unused")

As a pytest plugin (`pytest_plugins = ["gateway.testing"]` in conftest.py) it gives the fixture `start_gateway`, which
does the same and stops what it started at the end of the session.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, Self

PAUSE = 0.02  # seconds between two looks at the readiness of another process
Until = Literal["ready", "settled", "accepting", "spawned"]


class Gateway:
    """A running `gateway serve`. Leaving the block stops it.

    `until` is how far the start has got when the block begins: every model is `ready`, or has at least `settled` in
    some state, or the gateway is `accepting` requests. `options` are those of the command, `env` is added to ours.
    """

    def __init__(
        self,
        *models: str | Path,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        until: Until = "ready",
        timeout: float = 60.0,
    ) -> None:
        self.url = ""
        self._until, self._timeout = until, timeout
        self._key = {**os.environ, **(env or {})}.get("GATEWAY_API_KEY")
        self._lines: list[str] = []
        self._changed = threading.Condition()
        roots = [part for root in models for part in ("--models", str(root))]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gateway", "serve", "--port", "0", *roots, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            self._wait_until(self._until)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    # ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def log(self) -> str:
        """Everything that it has written, stdout and stderr together."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, timeout: float | None = None) -> re.Match[str]:
        """Return the first match of a regular expression in the log, as soon as it is there.

        Raises:
            TimeoutError: it was not there in time, or the process has ended without it.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        with self._changed:
            while (found := re.search(pattern, "".join(self._lines))) is None:
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise TimeoutError(f"the gateway did not write {pattern!r}; its log:\n{''.join(self._lines)}")
                self._changed.wait(min(left, 0.5))
        return found

    def states(self) -> dict[str, str]:
        """The state of each model that is seen with `GATEWAY_API_KEY`; without a key, where one is needed, of none."""
        return dict(self._readiness()["models"])

    def _readiness(self) -> dict[str, Any]:
        asked = urllib.request.Request(f"{self.url}/readyz", headers={"x-api-key": self._key} if self._key else {})
        try:
            with urllib.request.urlopen(asked, timeout=10) as response:
                body = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                body = json.load(error)
        return dict(body)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def reason(self, name: str) -> str:
        """Why a model has failed, as the log of the gateway says: clients are not told."""
        return self.wait_for(rf"model '{re.escape(name)}' failed: (.*)")[1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status; that of an earlier end if there was one."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit status."""
        try:
            status = self.process.wait(self._timeout if timeout is None else timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self._reader.join(5)
        return status

    def _wait_until(self, until: Until) -> None:
        if until == "spawned":
            return
        self.url = self.wait_for(r"Serving on (https?://\S+)").group(1)
        if until == "accepting":
            return
        deadline = time.monotonic() + self._timeout
        while self._loads(found := self._readiness()):
            if time.monotonic() > deadline:
                states = found["models"]
                raise TimeoutError(f"models still load after {self._timeout:g} s: {states}; the log:\n{self.log}")
            time.sleep(PAUSE)
        if until == "ready" and ("failed" in found["models"].values() or (not found["models"] and self._has_failed())):
            raise RuntimeError(f"not every model is ready: {found['models']}; the log:\n{self.log}")

    def _loads(self, found: Mapping[str, Any]) -> bool:
        """Whether a model loads. Where only those with a key are told, the gateway's own state and its log say so."""
        if found["models"]:
            return "loading" in found["models"].values()
        return found["status"] == "not ready" and not self._has_failed()

    def _has_failed(self) -> bool:
        return re.search(r"model '[^']+' failed", self.log) is not None

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()


if "pytest" in sys.modules:  # as a plugin; nobody else needs pytest
    import pytest

    @pytest.fixture(scope="session")
    def start_gateway() -> Iterator[Callable[..., Gateway]]:
        """A function like `Gateway(…)`, whose gateways have started when it returns, and end with the session."""
        started: list[Gateway] = []

        def start(*models: str | Path, **options: object) -> Gateway:
            gateway = Gateway(*models, **options)  # type: ignore[arg-type]
            started.append(gateway)
            return gateway.__enter__()

        yield start
        for gateway in started:
            gateway.stop()
