"""Test helper for models and plugins: a real gateway over a directory, in its own process.

    from gateway.testing import Gateway

    with Gateway("models/") as gateway:
        client = OpenAI(base_url=f"{gateway.url}/v1", api_key="unused")

As a pytest plugin (`pytest_plugins = ["gateway.testing"]` in conftest.py) it provides the fixture `start_gateway`,
which starts gateways the same way and stops them at the end of the session.
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

PAUSE = 0.02  # seconds between two requests for the readiness of the gateway
Until = Literal["ready", "settled", "accepting", "spawned"]


class Gateway:
    """A running `gateway serve`. Leaving the `with` block stops it.

    `until` is how far the start must be when the block begins: every model is `ready`; every model has `settled`, which
    includes failed; the gateway is `accepting` requests; or the process is `spawned`. `options` are options of the
    command. `env` is added to the current environment.
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

    # ── output and state ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def log(self) -> str:
        """The whole output of the gateway so far, stdout and stderr together."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, timeout: float | None = None) -> re.Match[str]:
        """Wait until a regular expression matches in the log, and return the first match.

        Raises:
            TimeoutError: no match in time, or the process ended without one.
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
        """Return the state of each model that `GATEWAY_API_KEY` may see; {} if a key is needed and none is set."""
        return dict(self._readiness()["models"])

    def _readiness(self) -> dict[str, Any]:
        asked = urllib.request.Request(f"{self.url}/readyz", headers={"x-api-key": self._key} if self._key else {})
        try:
            with urllib.request.urlopen(asked, timeout=self._timeout) as response:
                body = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                body = json.load(error)
        return dict(body)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def reason(self, name: str) -> str:
        """Return why a model failed, from the log of the gateway. Clients do not get the reason."""
        return self.wait_for(rf"model '{re.escape(name)}' failed: (.*)")[1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit status, also if the process had ended before."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """Kill the process, as in a crash."""
        self.process.kill()
        self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end and return the exit status."""
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
        """Whether a model is loading. If models are hidden without a key, the overall state and the log tell."""
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


if "pytest" in sys.modules:  # as a pytest plugin; other uses do not need pytest
    import pytest

    @pytest.fixture(scope="session")
    def start_gateway() -> Iterator[Callable[..., Gateway]]:
        """Return a function like `Gateway(…)` that starts gateways. They are stopped at the end of the session."""
        started: list[Gateway] = []

        def start(*models: str | Path, **options: object) -> Gateway:
            gateway = Gateway(*models, **options)  # type: ignore[arg-type]
            started.append(gateway)
            return gateway.__enter__()

        yield start
        for gateway in started:
            gateway.stop()
