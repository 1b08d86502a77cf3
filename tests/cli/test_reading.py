"""The commands that read directories and settings: models, plan, plugins, settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]
Models = Callable[..., Path]

CHAT = "class Model:\n    def predict(self, inputs): ...\n    def chat_completions(self, body): ...\n"
GPU = "resources: {accelerator: H100}\n"


def test_models_tells_what_directories_say(run: Run, models: Models) -> None:
    models({"team/chat/model.py": CHAT, "gpu/config.yaml": GPU, "gpu/model/model.py": CHAT, "bad/model.py": "x ="})
    result = run("models", "--json")
    first, second = json.loads(result.stdout)
    assert first == {
        "name": "gpu",
        "format": "truss",
        "served_by": "truss",
        "target": "model.model:Model",
        "root": "models/gpu",
        "slots": 1,
        "replicas": 1,
        "devices": "1 × H100",
        "routes": [
            "/v1/models/gpu:predict",
            "/v1/chat/completions",
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/responses",
            "/v1/responses/input_tokens",
        ],
        "notes": [],
    }
    assert (second["name"], second["devices"]) == ("team/chat", "cpu")
    assert "models/bad/model.py:1: syntax error" in result.stderr


def test_models_prints_a_table(run: Run, models: Models) -> None:
    models({"chat/model.py": CHAT})
    assert ["chat", "python", "model:Model", "1", "cpu", "/v1/models/chat:predict"] in [
        line.split() for line in run("models").stdout.splitlines()
    ]


def test_routes_that_only_the_load_knows_are_said_to_be_so(run: Run, models: Models) -> None:
    models({"chat/model.py": "from somewhere import Model\n"})
    assert "known once it is loaded" in run("models").stdout


def test_plan_says_who_gets_what_and_why(run: Run, models: Models) -> None:
    models({"gpu/config.yaml": GPU, "gpu/model/model.py": CHAT, "cpu/model.py": CHAT})
    result = run("plan", "--devices", "1xH100:80GiB")
    assert result.stdout.splitlines()[0] == "Devices: GPU 0 (H100, 80GiB)"
    assert "gets GPU 0 (H100, 80GiB) exclusively" in result.stdout
    assert result.exit_code == 0
    result = run("plan", "--devices", "1xL4:24GiB", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [row["state"] for row in found["placements"]] == ["cpu", "impossible"]
    assert found["devices"][0]["memory"] == 24 * 1024**3


def test_plan_for_one_model_asks_once_all_others_run(run: Run, models: Models) -> None:
    models({"a/config.yaml": GPU, "a/model/model.py": CHAT, "b/config.yaml": GPU, "b/model/model.py": CHAT})
    (row,) = json.loads(run("plan", "--devices", "1xH100:80GiB", "--for", "b", "--json").stdout)["placements"]
    assert (row["model"], row["state"]) == ("b", "busy")
    result = run("plan", "--for", "c")
    assert (result.exit_code, result.stderr) == (2, "Error: no model named 'c' (have: a, b)\n")


def test_a_plan_with_a_busy_or_a_broken_model_fails(run: Run, models: Models) -> None:
    models({"a/config.yaml": GPU, "a/model/model.py": CHAT})
    assert run("plan", "--devices", "1xH100:80GiB").exit_code == 0
    models({"b/config.yaml": GPU, "b/model/model.py": CHAT})
    assert run("plan", "--devices", "1xH100:80GiB").exit_code == 1
    assert run("plan", "--devices", "2xH100:80GiB").exit_code == 0
    models({"bad/model.py": "x ="})
    assert run("plan", "--devices", "2xH100:80GiB").exit_code == 1


def test_a_device_list_that_makes_no_sense_is_one_line(run: Run) -> None:
    result = run("plan", "--devices", "two H100")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "2xH100:80GiB" in result.stderr


def test_plugins_tells_who_provides_what(run: Run) -> None:
    Path("mine.py").write_text("from gateway import hookimpl\n\n@hookimpl\ndef find_modle(path, overrides): ...\n")
    Path("gateway.toml").write_text('[gateway]\nplugins = ["mine.py"]\n')
    result = run("plugins", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    chat = next(row for row in found["plugins"] if row["name"] == "openai_chat")
    assert "POST /v1/chat/completions" in chat["provides"]
    assert "did you mean find_model?" in found["problems"][0]["what"]
    result = run("plugins")
    assert "dialect openai_chat" in result.stdout
    assert "did you mean find_model?" in result.stderr
    assert result.exit_code == 1
    Path("gateway.toml").write_text("")
    assert run("plugins").exit_code == 0


def test_settings_tells_where_each_value_came_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gateway.toml").write_text(
        "[gateway]\nport = 9000\n\n[models.chat]\nslots = 4\nenvironment = {TOKEN = 'hidden-too'}\n"
    )
    monkeypatch.setenv("GATEWAY_HOST", "::1")
    monkeypatch.setenv("GATEWAY_API_KEY", "very-secret")
    result = run("settings", "--json")
    found = {row["key"]: (row["value"], row["from"]) for row in json.loads(result.stdout)}
    assert found["gateway.port"] == (9000, "gateway.toml:2")
    assert found["gateway.host"] == ("::1", "environment GATEWAY_HOST")
    assert found["gateway.drain_timeout"] == (30.0, "default")
    assert found["models.chat.slots"] == (4, "gateway.toml:5")
    assert found["gateway.api_key"] == ("(set)", "environment GATEWAY_API_KEY")
    assert found["models.chat.environment"] == ({"TOKEN": "(set)"}, "gateway.toml:6")
    for text in ("very-secret", "hidden-too"):
        assert text not in result.stdout + run("settings").stdout
