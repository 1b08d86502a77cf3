"""T13: a directory that is only data runs nothing, whatever lies in it beside the weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.directories.discovery import discover
from gateway.plugins import Plugins
from gateway.runners.process import ProcessReplica
from gateway.runners.replica import Launch

DIGITS = Path(__file__).resolve().parents[2] / "models/digits"
# Modules that a worker of this model imports: of Python, of the gateway, of its plugin, of the plugin's libraries; and
# those that Python looks for at its start.
PLANTED = (
    "json.py gateway/__init__.py gateway_sklearn.py gateway_sklearn/__init__.py gateway_sklearn/model.py rows.py "
    "skops.py sklearn/__init__.py numpy.py sitecustomize.py usercustomize.py packages/skops.py "
    "packages/gateway_sklearn.py packages/gateway_sklearn/__init__.py packages/gateway_sklearn/model.py data/skops.py"
).split()
pytestmark = pytest.mark.anyio


async def test_no_file_beside_the_weights_is_imported_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "models/digits"
    root.mkdir(parents=True)
    shutil.copy(DIGITS / "model.skops", root)
    for name in PLANTED:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + ' ')\n")
    monkeypatch.setenv("PYTHONPATH", f":.:{tmp_path}")  # as shells leave it: relative to where they are, not to a model
    # Variables of its own would be such a way, too: of a library's that look for modules, of programs, of the home.
    variables = "GCONV_PATH: ., HOME: ., PATH: bin, OPENSSL_CONF: ./o.cnf, OPENSSL_MODULES: ."
    (root / "config.yaml").write_text(f"environment_variables: {{{variables}}}\n")
    (spec,) = discover([tmp_path / "models"], Plugins.load()).specs
    assert spec.environment == {}
    lines: list[str] = []
    replica = ProcessReplica(Launch(spec=spec, index=0, on_log=lines.append))
    try:
        await replica.start()
    finally:
        await replica.kill("the test is over")
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
    assert not any("ModuleNotFoundError" in line for line in lines)
