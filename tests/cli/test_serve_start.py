"""What the start of the gateway says of models before any of them is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from gateway.cli.options import settings_of
from gateway.cli.serve import _find_models

SOURCE = "import os\nclass Model:\n    def predict(self, x):\n        return os.environ['NO_SUCH_KEY_HERE']\n"


def test_a_variable_that_a_model_will_miss_is_a_warning_with_its_line(
    run: Callable[..., Result], models: Callable[..., Path], capfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    models({"m/model.py": SOURCE, "other/model.py": SOURCE.replace("os.environ['NO_SUCH_KEY_HERE']", "os.getenv('X')")})
    settings = settings_of(None)
    _find_models(settings, [], reload=False)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("Warning: m: model.py:4: NO_SUCH_KEY_HERE is needed and will not be there")
    assert "[models.m.environment]" in line
    _find_models(replace(settings, gateway=replace(settings.gateway, log_format="json")), [], reload=False)
    (record,) = caplog.records
    assert (record.__dict__["code"], record.__dict__["model"]) == ("missing_variable", "m")
