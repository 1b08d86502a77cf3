"""The real `gateway serve`: how it starts, what it says, how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import command

from gateway import __version__
from gateway.access import keys
from gateway.telemetry.audit import user
from gateway.testing import Gateway

from .conftest import write_models

ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"
BROKEN = "class Model:\n    def predict(self, inputs)\n        return inputs\n"
# An error of the code, which no other try of the load could mend.
UNLOADABLE = "class Model:\n    def load(self):\n        raise ImportError('no weights')\n\n" + ECHO.split("\n", 1)[1]
# Says that it has begun with its first line, and goes on when there is a file.
SLOW = """
import pathlib, time
class Model:
    def predict(self, inputs):
        yield "begun "
        while not pathlib.Path(inputs["file"]).exists():
            time.sleep(0.01)
        yield "ended"
"""
NEVER = "import time\nclass Model:\n    def predict(self, inputs):\n        time.sleep(600)\n"
CHILD = """
import subprocess, time
class Model:
    def load(self):
        self.child = subprocess.Popen(["sleep", "600"])
    def predict(self, inputs):
        return self.child.pid
"""

Serve = Callable[..., Gateway]


def post(url: str, path: str, body: Any, timeout: float = 30) -> tuple[int, Any]:
    request = urllib.request.Request(f"{url}{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)


def workers(gateway: Gateway) -> set[int]:
    """The processes that it has started, and theirs, the reaper left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
    found = {gateway.process.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid for pid in found - {gateway.process.pid} if b"reaper.py" not in _command(pid)}


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # a zombie that nobody waits for runs no more


def wait_gone(pids: set[int], seconds: float) -> set[int]:
    """Those of `pids` that live on after `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := {pid for pid in pids if is_alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


@contextlib.contextmanager
def begun(gateway: Gateway, model: str, body: Any) -> Iterator[http.client.HTTPResponse]:
    """A predict whose first bytes have come."""
    with contextlib.closing(connect(gateway.url)) as connection:
        connection.request("POST", f"/v1/models/{model}:predict", json.dumps(body))
        response = connection.getresponse()
        assert response.read(6) == b"begun "
        yield response


# ── the start ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_start_tells_the_address_the_models_and_what_to_paste(serve: Serve) -> None:
    models = {"echo": {"model.py": ECHO}, "broken": {"model.py": BROKEN}, "unloadable": {"model.py": UNLOADABLE}}
    gateway = serve(models, until="settled")
    gateway.wait_for(r":predict \S+ .*\n\s+-d ")
    gateway.wait_for(r"\n +unloadable +failed ")  # on a busy machine what answers is told before the table
    lines = [line.split() for line in gateway.log.splitlines()]

    assert post(gateway.url, "/v1/models/echo:predict", {"a": 1}) == (200, {"a": 1})
    assert ["echo", "ready", "cpu", "1", "/v1/models/echo:predict"] in lines
    assert any(line[:2] == ["unloadable", "failed"] and "weights" in line for line in lines)
    assert any(line[:2] == ["broken", "failed"] for line in lines)
    assert "broken/model.py:2: syntax error: expected ':'" in gateway.log
    assert f"curl -N {gateway.url}/v1/models/echo:predict" in gateway.log


def test_the_pasted_curl_and_sdk_lines_answer(serve: Serve) -> None:
    shout = Path(__file__).parents[2] / "models" / "shout" / "model.py"
    gateway = serve({"shout": {"model.py": shout.read_text()}})
    gateway.wait_for(r"flush=True\)\n")
    text = gateway.log[gateway.log.index("curl -N") :]
    curl, python = text.split("\n\n")[:2]  # what the log says next is nothing to paste

    answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout
    assert '"content":"SAY "' in answer
    assert answer.endswith("data: [DONE]\n\n")
    answer = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True).stdout
    assert answer == "SAY HELLO. "


def test_the_pasted_lines_take_the_key_from_the_environment(serve: Serve) -> None:
    env = {"GATEWAY_API_KEY": "secret-key"}
    gateway = serve({"echo": {"model.py": ECHO}}, env=env)
    gateway.wait_for(r"\n\s+-d .*\n")
    curl = gateway.log[gateway.log.index("curl -N") :].partition("\n\n")[0]

    assert "secret-key" not in gateway.log
    answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, env={**os.environ, **env}, check=True)
    assert answer.stdout == "{}"
    assert post(gateway.url, "/v1/models/echo:predict", {})[0] == 401


def test_on_a_terminal_loading_is_a_live_table_and_the_address_a_line_of_its_own(serve: Serve, tmp_path: Path) -> None:
    loading = (
        "import pathlib, time\nprint('half way')\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\n" + ECHO
    )
    terminal, theirs = pty.openpty()
    write_models(tmp_path / "models", {"late": {"model.py": loading}})
    env = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    start = [sys.executable, "-m", "gateway", "serve", "--port", "0"]
    process = subprocess.Popen(start, stdout=theirs, stderr=theirs, cwd=tmp_path, env=env)
    os.close(theirs)
    seen = ""
    while "-d " not in seen:
        seen += os.read(terminal, 65536).decode()
        if re.search(r"loading +\d+ s +half way", seen) and "Serving on" in seen:
            (tmp_path / "models" / "late" / "go").touch()
    process.terminate()
    assert process.wait(30) == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen))
    assert any(re.fullmatch(r"Serving on http://127\.0\.0\.1:\d+", line) for line in lines)


def test_what_is_ready_can_be_tried_while_others_load(serve: Serve, tmp_path: Path) -> None:
    late = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\n" + ECHO
    gateway = serve({"late": {"model.py": late}, "echo": {"model.py": ECHO}}, until="accepting")
    gateway.wait_for(r"Ready now:\n\ncurl -N \S+/v1/models/echo:predict")
    assert "slots   routes" not in gateway.log
    (tmp_path / "models" / "late" / "go").touch()
    gateway.wait_for(r"\n late +ready +cpu")
    assert gateway.log.count("Ready now:") == 1


def test_only_the_named_models_start(serve: Serve) -> None:
    gateway = serve({"one": {"model.py": ECHO}, "two": {"model.py": ECHO}}, "--only", "two")
    assert gateway.states() == {"two": "ready"}


def test_the_start_says_whether_keys_are_needed_and_those_beside_the_settings_are(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "etc", tmp_path / "elsewhere"
    write_models(home / "models", {"echo": {"model.py": ECHO}})
    elsewhere.mkdir()
    config = ("--config", str(home / "gateway.toml"))
    (home / "gateway.toml").touch()
    with Gateway(options=config, cwd=elsewhere) as gateway:
        assert f"\nNo request needs a key: there is no {home / 'keys.toml'}\n" in gateway.log
        assert post(gateway.url, "/v1/models/echo:predict", 1) == (200, 1)

    key, _ = keys.create("alice")
    keys.write(home / "keys.toml", [key])
    with Gateway(options=config, cwd=elsewhere, env={"GATEWAY_API_KEY": "s3cret"}) as gateway:
        sentence = f"Every request needs a key: 1 in {home / 'keys.toml'} or the one of GATEWAY_API_KEY"
        assert f"\n{sentence}\n" in gateway.log
        assert post(gateway.url, "/v1/models/echo:predict", 1)[0] == 401


def test_json_logs_are_one_object_a_line(serve: Serve) -> None:
    gateway = serve({"echo": {"model.py": "print('\\x1b[1mloud\\tline')\n" + ECHO}}, "--log-format", "json")
    assert gateway.stop() == 0
    events = [json.loads(line) for line in gateway.log.splitlines() if not line.startswith("Serving on ")]

    said = [event for event in events if event.get("model") == "echo"]
    assert "loud\tline" in [event["message"] for event in said]
    assert {"time", "level", "logger", "message"} <= events[0].keys()


def test_a_taken_port_is_one_line_before_any_worker_is_spawned(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = serve({"echo": {"model.py": ECHO}}, "--port", str(port), until="spawned")
        assert gateway.wait() == 1
    assert gateway.log.splitlines() == [
        f"Error: cannot listen on 127.0.0.1:{port}: another process listens there; choose another port with --port"
    ]


def test_a_public_address_without_a_key_is_refused(serve: Serve) -> None:
    gateway = serve({"echo": {"model.py": ECHO}}, "--host", "0.0.0.0", until="spawned")
    assert gateway.wait() == 2
    assert "but has no API key: run `gateway keys add NAME`" in gateway.log


def test_settings_that_are_wrong_are_told_all_at_once(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('[gateway]\nprot = 1\nlog_format = "xml"\n')
    gateway = serve({"echo": {"model.py": ECHO}}, until="spawned")
    assert gateway.wait() == 2
    assert gateway.log.splitlines() == [
        "Error: gateway.toml:2: unknown key gateway.prot (did you mean port?)",
        "Error: gateway.toml:3: gateway.log_format must be text or json, not 'xml'",
    ]


def test_without_a_model_the_next_step_is_named(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    gateway = serve({}, until="spawned")
    assert gateway.wait() == 1
    assert f"create one: gateway new {tmp_path}/models/hello" in gateway.log


def test_what_does_not_fit_fails_alone_and_the_others_serve(serve: Serve) -> None:
    where = (
        "import os\nclass Model:\n    def predict(self, inputs):\n        return os.environ['CUDA_VISIBLE_DEVICES']\n"
    )
    gpu = "resources: {accelerator: H100}\n"
    models = {
        "first": {"config.yaml": gpu, "model/model.py": where},
        "second": {"config.yaml": gpu, "model/model.py": where},
        "third": {"model.py": where},
    }
    gateway = serve(models, "--devices", "1xH100:80GiB", until="settled")
    gateway.wait_for(r"\n\s+-d ")
    lines = [line.split()[:4] for line in gateway.log.splitlines()]
    assert ["first", "ready", "GPU", "0"] in lines
    assert ["third", "ready", "cpu", "1"] in lines
    assert gateway.states() == {"first": "ready", "second": "failed", "third": "ready"}
    assert "second/0 does not fit now: GPU 0 (H100, 80GiB): wanted alone, held by first/0 (alone)" in gateway.log
    assert post(gateway.url, "/v1/models/first:predict", {}) == (200, "GPU-fake-0")
    assert post(gateway.url, "/v1/models/third:predict", {}) == (200, "")


def test_everybody_may_be_let_in_but_it_is_said(serve: Serve) -> None:
    gateway = serve({"echo": {"model.py": ECHO}}, "--host", "0.0.0.0", "--insecure-no-auth")
    assert "Warning: anyone who can reach 0.0.0.0 may use this gateway" in gateway.log
    assert post(gateway.url, "/v1/models/echo:predict", 1) == (200, 1)


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_drain_finishes_what_runs_and_refuses_what_is_new(serve: Serve, tmp_path: Path) -> None:
    gateway = serve({"slow": {"model.py": SLOW, "config.yaml": "runtime: {predict_concurrency: 4}"}})
    with begun(gateway, "slow", {"file": str(tmp_path / "go")}) as response:
        gateway.process.terminate()
        gateway.wait_for("stopping: up to 30 s for 1 call")
        with pytest.raises(OSError):
            connect(gateway.url).request("GET", "/livez")
        (tmp_path / "go").touch()
        assert response.read() == b"ended"
    assert gateway.wait() == 0
    assert gateway.log.splitlines()[-1].endswith("stopped")


def test_readiness_is_503_at_once_and_requests_are_served_while_the_drain_is_delayed(serve: Serve) -> None:
    gateway = serve({"echo": {"model.py": ECHO}}, env={"GATEWAY_DRAIN_DELAY": "3"})
    with contextlib.closing(connect(gateway.url)) as connection:
        gateway.process.terminate()
        gateway.wait_for("stopping in 3 s")
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        assert (response.status, json.load(response)["status"]) == (503, "draining")
        assert post(gateway.url, "/v1/models/echo:predict", 7) == (200, 7)
    assert gateway.wait() == 0


def test_calls_that_outlast_the_drain_get_an_error(serve: Serve) -> None:
    gateway = serve({"never": {"model.py": NEVER}}, env={"GATEWAY_DRAIN_TIMEOUT": "200ms"})
    answers: list[tuple[int, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(post(gateway.url, "/v1/models/never:predict", {})))
    asking.start()
    wait_running(gateway, "never")
    pids = workers(gateway)
    assert gateway.stop() == 0
    asking.join()
    assert answers == [(503, {"error": "model 'never' is shutting down"})]
    assert not wait_gone(pids, 0)


def wait_running(gateway: Gateway, model: str) -> None:
    """Wait until the gateway counts a running call."""
    for _ in range(3000):
        with urllib.request.urlopen(f"{gateway.url}/metrics") as response:
            for line in response.read().decode().splitlines():
                if line.startswith("gateway_requests_in_flight") and f'"{model}"' in line and float(line.split()[-1]):
                    return
        time.sleep(0.02)
    raise AssertionError("the call does not run")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_long_before_its_drain_would(
    serve: Serve, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    gateway = serve({"slow": {"model.py": SLOW}})
    with begun(gateway, "slow", {"file": str(tmp_path / "go")}):
        pids = workers(gateway)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.wait_for("a second signal ends them")
        gateway.process.send_signal(number)
        assert gateway.wait(15) == status  # a drain has 30 s; on an idle machine it takes a tenth of a second
        assert not wait_gone(pids, 10)


@pytest.mark.slow
def test_a_client_that_does_not_read_holds_up_the_end_for_seconds_only(serve: Serve) -> None:
    flood = "class Model:\n    def predict(self, inputs):\n        while True:\n            yield 'x' * 65536\n"
    gateway = serve({"flood": {"model.py": flood}}, env={"GATEWAY_DRAIN_TIMEOUT": "100ms"})
    with contextlib.closing(connect(gateway.url)) as connection:
        connection.request("POST", "/v1/models/flood:predict", "{}")
        connection.getresponse()
        began = time.monotonic()
        assert gateway.stop() == 0
    assert time.monotonic() - began < 15


def test_ctrl_c_while_models_load_ends_in_order(serve: Serve) -> None:
    loading = "import time\ntime.sleep(600)\n" + ECHO
    gateway = serve({"late": {"model.py": loading}}, until="accepting")
    pids = workers(gateway)
    assert gateway.stop(signal.SIGINT) == 0
    assert not wait_gone(pids, 0)


def test_a_start_and_a_stop_are_audited_with_what_is_served_and_why_it_ends(serve: Serve, tmp_path: Path) -> None:
    keys.write(tmp_path / "keys.toml", [keys.create(name)[0] for name in ("a", "b")])
    options = ("--log-format", "json")
    gateway = serve({"echo": {"model.py": ECHO}, "echo2": {"model.py": ECHO}}, *options, env={"GATEWAY_API_KEY": "k"})
    gateway.wait_for("audit: load by the start: 2 models loaded, 0 failed, 0 not loaded until a request comes")
    assert gateway.stop() == 0
    events = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    start, _, *stops = [event for event in events if event["logger"] == "gateway.audit"]
    assert (start["action"], start["actor"]) == ("start", user(os.geteuid()))
    told = {name: start[name] for name in ("version", "url", "pid", "models", "keys")}
    pid = gateway.process.pid
    assert told == {"version": __version__, "url": gateway.url, "pid": pid, "models": 2, "keys": 3}
    assert f"version {__version__} at {gateway.url}, process {pid}, 2 models, 3 keys" in start["message"]
    assert [(stop["action"], stop["actor"], stop["pid"]) for stop in stops] == [("stop", "SIGTERM", pid)] * 2
    began, ended = (stop["outcome"] for stop in stops)
    assert re.fullmatch(r"begun; it ran for \d+ s", began) and re.fullmatch(r"done in \d+\.\d s", ended)


def test_sigkill_leaves_no_worker_behind(serve: Serve) -> None:
    gateway = serve({"echo": {"model.py": ECHO}, "family": {"model.py": CHILD}})
    pids = workers(gateway)
    status, child = post(gateway.url, "/v1/models/family:predict", {})
    assert (status, len(pids)) == (200, 3)
    assert child in pids
    gateway.kill()
    assert not wait_gone(pids, 30)


# ── the first minute ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_new_then_serve_then_the_openai_sdk(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    subprocess.run([sys.executable, "-m", "gateway", "new", "models/hello"], cwd=tmp_path, check=True)
    with Gateway("models", cwd=tmp_path) as gateway:
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused")
        messages = [{"role": "user", "content": "good morning"}]
        answer = client.chat.completions.create(model="hello", messages=messages)
        assert answer.choices[0].message.content == "You said: good morning"
        stream = client.chat.completions.create(model="hello", messages=messages, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "You said: good morning"


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway over what `gateway new` writes of each template."""
    place = tmp_path_factory.mktemp("templates")
    for template in ("chat", "predict", "truss", "embeddings"):
        assert command(place, "new", f"models/my-{template}", "--template", template).returncode == 0
    with Gateway("models", cwd=place) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (["chat", "my-chat", "hello"], "You said: hello\n"),
        (["predict", "my-predict", "-i", "text=hello"], '{"words": 1, "vowels": 2}\n'),
        (["predict", "my-truss", "-d", "[1]"], '{"model": "my-truss", "input": [1]}\n'),
    ],
)
def test_a_template_answers_its_own_question(
    templates: Gateway, tmp_path: Path, question: list[str], answer: str
) -> None:
    done = command(tmp_path, *question, GATEWAY_URL=templates.url)
    assert (done.stdout, done.stderr) == (answer, "")


def test_the_embeddings_template_knows_near_from_far(templates: Gateway) -> None:
    texts = ["the red cat", "the red dog", "something else entirely"]
    status, body = post(templates.url, "/v1/embeddings", {"model": "my-embeddings", "input": texts})
    first, second, third = (item["embedding"] for item in body["data"])

    def near(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert status == 200
    assert near(first, second) > 0.5 > near(first, third)


def test_live_models_are_those_of_the_running_gateway(templates: Gateway, tmp_path: Path) -> None:
    found = json.loads(command(tmp_path, "models", "--url", templates.url, "--json").stdout)
    names = ["my-chat", "my-embeddings", "my-predict", "my-truss"]
    assert [(model["id"], model["status"]) for model in found] == [(name, "ready") for name in names]
