"""Where everything that can be fetched or made again is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """GATEWAY_CACHE_DIR, or a directory of ours in the user's cache; not made yet."""
    if ours := os.environ.get("GATEWAY_CACHE_DIR"):
        return Path(ours).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-gateway"


def use(directory: Path | None) -> None:
    """Make it the `cache_dir` of this process and of those that it starts; None leaves it as it is."""
    if directory is not None:
        os.environ["GATEWAY_CACHE_DIR"] = str(directory.expanduser().absolute())
