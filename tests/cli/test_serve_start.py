"""What the start of the gateway says of models before any of them is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from gateway.cli.options import settings_of
from gateway.cli.serve import _find_models
from gateway.cli.start_report import _why_not

GOOD = "class Model:\n    def predict(self, x):\n        return x\n"
SOURCE = "import os\nclass Model:\n    def predict(self, x):\n        return os.environ['NO_SUCH_KEY_HERE']\n"


def test_a_variable_that_a_model_will_miss_is_a_warning_with_its_line(
    run: Callable[..., Result], models: Callable[..., Path], capfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    models({"m/model.py": SOURCE, "other/model.py": SOURCE.replace("os.environ['NO_SUCH_KEY_HERE']", "os.getenv('X')")})
    settings = settings_of(None)
    _find_models(settings, [], reload=False)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("Warning: m: model.py:4: NO_SUCH_KEY_HERE is needed and will not be set")
    assert "[models.m.environment]" in line
    _find_models(replace(settings, gateway=replace(settings.gateway, log_format="json")), [], reload=False)
    (record,) = caplog.records
    assert (record.__dict__["code"], record.__dict__["model"]) == ("missing_variable", "m")


def test_the_start_tells_what_a_config_says_in_vain_and_what_lies_beside_a_model(
    run: Callable[..., Result], models: Callable[..., Path], capfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = "model_nam: m\nruntime:\n  predict_concurency: 4\nsystem_packages: [ffmpeg]\n"
    models(
        {
            "m/config.yaml": config,
            "m/model/model.py": GOOD,
            "chat/other.pt": "",
            "chat/chat.gguf": "",
            "chat/mmproj.gguf": "",
        }
    )
    caplog.set_level("INFO", "gateway.discovery")
    settings = settings_of(None)
    _find_models(settings, [], reload=False)
    said = capfd.readouterr().err.splitlines()
    keys = (
        "models/m/config.yaml: 2 unknown keys: runtime.predict_concurency, did you mean predict_concurrency?; "
        "model_nam, did you mean model_name? (gateway check shows the lines)"
    )
    assert f"Warning: {keys}" in said
    assert [line for line in said if "unknown" in line or "system_packages" in line] == [f"Warning: {keys}"]
    assert any("other.pt" in line and line.startswith("Note: models/chat: ") for line in said)
    assert any("mmproj.gguf" in line and line.startswith("Note: models/chat: ") for line in said)
    _find_models(replace(settings, gateway=replace(settings.gateway, log_format="json")), [], reload=False)
    levels = {(record.__dict__["code"], record.levelname) for record in caplog.records}
    assert levels == {("unknown_key", "WARNING"), ("passed_over", "INFO")}


def test_a_gateway_without_models_does_not_say_when_they_load() -> None:
    catalog: Any = SimpleNamespace(models={})
    assert _why_not(catalog) == "There is no model yet."
    catalog.models["m"] = SimpleNamespace(state="unloaded")
    assert _why_not(catalog) == "Every model loads at its first request."
