"""Hold whatever is cleared beside others in its rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.files import clearing


@contextmanager
def held() -> Iterator[None]:
    """After its first entry, until this is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clearing, "TURN", 1)
        with clearing._resting:
            yield
