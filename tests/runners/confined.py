"""For tests of strict workers, on machines that can confine one and on machines that cannot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from confining import why_not

from gateway.runners.replica import LoadError

from .started import Started, write

Test = Callable[[Path], Awaitable[None]]


def confined(test: Test) -> Test:
    """A test of what a strict worker is kept from. Where none can be had the promise is another: that it does not run.

    Then that is what the test sees to; it is never left out.
    """
    return _is_refused if why_not() else test


async def _is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "m", {"model/model.py": "open('ran', 'w')\nclass Model: ..."})
    found = Started(root, spec={"sandbox": "strict"})
    with pytest.raises(LoadError, match='sandbox = "strict" is not available') as caught:
        await found.replica.start()
    assert why_not() in str(caught.value)
    assert caught.value.fatal
    assert not (root / "ran").exists()
