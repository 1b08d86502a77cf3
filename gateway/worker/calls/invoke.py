"""Call a method of the model from a task, on the event loop or on a thread."""

from __future__ import annotations

import inspect
from typing import Any

from ..loading.descriptor import Method
from .threads import Pool


async def invoke(method: Method, pool: Pool, value: Any = None, request: Any = None) -> Any:
    """Call a method and await its result if it is awaitable. A generator is not started."""
    arguments = method.arguments(value, request)
    if method.kind == "async":
        return await method.function(*arguments)
    if method.kind == "sync":
        result = await pool.run(method.function, *arguments)
        return await result if inspect.isawaitable(result) else result
    return method.function(*arguments)
