"""Requests made from our own API document, against a running gateway: `make fuzz`.

schemathesis makes valid and broken ones, for each route, and no answer may be a failure of the gateway. It lives in an
environment of its own, for as a plugin of pytest it would load with every test. Arguments are those of `st run`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.testing import Gateway

HERE = Path(__file__).parent
ST = HERE.parent.parent / ".venv-fuzz" / "bin" / "st"
KEY = "sk-fuzz-0123456789abcdef"
EXAMPLES = "50"  # a route; 1000 before a release
SECONDS = 900
# What loads and unloads models would take them away from the routes that follow.
LEFT_OUT = r"/(load|unload|hot-reload)$"
CHECKS = "not_a_server_error,content_type_conformance,missing_required_header,unsupported_method,ignored_auth"


def main(arguments: list[str]) -> int:
    """Return the exit status of schemathesis."""
    with TemporaryDirectory() as directory:
        desk = Path(directory)
        (desk / "models" / "m").mkdir(parents=True)
        shutil.copy(HERE / "model.py", desk / "models" / "m")
        (desk / "gateway.toml").write_text("[gateway.limits]\nslots = 16\n")
        with Gateway("models", cwd=desk, env={"GATEWAY_API_KEY": KEY}) as gateway:
            command = [
                *(str(ST), "--config-file", str(HERE / "schemathesis.toml")),
                *("run", f"{gateway.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"),
                *("--checks", CHECKS, "--max-examples", EXAMPLES, "--exclude-path-regex", LEFT_OUT, *arguments),
            ]
            status = subprocess.run(command, cwd=desk, timeout=SECONDS).returncode
            if gateway.process.poll() is not None:
                print("the gateway has ended", file=sys.stderr)
                return 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
