"""Each extra alone, as on a new machine: `make test-extras`.

    python -m tests.extras [NAME …]

NAMEs are those of `tests/plugins/ten_frameworks.py`. Weights and wanted answers are made here, where all libraries are.
Then the gateway's wheel is installed with one extra into an empty environment, `.venv-extras-NAME`, which serves the
directory and is asked by `ask.py`. An environment that is there is used again, with the new wheel.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE.parent / "plugins"), str(ROOT / "plugins")]

from ten_frameworks import TEN, save_all  # noqa: E402


def main(names: Sequence[str]) -> int:
    """Return the number of extras that failed."""
    if unknown := [name for name in names if name not in TEN]:
        raise SystemExit(f"no directory named {', '.join(unknown)} (have: {', '.join(TEN)})")
    with TemporaryDirectory() as directory:
        desk = Path(directory)
        _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", desk, ROOT)
        (wheel,) = desk.glob("*.whl")
        for name, asks in save_all(desk / "models", names or TEN).items():
            (desk / f"{name}.json").write_text(json.dumps([asdict(ask) for ask in asks]))
        results = [_serves(name, wheel, desk) for name in names or TEN]
    return results.count(False)


def _serves(name: str, wheel: Path, desk: Path) -> bool:
    """Install the extra of a directory alone, serve it, and say whether it answers as its library."""
    place, begin = ROOT / f".venv-extras-{name}", time.monotonic()
    python = place / "bin" / "python"
    if not python.exists():
        _run(sys.executable, "-m", "venv", place)
    what = f"model-gateway[{TEN[name].extra}] @ {wheel.as_uri()}"
    _run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", what)
    # --force-reinstall: the version is that of the wheel before
    _run(python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel)
    installed = time.monotonic() - begin
    models = desk / "alone" / name
    models.mkdir(parents=True)
    (desk / "models" / name).rename(models / name)
    command = [python, HERE / "ask.py", models, desk / f"{name}.json"]
    done = subprocess.run([str(each) for each in command], cwd=desk, capture_output=True, text=True, check=False)
    told = done.stdout.strip() if done.returncode == 0 else done.stdout + done.stderr
    print(f"{name}: [{TEN[name].extra}] installed in {installed:.0f} s; {told}", flush=True)
    return done.returncode == 0


def _run(*command: object) -> None:
    subprocess.run([str(each) for each in command], check=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
