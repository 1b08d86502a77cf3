"""What was logged of requests, for tests of the access log."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

from served import PATIENCE

from gateway.telemetry.logs import JSONLines, TextLines


class Lines(logging.Handler):
    """What was logged of requests, as the two forms of the log show it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._come = threading.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._come.release()

    def events(self, count: int) -> list[dict[str, Any]]:
        """So many, which come behind the answers."""
        for _ in range(count):
            assert self._come.acquire(timeout=PATIENCE)
        assert len(self.records) == count
        return [json.loads(JSONLines().format(record)) for record in self.records]

    @property
    def texts(self) -> list[str]:
        return [TextLines().format(record) for record in self.records]
