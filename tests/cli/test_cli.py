"""The command as a whole: what it loads, how it fails, the commands of plugins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import COMMANDS, cli

HEAVY = "litestar starlette uvicorn pydantic asyncio yaml msgspec rich prometheus_client torch numpy"
Run = Callable[..., Result]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["serve", "--help"], ["chat", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys; from gateway.cli import cli; cli(sys.argv[1:], standalone_mode=False);"
        f"print('loaded:', *set({HEAVY!r}.split()) & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_fits_its_line(run: Run, name: str) -> None:
    assert run(name, "--help").exit_code == 0
    line = next(line for line in run("--help").stdout.splitlines() if line.startswith(f"  {name} "))
    assert line.endswith(".")
    assert not line.endswith("...")


def test_a_wrong_command_is_answered_with_a_suggestion(run: Run) -> None:
    result = run("modles")
    assert result.exit_code == 2
    assert "No such command 'modles' (did you mean models?)" in result.stderr


def test_wrong_settings_are_a_line_each_and_status_2(run: Run) -> None:
    Path("gateway.toml").write_text("[gateway]\nprot = 1\nport = 'x'\n")
    result = run("models")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Error: gateway.toml:2: unknown key gateway.prot (did you mean port?)",
        "Error: gateway.toml:3: gateway.port must be a whole number from 0 to 65535, not 'x'",
    ]


def test_a_missing_settings_file_is_named(run: Run) -> None:
    result = run("plan", "--config", "other.toml")
    assert result.exit_code == 2
    assert result.stderr == "Error: other.toml: cannot be read: No such file or directory\n"


def test_plugins_add_commands(run: Run) -> None:
    Path("greeter.py").write_text(
        "import click\nfrom gateway import hookimpl\n\n"
        "@hookimpl\ndef register_commands(cli):\n"
        "    @cli.command()\n    def greet():\n        click.echo('good morning')\n"
    )
    Path("gateway.toml").write_text('[gateway]\nplugins = ["greeter.py"]\n')
    assert run("greet").stdout == "good morning\n"


def test_python_m_gateway_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("gateway, version ")


def test_no_color_is_honoured() -> None:
    assert "\x1b" not in CliRunner().invoke(cli, ["plugins"], env={"NO_COLOR": "1"}).output
