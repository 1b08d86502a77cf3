"""The clients of the field against a running gateway: `make test-clients`.

    python -m tests.clients [ENVIRONMENT …] [-- ARGUMENTS OF PYTEST]

Clients exclude each other's packages, so each group has an environment of its own, which knows nothing of the gateway
but its URL. `NAME.txt` pins the packages of one for Python, `node/NAME/package.json` those of one for Node; what runs
in Node, or is a command, is driven from the environment of the gateway's own tests.
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
    "echo": (HERE / "echo.py").read_text(),
    "broken": 'class Model:\n    def load(self):\n        raise RuntimeError("no weights")\n',
}
REAL = ("tiny-chat", "shout", "minilm")
BOTH = ("openai_chat", "openai_errors", "openai_routes", "openai_responses", "anthropic", "agents")
ENVIRONMENTS = {  # name → test files
    "openai2": (*BOTH, "litellm", "langchain", "instructor"),
    "openai3": (*BOTH, "llm", "openai_agents"),
    "litellm_proxy": ("litellm_proxy",),
    "lm_eval": ("lm_eval",),
    "frameworks": ("mistral", "pydantic_ai", "llamaindex", "open_webui"),
    "ai5": ("vercel",),
    "ai6": ("vercel",),
    "codex": ("codex",),
    "claude": ("claude_code",),
    "oip": ("oip",),
    "sdks": ("node_streams",),
}


def main(names: list[str], arguments: list[str]) -> int:
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
            results = [ask(name, gateway.url, arguments) for name in names]
    fine = (0, 5) if arguments else (0,)
    return int(any(result not in fine for result in results))


def ask(name: str, url: str, arguments: list[str]) -> int:
    """Run the tests of one environment and return pytest's exit status."""
    files = [str(HERE / f"test_{file}.py") for file in ENVIRONMENTS[name]]
    is_node = (HERE / "node" / name).is_dir()
    place = ROOT / f".{'node' if is_node else 'venv'}-clients-{name}"
    # -P and confcutdir: neither the gateway's sources nor what its own tests need are there
    command = [
        sys.executable if is_node else str(place / "bin" / "python"),
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
    env = {**os.environ, "CLIENTS_URL": url, "CLIENTS_KEY": KEY, "CLIENTS_PLACE": str(place)}
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


def chosen(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The names of environments, all of them when none is given, and what is for pytest."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    names = arguments[:end]
    if unknown := [name for name in names if name not in ENVIRONMENTS]:
        raise SystemExit(f"no environment named {', '.join(unknown)} (have: {', '.join(ENVIRONMENTS)})")
    return names or [*ENVIRONMENTS], arguments[end + 1 :]


if __name__ == "__main__":
    raise SystemExit(main(*chosen(sys.argv[1:])))
