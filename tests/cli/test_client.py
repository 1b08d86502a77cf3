"""predict and chat against a small server that remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click import ClickException
from click.testing import Result

from gateway.cli.client import Client
from gateway.cli.operator import Operator
from gateway.settings.bind import admin_path, bind_admin
from gateway.settings.schema import GatewaySettings, Settings

Run = Callable[..., Result]


class Server(ThreadingHTTPServer):
    """Answers each request with `status`, `content_type` and `body`."""

    status, content_type, body = 200, "application/json", b"{}"
    length = 0  # of a body that is announced, and may be longer than what comes

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def says(self, *events: Any) -> None:
        lines = [event if isinstance(event, str) else f"data: {json.dumps(event)}" for event in events]
        self.content_type, self.body = "text/event-stream", "".join(f"{line}\n\n" for line in lines).encode()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, headers, json.loads(data)))
        self.send_response(self.server.status)
        self.send_header("content-type", self.server.content_type)
        if self.server.length:
            self.send_header("content-length", str(self.server.length))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


def test_operators_ask_the_gateway_that_the_environment_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(gateway=GatewaySettings(api_key=None, admin_socket=None))
    asked: list[tuple[str, str, str]] = []
    monkeypatch.setattr(Client, "ask", lambda self, method, path: asked.append((self.url, method, path)) or {})
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for here in ("http://127.0.0.1:9001", "localhost:9001", "https://[::1]:9001"):
        monkeypatch.setenv("GATEWAY_URL", here)
        with pytest.raises(ClickException, match=r"gateway-9001\.sock"):
            Operator.of(settings, None).ask("GET", "/admin/models")
    with pytest.raises(ClickException, match=r"gateway-9002\.sock"):
        Operator.of(settings, "http://127.0.0.1:9002").ask("GET", "/admin/models")
    monkeypatch.setenv("GATEWAY_URL", "https://gateway.example")
    Operator.of(settings, None).ask("POST", "/admin/models/m/unload")
    assert asked == [("https://gateway.example", "POST", "/admin/models/m/unload")]


def test_a_command_without_a_key_is_told_where_it_belongs(run: Run, server: Server) -> None:
    server.status, server.body = 401, b'{"error": {"message": "Incorrect API key provided: none."}}'
    result = run("predict", "m", "-d", "{}", "--url", server.url)
    assert result.exit_code == 1 and "Set GATEWAY_API_KEY to your key" in result.stderr


def text(content: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}}]}


# ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "typed", "sent"),
    [
        (["-d", '{"a": 1}'], "", {"a": 1}),
        (["-i", "a=1", "-i", "b=two words", "-i", "c=[1, 2]"], "", {"a": 1, "b": "two words", "c": [1, 2]}),
        (["-f", "-"], '{"from": "stdin"}', {"from": "stdin"}),
        ([], '{"piped": true}', {"piped": True}),
        ([], "", {}),
    ],
)
def test_the_input_is_given_in_several_ways(
    run: Run, server: Server, arguments: list[str], typed: str, sent: Any
) -> None:
    server.body = b'{"b": 2}'
    result = run("predict", "team/echo", *arguments, "--url", server.url, input=typed)
    assert result.stdout == '{"b": 2}\n'
    path, headers, body = server.seen[0]
    assert (path, body) == ("/v1/models/team/echo:predict", sent)
    assert "authorization" not in headers


def test_two_inputs_are_one_too_many(run: Run) -> None:
    assert "give the input with only one of" in run("predict", "echo", "-d", "1", "-i", "a=1").stderr
    assert 'extra argument ({"n": 4}): give the input with -d' in run("predict", "echo", '{"n": 4}').stderr
    assert "-d is not JSON" in run("predict", "echo", "-d", "{").stderr
    assert "-i a: write KEY=VALUE" in run("predict", "echo", "-i", "a").stderr
    assert "-f nowhere.json: No such file" in run("predict", "echo", "-f", "nowhere.json").stderr


def test_an_answer_that_breaks_off_names_the_log_of_its_model(run: Run, server: Server) -> None:
    server.length, server.body = 100, b'{"row": 1}\n'
    result = run("predict", "m", "-d", "{}", "--url", server.url)
    assert result.exit_code == 1 and result.stdout == '{"row": 1}\n'
    log = f"gateway logs m --url {server.url}"
    told = f"the answer of {server.url} broke off; for the exception of the model, see: {log}\n"
    assert result.stderr == f"Error: {told}"


def test_bytes_are_written_as_they_are(run: Run, server: Server) -> None:
    server.content_type, server.body = "application/octet-stream", b"\x00\xff"
    assert run("predict", "echo", "--url", server.url).stdout_bytes == b"\x00\xff"


def test_a_stream_of_lines_is_printed_as_it_is(run: Run, server: Server) -> None:
    server.content_type, server.body = "application/x-ndjson", b'{"row": 1}\n{"row": 2}\n'
    assert run("predict", "echo", "--url", server.url).stdout == '{"row": 1}\n{"row": 2}\n'


def test_the_key_and_the_address_come_from_the_environment(run: Run, server: Server) -> None:
    env = {"GATEWAY_API_KEY": "secret", "GATEWAY_URL": f"{server.url}/v1/"}
    assert run("predict", "echo", env=env).exit_code == 0
    assert server.seen[0][1]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"error": {"message": "no model named \'x\'"}}', "no model named 'x'"),
        (b'{"error": "Model raised\\n\\u001b[31mlines"}', "Model raised\\n\\x1b[31mlines"),
        (b"<html>", "<html>"),
    ],
)
def test_an_error_of_the_gateway_is_one_line(run: Run, server: Server, body: bytes, shown: str) -> None:
    server.status, server.body = 404, body
    result = run("predict", "x", "--url", server.url)
    assert (result.exit_code, result.stderr) == (1, f"Error: 404: {shown}\n")


def test_no_gateway_is_said_with_the_next_step(run: Run) -> None:
    result = run("chat", "x", "hello", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr == "Error: no gateway answers at http://127.0.0.1:1; start it with: gateway serve\n"
    assert run("chat", "x", "hello", "--url", "ftp://x").exit_code == 2


@pytest.mark.parametrize("command", [("predict", "x"), ("ps",)])
def test_a_port_that_is_no_number_makes_no_url(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--url", "http://127.0.0.1:8000,")
    assert result.exit_code == 2
    assert "http://127.0.0.1:8000, is not a gateway URL" in result.stderr


@pytest.mark.parametrize("command", [("predict", "x"), ("chat", "x", "hello"), ("ps",), ("logs", "x"), ("reload",)])
def test_a_gateway_that_runs_on_another_port_is_told_with_how_it_is_reached(run: Run, command: tuple[str, ...]) -> None:
    killed, there = (bind_admin(admin_path(None, port)) for port in (34566, 34567))
    killed.close()  # its file stays
    with contextlib.closing(there):
        result = run(*command, env={"GATEWAY_URL": "http://127.0.0.1:1"})
    assert result.exit_code == 1
    assert result.stderr.endswith("; one of yours is running: add --url http://127.0.0.1:34567\n")
    assert "--url http" not in run(*command, env={"GATEWAY_URL": "http://127.0.0.1:1"}).stderr


# ── chat ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_is_answered_once(run: Run, server: Server) -> None:
    server.says(": ping", text("good "), {"choices": []}, text("morning"), "data: [DONE]")
    options = ["--system", "be kind", "--max-tokens", "5", "--temperature", "0"]
    result = run("chat", "tiny", "hello", *options, "--url", server.url)
    assert (result.stdout, result.exit_code) == ("good morning\n", 0)
    path, _, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "tiny",
        "stream": True,
        "max_tokens": 5,
        "temperature": 0,
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}],
    }


def test_a_message_may_be_piped_in(run: Run, server: Server) -> None:
    server.says(text("yes"))
    assert run("chat", "tiny", "--url", server.url, input="is it\nso?\n").stdout == "yes\n"
    assert server.seen[0][2]["messages"] == [{"role": "user", "content": "is it\nso?"}]
    assert "standard input is empty" in run("chat", "tiny", "--url", server.url, input="").stderr


def test_a_stream_that_fails_is_an_error_after_what_came(run: Run, server: Server) -> None:
    server.says(text("good "), {"error": {"message": "the worker was lost"}})
    result = run("chat", "tiny", "hello", "--url", server.url)
    assert (result.stdout, result.stderr, result.exit_code) == ("good \n", "Error: the worker was lost\n", 1)


def test_a_conversation_remembers_and_survives_an_error(
    run: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.cli import chat
    from gateway.cli.client import Client

    said = iter(["hello", "", "again", "and again"])

    def type_in(prompt: str) -> str:
        message = next(said, None)
        if message is None:
            raise EOFError
        server.status = 500 if message == "again" else 200
        return message

    monkeypatch.setattr("builtins.input", type_in)
    server.says(text("yes"))
    chat._converse(chat._Talk(Client(server.url), {"model": "tiny"}, None), contextlib.nullcontext)
    assert [len(body["messages"]) for _, _, body in server.seen] == [1, 3, 3]
    assert server.seen[2][2]["messages"][1] == {"role": "assistant", "content": "yes"}
