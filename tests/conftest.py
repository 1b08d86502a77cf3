"""For all tests: hypothesis sets no time limits, and each session has its own directories.

`make test` runs several sessions at once, and the machine may be busy and run other gateways.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from gateway.telemetry.logs import Stderr
from gateway.telemetry.redaction import KNOWN

pytest.register_assert_rewrite("wire_errors")  # its rows assert, and belong to tests of two folders

collect_ignore = ["clients"]  # they run in environments of their own: `make test-clients`

settings.register_profile("gateway", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("gateway"), derandomize=True)  # of each run the same examples
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gateway"))


# Files that ask the gateway over all of models/, whose start imports torch in three processes: one session starts it.
WITH_DEMO_MODELS = frozenset(
    f"tests/e2e/test_{name}.py"
    for name in (
        "anthropic_sdk",
        "api_document",
        "completions_sdk",
        "demo_models",
        "responses_sdk",
        "structured_sdk",
        "tools_and_thinking",
    )
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist loadfile` has it, but the files above are one piece of work."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "the demo models" if file in WITH_DEMO_MODELS else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_make_parametrize_id(val: object) -> str | None:
    """The sessions of `make test` must collect the same names, and compressed bytes contain the time."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) and not val.isascii() else None


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A command that a test runs in this process sets up the log of its gateway, which ends with the test."""
    root, ours = logging.getLogger(), logging.getLogger("gateway")
    levels = root.level, ours.level
    yield
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, Stderr)]


@pytest.fixture(autouse=True)
def own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test has hidden from the log of its gateway ends with it: other tests would search for it in each line."""
    monkeypatch.setattr(KNOWN, "_known", set(KNOWN._known))
    monkeypatch.setattr(KNOWN, "_search", KNOWN._search)


@pytest.fixture(scope="session", autouse=True)
def own_directories() -> Iterator[None]:
    """Temporary files, admin sockets and caches that no other gateway sees. A gateway that starts removes what killed
    ones have left in the first, and `gateway ps` lists those that it finds in the second.

    Not below `tmp_path`: the path of a socket has at most 107 bytes, and models create sockets deep in there.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    uv = os.environ.get("UV_CACHE_DIR", str(caches / "uv"))  # shared, so that nothing is downloaded in each session
    with (
        tempfile.TemporaryDirectory(prefix="gw-", ignore_cleanup_errors=True) as own,
        pytest.MonkeyPatch.context() as patch,
    ):
        for variable, folder in (("TMPDIR", "tmp"), ("XDG_RUNTIME_DIR", "run"), ("XDG_CACHE_HOME", "cache")):
            place = Path(own, folder)
            place.mkdir(mode=0o700)
            patch.setenv(variable, str(place))
        patch.setattr(tempfile, "tempdir", None)  # so that TMPDIR is read again
        patch.setenv("UV_CACHE_DIR", uv)
        yield
