"""A newcomer makes, breaks and mends models with `serve --reload` running, and never restarts it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands import command

from gateway.testing import Gateway

Serve = Callable[..., Gateway]
GOOD = "class Model:\n    def predict(self, x):\n        return ['{word}']\n"


def good(word: str) -> str:
    return GOOD.replace("{word}", word)


def ask(gateway: Gateway, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{gateway.url}{path}", data=data), timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def operate(gateway: Gateway, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command(place, *arguments, "--url", gateway.url, XDG_RUNTIME_DIR=str(place))


def test_the_only_model_may_be_broken_at_the_start_and_is_mended_while_the_files_are_watched(
    serve: Serve, tmp_path: Path
) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    (tmp_path / "gateway.toml").write_text('[models.mine]\naliases = ["nick"]\n')
    gateway = serve({"mine": {"model.py": "class Model\n"}}, "--reload", env=env, until="accepting")
    gateway.wait_for("watching for new files")
    (listed,) = ask(gateway, "/v1/models")[1]["data"]
    assert (listed["id"], listed["status"]) == ("mine", "failed") and "model.py:1: syntax" in listed["status_reason"]
    assert ask(gateway, "/models/mine/predict", {})[0] == 503
    gateway.wait_for("No model is ready")
    for arguments in (["predict", "mine"], ["chat", "mine", "hello"], ["chat", "nick", "hello"]):
        told = operate(gateway, tmp_path, *arguments)
        assert told.returncode == 1 and "mine failed: model.py:1: syntax" in told.stderr, told.stderr
        assert "gateway logs mine" in told.stderr

    (tmp_path / "models/mine/model.py").write_text(good("mended"))
    gateway.wait_for("model 'mine' is ready")
    assert ask(gateway, "/models/mine/predict", {}) == (200, ["mended"])

    (tmp_path / "models/other").mkdir()
    (tmp_path / "models/other/model.py").write_text("import nothing_of_that_name\n" + good("other"))
    gateway.wait_for("model 'other' failed: .*nothing_of_that_name")
    (tmp_path / "models/other/model.py").write_text(good("other"))
    gateway.wait_for("model 'other' is ready")
    needs = "    def load(self):\n        import os\n        os.environ['NO_SUCH_API_KEY']\n"
    (tmp_path / "models/keyed").mkdir()
    (tmp_path / "models/keyed/model.py").write_text(good("keyed") + needs)
    gateway.wait_for("model 'keyed' failed: KeyError: 'NO_SUCH_API_KEY'; models do not inherit the environment")
    assert "keyed: load failed, trying again" not in gateway.log and "load() failed" not in gateway.log
    (tmp_path / "models/other/model.py").write_text("class Model:\n    def predict(self, x):\n        return 1 / 0\n")
    gateway.wait_for("model 'other' is reloaded")
    status, answer = ask(gateway, "/models/other/predict", {})
    assert status == 500 and "model 'other' raised an error; `gateway logs other` shows it" in answer["error"]
    request_id = answer["error"].rpartition(" ")[2]
    gateway.wait_for("ZeroDivisionError")  # a traceback is held until its last line is there
    assert f"[{request_id}]" in operate(gateway, tmp_path, "logs", "other").stdout
    (tmp_path / "models/other/model.py").write_text(good("other"))
    gateway.wait_for("(?s)'other' is reloaded.*'other' is reloaded")
    assert ask(gateway, "/models/other/predict", {}) == (200, ["other"])


def test_orders_and_a_signal_find_what_is_mended_new_or_gone(serve: Serve, tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    models = {"m": {"model.py": good("m")}, "a": {"model.py": "class Model\n"}, "b": {"model.py": "class Model\n"}}
    gateway = serve(models, env=env, until="settled")
    assert "syntax error" in operate(gateway, tmp_path, "ps").stdout.replace("\n", " ")
    still = operate(gateway, tmp_path, "load", "a")
    assert still.returncode == 1 and "model.py:1: syntax" in still.stderr

    (tmp_path / "models/a/model.py").write_text(good("a"))
    assert "a is ready" in operate(gateway, tmp_path, "load", "a").stdout
    (tmp_path / "models/b/model.py").write_text(good("b"))
    assert "b is reloaded" in operate(gateway, tmp_path, "reload", "b").stdout

    (tmp_path / "models/c").mkdir()
    (tmp_path / "models/c/model.py").write_text(good("c"))
    assert "c is ready" in operate(gateway, tmp_path, "load", "c").stdout
    (tmp_path / "models/d").mkdir()
    (tmp_path / "models/d/model.py").write_text("class Model\n")
    told = operate(gateway, tmp_path, "reload")
    assert told.returncode == 1 and "d cannot be read: model.py:1: syntax" in told.stderr

    (tmp_path / "models/d/model.py").write_text(good("d"))
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_for("model 'd' is ready")
    for name in "mabcd":
        assert ask(gateway, f"/models/{name}/predict", {}) == (200, [name])


def test_a_lazy_model_answers_its_first_client_and_a_load_that_fails_says_why(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('[models."*"]\nload = "lazy"\n')
    chatty = "class Model:\n    def chat_completions(self, request):\n        yield 'hello'\n"
    broken = good("never") + "    def load(self):\n        raise ImportError('no such weights')\n"
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    gateway = serve({"m": {"model.py": good("m")}, "c": {"model.py": chatty}, "bad": {"model.py": broken}}, env=env)
    told = operate(gateway, tmp_path, "predict", "m")
    assert (told.returncode, told.stdout, told.stderr) == (0, '["m"]\n', "m is loading …\n")
    again = operate(gateway, tmp_path, "predict", "m")
    assert (again.stdout, again.stderr) == ('["m"]\n', "")
    told = operate(gateway, tmp_path, "chat", "c", "good morning")
    assert (told.returncode, told.stdout, told.stderr) == (0, "hello\n", "c is loading …\n")
    told = operate(gateway, tmp_path, "chat", "bad", "good morning")
    assert told.returncode == 1 and told.stderr.startswith("bad is loading …\n")
    assert "bad failed: ImportError: no such weights" in told.stderr and "gateway logs bad" in told.stderr


def test_metrics_are_scraped_on_after_a_model_that_was_called_is_removed(serve: Serve, tmp_path: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    chat = "class Model:\n    def chat_completions(self, body):\n        return 'hello'\n"
    gateway = serve({"a": {"model.py": chat}, "b": {"model.py": chat}}, "--reload", env=env)
    message = {"role": "user", "content": "hi"}
    assert ask(gateway, "/v1/chat/completions", {"model": "a", "messages": [message]})[0] == 200
    shutil.rmtree(tmp_path / "models/a")
    gateway.wait_for("a: its directory is gone")
    assert operate(gateway, tmp_path, "unload", "a").returncode == 0
    assert operate(gateway, tmp_path, "reload").returncode == 0  # looks at the roots
    with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    assert 'model_name="b"' in text and 'model_name="a"' not in text and 'model="a"' not in text
