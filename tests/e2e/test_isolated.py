"""Models whose requirements contradict the gateway's own and each other's, served side by side."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import Gateway

REPORT = """
import os, shutil, subprocess, sys
import fastapi, httpx, msgpack, msgspec, numpy, yaml  # which Truss's image has, so that nobody declares them
VERSION = "import msgspec; print(msgspec.__version__, end='')"
class Model:
    def predict(self, x):
        asked = {name: subprocess.run([name, "-c", VERSION], capture_output=True, text=True).stdout
                 for name in ("python", "python3")}
        return {"msgspec": msgspec.__version__, "asked": asked, "venv": os.environ["VIRTUAL_ENV"] == sys.prefix,
                "f2py": shutil.which("f2py"), "bin": os.path.dirname(sys.executable)}
"""
SETTINGS = '[models.old]\nenv = "isolated"\n[models.broken]\nenv = "isolated"\n'


def test_requirements_that_conflict_with_the_gateways_own_are_served_beside_it(
    serve: Callable[..., Gateway], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "gateway.toml").write_text(SETTINGS)
    models = {
        "old": {"model/model.py": REPORT, "config.yaml": 'requirements: ["msgspec<0.20"]\n'},
        "broken": {"model/model.py": REPORT, "config.yaml": 'requirements: ["msgspec<0.20", "msgspec>0.20"]\n'},
        "new": {"model/model.py": REPORT, "config.yaml": ""},
    }
    gateway = serve(models, until="settled", timeout=300)

    def predict(name: str) -> dict[str, Any]:
        request = urllib.request.Request(f"{gateway.url}/models/{name}/predict", data=b"1", method="POST")
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    old, new = predict("old"), predict("new")
    assert old["msgspec"].startswith("0.19")
    assert not new["msgspec"].startswith("0.19")
    for found in (old, new):  # the programs that they start are those of their own environment
        assert found["asked"] == {"python": found["msgspec"], "python3": found["msgspec"]}
        assert found["f2py"] == f"{found['bin']}/f2py", "a console script of numpy"
        assert found["venv"]
    with urllib.request.urlopen(f"{gateway.url}/v1/models") as response:
        states = {model["id"]: model for model in json.load(response)["data"]}
    assert states["broken"]["status"] == "failed"
    assert "could not be built" in gateway.reason("broken")
