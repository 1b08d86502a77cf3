"""T11 to T15: names that are no names, files that are code, settings that are not the operator's."""

from __future__ import annotations

import ast
import asyncio
import random
import resource
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Model, Served

import gateway
from gateway.errors import Crashed, GatewayError
from gateway.runners.call import Call
from gateway.runners.process import ProcessReplica
from gateway.runners.replica import Launch, LoadError
from gateway.spec import Limits, ModelSpec
from gateway.testing import Gateway
from gateway.wire.frames import BYTES, Req

PACKAGE = Path(gateway.__file__).parent
ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"

# ── T11: names ───────────────────────────────────────────────────────────────────────────────────────────────────────

WATCHED: list[list[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCHED and event in ("open", "os.listdir", "os.scandir"):
        WATCHED[-1].append(str(arguments[0]))


sys.addaudithook(_watch)  # for good, and quiet unless a test listens


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served({"m": Model({"predict": lambda body: b'"fine"', "chat_completions": lambda inputs: "fine"})}) as served:
        "é.example".encode("idna")  # which loads tables, as a client may
        served.post("/v1/chat/completions", {"messages": [chat()]})
        yield served


SEGMENTS = st.sampled_from(
    ["..", ".", "", "etc", "passwd", "%2e%2e", "%2f", "..%2f..", "%00", "m", "config.yaml", "~", "C:", "é", "\\..\\"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SEGMENTS | st.text(max_size=8), min_size=1, max_size=6).map("/".join))
def test_no_name_in_a_request_opens_a_file(served: Served, name: str) -> None:
    opened: list[str] = []
    WATCHED.append(opened)
    try:
        for path in (f"/v1/models/{quote(name, safe='%/')}", f"/models/{quote(name, safe='%/')}/predict"):
            answer = served.ask("POST" if path.endswith("predict") else "GET", path, None)
            assert answer.status in (200, 400, 404, 405), f"{path}: {answer.status}"
            assert b"root:" not in answer.body
        assert served.post("/v1/chat/completions", {"model": name or "x", "messages": [chat()]}).status in (
            200,
            400,
            404,
        )
    finally:
        WATCHED.pop()
    assert not opened, opened


def chat() -> dict[str, str]:
    return {"role": "user", "content": "hi"}


# ── T12: pickle and its relatives ────────────────────────────────────────────────────────────────────────────────────

BANNED = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "multiprocessing"}
CALLS = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "numpy.load", "os.system"}


def offences(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in BANNED)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in BANNED:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS:
                yield name
            if any(word.arg == "shell" and not is_false(word.value) for word in node.keywords):
                yield f"{name}(shell=…)"


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


# In a worker: those that the model itself spawns are told where its modules are. Nothing is sent that way by us.
KNOWN_USES = {"worker/loading/module_conflicts.py": ["multiprocessing"]}


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_in_the_gateway_turns_data_into_code(file: Path) -> None:
    known = KNOWN_USES.get(str(file.relative_to(PACKAGE)), [])
    assert list(offences(file.read_text("utf-8"))) == known


@pytest.mark.parametrize(
    "source", ["import pickle", "from marshal import loads", "yaml.load(x)", "eval(x)", "exec(x)", "run(x, shell=True)"]
)
def test_that_rule_sees_what_it_is_for(source: str) -> None:
    assert list(offences(source))


UNPICKLED: list[str] = []


def _note_pickles(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        UNPICKLED.append(f"{arguments[0]}.{arguments[1]}")


sys.addaudithook(_note_pickles)

FUZZER = """
    import gc, os, pickle, random, struct
    class Evil:
        def __reduce__(self): return os.system, ("true",)
    class Model:
        def predict(self, seed):
            channel = next(o for o in gc.get_objects() if type(o).__name__ == "ThreadChannel")
            descriptor = channel.transport.get_extra_info("socket").fileno()
            chance = random.Random(seed)
            while True:
                body = chance.choice([chance.randbytes(chance.randrange(99)), pickle.dumps(Evil()), b"{"])
                kind, call = chance.randrange(32), chance.randrange(4)
                size = chance.choice([len(body), chance.getrandbits(32)])
                os.write(descriptor, struct.pack("<IBI", size, kind, call) + body)
    """


@pytest.mark.anyio
async def test_a_worker_that_writes_anything_is_ended_and_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(textwrap.dedent(FUZZER))
    spec = ModelSpec(name="m", target="model:Model", root=tmp_path, own_code=True)
    before, UNPICKLED[:] = resident(), []
    for _ in range(8):
        replica = ProcessReplica(Launch(spec=spec, index=0, on_log=lambda line: None))
        await replica.start()
        seed = random.randrange(1 << 32)
        head = Req(method="predict", mode=BYTES, stream=False, content_type="", request_id="r")
        call = Call(head, str(seed).encode(), Limits(), asyncio.get_running_loop())
        replica.open(call, lambda call: None)
        with pytest.raises(GatewayError):
            while True:
                await call.first()
                if await call.take() is None:
                    raise Crashed("it answered, whatever it was")
        assert await asyncio.wait_for(replica.lost, 30), f"seed {seed}"
        await replica.kill("the test is over")
    assert UNPICKLED == []
    assert resident() - before < 64 * 1024**2


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# ── T13: weights ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_changed_file_fails_the_load_before_any_of_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{ECHO}")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  model.py\n")
    replica = ProcessReplica(
        Launch(spec=ModelSpec(name="m", target="model:Model", root=tmp_path, own_code=True), index=0)
    )
    with pytest.raises(LoadError, match=r"model\.py: differs from SHA256SUMS") as caught:
        await replica.start()
    assert caught.value.fatal
    assert not (tmp_path / "ran").exists()


def test_the_start_prints_a_line_for_everything_that_a_model_is_allowed(start: Callable[..., Gateway]) -> None:
    running = start({"m": ECHO}, "[models.m]\nallow_pickle = true\ntrust_remote_code = true\nallow_links = true\n")
    for key in ("allow_pickle", "trust_remote_code", "allow_links"):
        assert f"Warning: [models.m] {key} = true: " in running.log


# ── T15: settings of others ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_directory_sets_nothing_that_is_the_operators(start: Callable[..., Gateway], tmp_path: Path) -> None:
    greedy = (
        "host: 0.0.0.0\ninsecure_no_auth: true\nallow_pickle: true\ntrust_remote_code: true\nallow_links: true\n"
        "sandbox: basic\nmemory_limit: 1TiB\noptions: {allow_pickle: true}\nallowed_origins: ['*']\ndebug: true\n"
    )
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/config.yaml").write_text(greedy)
    (tmp_path / "models/m/model.py").write_text(ECHO)
    (tmp_path / "models/m/gateway.toml").write_text("[gateway]\nhost = '0.0.0.0'\n")
    from gateway.inspection.inventory import take_inventory
    from gateway.settings.load import load_settings
    from gateway.settings.schema import ModelSettings

    (tmp_path / "gateway.toml").write_text('[gateway]\nmodels = ["models"]\n[gateway.worker]\nsandbox = "strict"\n')
    found = take_inventory(load_settings(tmp_path / "gateway.toml", environ={}), with_devices=False)
    (spec,) = found.specs
    assert found.settings.gateway.host == "127.0.0.1"
    assert found.settings.model("m") == ModelSettings()
    assert (spec.sandbox, spec.memory_limit, spec.allow_links) == ("strict", None, False)
    assert "allow_pickle" not in (spec.config.get("options") or {})
