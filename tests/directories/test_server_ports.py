"""Ports of a model's own servers, as its files write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.directories.code import server_ports as server_ports_module
from gateway.directories.code.server_ports import server_ports
from gateway.directories.config.config import read_config
from gateway.directories.describe import describe

START = "import subprocess, sys, os\n"


def ports(root: Path, source: str, config: str = "", files: dict[str, str] | None = None) -> dict[int, str]:
    for name, text in {"model/model.py": source, "config.yaml": config, **(files or {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    spec = describe(root, target="model.model:Model", format="truss", overrides={})
    return {item.port: item.where for item in server_ports(spec, read_config(root).data)}


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.Popen(['llama-server', '--port', '8765'])",
        "subprocess.Popen(['llama-server', '--port=8765'])",
        "subprocess.Popen(['x', '--http-port', str(8765)])",
        "subprocess.Popen(['x', '-p', f'{8765}'])",
        "subprocess.Popen('x serve --port 8765', shell=True)",
        "os.system('x --port=8765 &')",
        "PORT = 8765\nsubprocess.Popen(['x', '--port', str(PORT)])",
        "BASE = 8000\nsubprocess.Popen(['x', '--port', str(BASE + 765)])",
        "class Model:\n  port: int = 8765\n  def load(self): subprocess.Popen(['x', '--port', str(self.port)])",
        "subprocess.Popen(['gunicorn', '--bind', '0.0.0.0:8765', 'app'])",
        "subprocess.Popen(['x'], env={**os.environ, 'PORT': '8765'})",
        "os.environ['SERVER_PORT'] = '8765'",
        "subprocess.Popen(['vllm', 'serve'] + ['a/b', '--port', '8765'])",
        "cmd = ['vllm', 'serve', 'a/b']\ncmd.append('--port=8765')",
        "import uvicorn\nuvicorn.run(app, port=8765)",
        "import http.server\nhttp.server.ThreadingHTTPServer(('127.0.0.1', 8765), None)",
        "port = int(os.environ.get('MY_PORT', '8765'))",
        "subprocess.Popen([sys.executable, '-c', 'import socket, subprocess\\nsocket.create_server((\"\", 8765))'])",
        "assert subprocess.call(['x', '--port', '8765']) == 0",
        "for line in subprocess.Popen(['x', '--port', '8765']).stdout: print(line)",
        "import httpx\nhttpx.get('http://127.0.0.1:8765/health')",
        "import httpx\nP = 8765\nhttpx.get(f'http://localhost:{P}/health')",
    ],
)
def test_a_port_that_is_written_down_is_found_with_its_line(tmp_path: Path, code: str) -> None:
    found = ports(tmp_path, START + code)
    assert list(found) == [8765]
    assert found[8765].startswith("model/model.py:")


@pytest.mark.parametrize(
    "command",
    [
        "['vllm', 'serve', 'a/b']",
        "[sys.executable, '-m', 'vllm.entrypoints.openai.api_server', '--model', 'x']",
        "'python -m http.server'",
        "['/usr/bin/uvicorn', 'app:app']",
        "[sys.executable, '-m', 'uvicorn', '--factory', 'app:make']",
        "'cd /srv && exec uvicorn main:app --workers 2'",
        "['fastapi', 'run', 'main.py']",
        "['tritonserver', '--model-repository=/models']",
    ],
)
def test_servers_that_take_8000_unasked_are_known(tmp_path: Path, command: str) -> None:
    assert list(ports(tmp_path, f"{START}subprocess.Popen({command})")) == [8000]


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.Popen(['vllm', 'serve', 'a/b', '--port', port_from_elsewhere()])",
        "subprocess.run(['ffmpeg', '-i', 'x', '-ar', '16000'])",
        "subprocess.run(['ls'])\nsize = (8765, 1080)\nx = {'width': 8765}",
        "name = 'vllm'",
        "import httpx\nhttpx.get('https://example.com:8765/')",
        "port = 0",
        "subprocess.run(['mkdir', '-p', '2024'])",
        "os.system('mkdir -p 2024 && ls')",
        "subprocess.run(['ssh', '-p', '2222', 'host'])",
        "subprocess.run(['ffmpeg', '-b', '4000'])",
        "DATABASE_PORT = 5432\nconfig = {'redis.port': 6379}",
        "cmd = ['vllm', 'serve', 'a/b']\ncmd += ['--port', free_port()]",
        "cmd = ['vllm', 'serve', 'a/b']\ncmd.extend(['--port', free_port()])",
        "import uvicorn\nuvicorn.run(app, port=free_port())",
        "if sys.argv[0] in ('uvicorn', 'nginx'): pass",
        "if sys.argv[1:] in (['vllm', 'serve'], ['uvicorn', 'app:app']): pass",
        "SERVERS = ('uvicorn', 'gunicorn', 'hypercorn', 'nginx')",
        "SERVERS = ['uvicorn', 'nginx: worker']",
        "for name in ['tritonserver', 'vllm']: subprocess.run(['pgrep', name])",
        "found = [p for p in os.listdir('/proc') if p in ('uvicorn', 'vllm')]",
        "raise RuntimeError('start it with vllm serve MODEL --port 8765')",
        "print('vllm serve is up on --port 8765')",
        "assert sys.argv, 'run uvicorn main:app'",
        "def f():\n    'python -m http.server listens on 8000'",
        "import shutil\nshutil.which('vllm serve')",
        "import redis\nredis.Redis(host='cache.example.com', port=6379)",
    ],
)
def test_other_numbers_are_no_ports(tmp_path: Path, code: str) -> None:
    assert ports(tmp_path, START + code) == {}


@pytest.mark.parametrize(
    ("code", "port"),
    [
        ("subprocess.Popen([sys.executable, '-m', 'sglang.launch_server', '--model-path', 'x'])", 30000),
        ("subprocess.Popen(['llama-server', '-m', 'x.gguf'])", 8080),
        ("subprocess.Popen(['ollama', 'serve'])", 11434),
        ("subprocess.Popen(['text-generation-launcher', '--model-id', 'x'])", 3000),
        ("subprocess.Popen(['trtllm-serve', 'x'])", 8000),
        ("import uvicorn\nuvicorn.run(app)", 8000),
        ("import threading, uvicorn\nthreading.Thread(target=uvicorn.run, args=(app,)).start()", 8000),
    ],
)
def test_each_server_has_a_port_of_its_own_that_it_takes_unasked(tmp_path: Path, code: str, port: int) -> None:
    assert list(ports(tmp_path, START + code)) == [port]


def test_a_model_that_starts_nothing_has_none(tmp_path: Path) -> None:
    assert ports(tmp_path, "PORT = 8765\nURL = 'http://127.0.0.1:8765'\n") == {}


def test_config_yaml_scripts_and_packages_are_read_too(tmp_path: Path) -> None:
    config = (
        "environment_variables: {VLLM_PORT: 8101}\n"
        "model_metadata: {start_command: 'vllm serve x --port 8102', engine: {port: 8103}}\n"
    )
    files = {"start.sh": "#!/bin/sh\nexec x --port 8104\n", "packages/side/run.py": "PORT = 8105\n"}
    assert ports(tmp_path, START, config, files) == {
        8101: "config.yaml: environment_variables.VLLM_PORT",
        8102: "config.yaml: model_metadata.start_command",
        8103: "config.yaml: model_metadata.engine.port",
        8104: "start.sh:2",
        8105: "packages/side/run.py:1",
    }


def test_directories_that_are_shared_are_searched_after_its_own_and_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_ports_module, "MAX_LOOKED", 20)
    for number in range(100):
        (tmp_path / "all" / f"{number}").mkdir(parents=True)
    looked: list[Path] = []
    suffix = Path.suffix.fget
    monkeypatch.setattr(Path, "suffix", property(lambda path: looked.append(path) or suffix(path)))
    source = START + "subprocess.Popen(['x', '--port', '8765'])"
    assert ports(tmp_path / "m", source, "external_package_dirs: [../all]") == {8765: "model/model.py:2"}
    assert 0 < len([path for path in looked if "all" in path.parts]) < 20

    spec = describe(tmp_path / "m", target="model.model:Model", format="truss", overrides={})
    assert not server_ports_module.is_searched_whole(spec)
    (tmp_path / "m/config.yaml").write_text("")
    spec = describe(tmp_path / "m", target="model.model:Model", format="truss", overrides={})
    assert server_ports_module.is_searched_whole(spec)
