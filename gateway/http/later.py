"""Litestar's app, built when the gateway accepts requests already: by `lifetime.py`, or by a request that is earlier.

Building it takes as long as everything else that the gateway does at its start, so it happens on a thread, and the
paths of models never wait for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any


class Later:
    """An ASGI app that is built once."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self._app: Any = None
        self._building = threading.Lock()

    def build(self) -> Any:
        """Return the app, built now unless it has been."""
        with self._building:
            if self._app is None:
                self._app = self._build()
            return self._app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self._app
        if app is None:
            app = await asyncio.to_thread(self.build)
        await app(scope, receive, send)
