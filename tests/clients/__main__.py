"""The clients of the field against a running gateway: `make test-clients`.

Clients want versions of the OpenAI SDK that exclude each other, so there are two environments, which know nothing of
the gateway but its URL. Arguments are pytest's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.testing import Gateway

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KEY = "sk-clients"
SCRIPTED = ("script", "narrow", "hasty")  # one model under the settings of these names
WRITTEN = {
    **dict.fromkeys(SCRIPTED, (HERE / "script.py").read_text()),
    "studio": (HERE / "studio.py").read_text(),
    "broken": 'class Model:\n    def load(self):\n        raise RuntimeError("no weights")\n',
}
REAL = ("tiny-chat", "minilm")
BOTH = ("openai_chat", "openai_errors", "openai_routes", "openai_responses", "anthropic", "agents")
ENVIRONMENTS = {
    "openai2": (*BOTH, "litellm", "langchain", "instructor"),
    "openai3": (*BOTH, "llm", "openai_agents"),
}


def main(arguments: list[str]) -> int:
    """Return 1 when a test failed in one of the environments; it is not in an environment that it deselects whole."""
    with TemporaryDirectory() as directory:
        desk = Path(directory)
        shutil.copy(HERE / "gateway.toml", desk)
        for name, text in WRITTEN.items():
            (desk / "models" / name).mkdir(parents=True)
            (desk / "models" / name / "model.py").write_text(text)
        with Gateway(
            desk / "models",
            ROOT / "models",
            options=["--only", ",".join((*WRITTEN, *REAL))],
            env={"GATEWAY_API_KEY": KEY},
            cwd=desk,
            until="settled",
            timeout=150,
        ) as gateway:
            results = [ask(name, gateway.url, arguments) for name in ENVIRONMENTS]
    fine = (0, 5) if arguments else (0,)
    return int(any(result not in fine for result in results))


def ask(name: str, url: str, arguments: list[str]) -> int:
    """Run the tests of one environment and return pytest's exit status."""
    files = [str(HERE / f"test_{file}.py") for file in ENVIRONMENTS[name]]
    python = ROOT / f".venv-clients-{name}" / "bin" / "python"
    # -P and confcutdir: neither the gateway's sources nor what its own tests need are there
    command = [
        str(python),
        "-P",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--disable-warnings",
        f"--confcutdir={HERE}",
        *files,
        *arguments,
    ]
    print(f"{name}: {' '.join(command)}", flush=True)
    env = {**os.environ, "CLIENTS_URL": url, "CLIENTS_KEY": KEY}
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
