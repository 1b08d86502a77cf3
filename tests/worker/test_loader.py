"""From files to a loaded model, in Truss's order and under Truss's names."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.directories import weights
from gateway.errors import ConfigError
from gateway.spec import ModelSpec
from gateway.worker.bodies.failures import notes_of
from gateway.worker.loading import loader
from gateway.worker.loading.descriptor import ModelDefinitionError
from gateway.worker.loading.loader import Loaded, Unloadable, import_file, module_name_of
from gateway.worker.loading.secrets import SecretNotFound, Secrets

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What a load changes of its process is put back: a worker has a process of its own, tests have not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(loader, "RETRY_PAUSE", 0.0)
    monkeypatch.setenv("NUM_LOAD_RETRIES_TRUSS", "1")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(root: Path, name: str, source: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))


def truss(root: Path, source: str, **fields: Any) -> ModelSpec:
    write(root, "model/model.py", source)
    defaults: dict[str, Any] = {"name": "m", "target": "model.model:Model", "root": root, "format": "truss"}
    return ModelSpec(**{**defaults, "own_code": True, "data_dir": root / "data", **fields})


async def load(spec: ModelSpec, secrets: Secrets | None = None, deployment: dict[str, Any] | None = None) -> Loaded:
    """As a worker does it: on a thread that is not the loop's."""
    loop = asyncio.get_running_loop()
    endpoints = frozenset({"chat_completions"})
    given = secrets or Secrets(spec.secrets, {})
    return await loop.run_in_executor(None, loader.load, spec, given, deployment, endpoints, loop)


# ── where things are ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_truss_imports_as_model_model_with_its_siblings_and_packages(tmp_path: Path) -> None:
    write(tmp_path, "model/helper.py", "WORD = 'sibling'")
    write(tmp_path, "packages/toolkit/__init__.py", "WORD = 'package'")
    source = """
        from dataclasses import dataclass
        from model.helper import WORD as one
        from toolkit import WORD as two

        @dataclass
        class Data:
            x: "int" = 1

        class Model:
            def predict(self, x):
                return one, two, __name__, __package__, Data().x
        """
    loaded = await load(truss(tmp_path, source, import_dirs=(tmp_path / "packages", tmp_path / "missing")))
    assert loaded.model.predict(0) == ("sibling", "package", "model.model", None, 1)
    assert sys.path[0] == str(tmp_path)
    assert sys.path[-1] == str(tmp_path / "packages")


@pytest.mark.parametrize(
    ("file", "name"),
    [("model/model.py", "model.model"), ("src/serve.py", "serve"), ("model.py", "model"), ("a/model/x.py", "x")],
)
def test_the_modules_name_follows_trusss_rule(file: str, name: str) -> None:
    assert module_name_of(Path("/root") / file, Path("/root")) == name


def test_the_inner_directory_of_a_truss_may_be_the_root_itself() -> None:
    assert module_name_of(Path("/x/model/model.py"), Path("/x/model")) == "model"


async def test_relative_imports_are_refused_with_what_to_write_instead(tmp_path: Path) -> None:
    write(tmp_path, "model/helper.py", "WORD = 1")
    spec = truss(tmp_path, "from .helper import WORD\nclass Model:\n    def predict(self, x): ...\n")
    with pytest.raises(ImportError, match="absolute imports, such as `from model"):
        await load(spec)
    assert "model.model" not in sys.modules


def test_what_to_write_instead_of_a_relative_import_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("from .helper import WORD\n")
    with pytest.raises(ImportError, match="absolute imports, such as `from utils import x`"):
        import_file(tmp_path / "model.py", "model")


async def test_a_missing_data_directory_is_made_for_a_truss_and_for_no_other(tmp_path: Path) -> None:
    source = "class Model:\n    def __init__(self, data_dir): self.data = data_dir\n    def predict(self, x): ...\n"
    loaded = await load(truss(tmp_path / "a", source))
    assert loaded.model.data == Path("data")
    assert (tmp_path / "a/data").is_dir()
    await load(truss(tmp_path / "b", source, format="python"))
    assert not (tmp_path / "b/data").exists()


async def test_a_data_directory_outside_the_model_is_handed_over_as_it_is(tmp_path: Path) -> None:
    source = "class Model:\n    def __init__(self, data_dir): self.data = data_dir\n    def predict(self, x): ...\n"
    loaded = await load(truss(tmp_path / "a", source, data_dir=tmp_path / "elsewhere"))
    assert loaded.model.data == tmp_path / "elsewhere"


async def test_the_target_may_be_an_installed_module_or_a_plugins_file(tmp_path: Path) -> None:
    write(tmp_path, "plugin.py", "class Served:\n    def predict(self, x): return __name__\n")
    spec = ModelSpec(name="m", target=f"{tmp_path / 'plugin.py'}:Served", root=tmp_path)
    assert (await load(spec)).model.predict(0) == "plugin"
    with pytest.raises(ModelDefinitionError):
        await load(ModelSpec(name="m", target="collections:Counter", root=tmp_path))


async def test_a_directory_that_is_only_data_is_never_looked_at_for_modules(tmp_path: Path) -> None:
    """The class is the plugin's: what lies beside the weights is not imported under any name."""
    write(tmp_path / "plugins", "served_plugin.py", "class Served:\n    def predict(self, x): return __file__\n")
    sys.path.append(str(tmp_path / "plugins"))
    root = tmp_path / "m"
    for name in ("served_plugin.py", "json.py", "model/model.py", "packages/helper.py", "alone.py"):
        write(root, name, f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Served: ...\n")
    found = {"name": "m", "root": root, "format": "dots", "import_dirs": (root / "packages",)}
    before = list(sys.path)
    loaded = await load(ModelSpec(target="served_plugin:Served", **found))
    assert loaded.model.predict(0) == str(tmp_path / "plugins/served_plugin.py")
    assert sys.path == before
    with pytest.raises(Unloadable, match=r"no module 'alone'.*only data to the plugin.*ModelSpec\(own_code=True\)"):
        await load(ModelSpec(target="alone:Served", **found))
    assert not (tmp_path / "ran").exists()


async def test_a_plugin_opens_nothing_elsewhere_for_a_directory_that_is_only_data(tmp_path: Path) -> None:
    """Also through a link that was made after links were checked."""
    source = """
        from pathlib import Path
        from gateway import named_file, opened

        class Served:
            def load(self):
                (Path.cwd() / "link").symlink_to(Path.cwd().parent / "elsewhere")
                for look in (lambda: opened(Path.cwd() / "link"), lambda: named_file(Path.cwd(), "link", "a.json")):
                    try:
                        print("opened", look())
                    except Exception as error:
                        print("refused", error)
                (Path.cwd() / "link").unlink()

            def predict(self, x): return x
        """
    write(tmp_path / "plugins", "opening_plugin.py", source)
    sys.path.append(str(tmp_path / "plugins"))
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "m").mkdir()
    os.chdir(tmp_path / "m")
    said = {}
    for allows in (False, True):
        spec = ModelSpec(name="m", root=tmp_path / "m", format="dots", target="opening_plugin:Served")
        said[allows] = await printed(replace(spec, allow_links=allows))
    assert said == {False: ["refused", "refused"], True: ["opened", "opened"]}


async def printed(spec: ModelSpec) -> list[str]:
    """The first words of what a load prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        await load(spec)
    return [line.split()[0] for line in text.getvalue().splitlines() if line.startswith(("opened", "refused"))]


# ── the constructor ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_constructor_gets_what_it_asks_for_and_nothing_else(tmp_path: Path) -> None:
    source = """
        class Model:
            def __init__(self, config, environment, secrets, lazy_data_resolver):
                self.got = config["a"], environment, secrets["token"]
                self.waited = lazy_data_resolver.block_until_download_complete(log_stats=False)
            def predict(self, x): ...
        """
    spec = truss(tmp_path, source, config={"a": {"b": 1}}, secrets=("token",))
    loaded = await load(spec, Secrets(("token",), {"token": "value"}), {"name": "production"})
    assert loaded.model.got == ({"b": 1}, {"name": "production"}, "value")
    assert loaded.model.waited == ""


async def test_a_constructor_that_takes_everything_gets_everything(tmp_path: Path) -> None:
    source = """
        class Model:
            def __init__(self, **kwargs): self.got = sorted(kwargs)
            def predict(self, x): ...
        """
    loaded = await load(truss(tmp_path, source))
    assert loaded.model.got == ["config", "data_dir", "environment", "lazy_data_resolver", "secrets"]


async def test_a_constructor_without_parameters_is_fine(tmp_path: Path) -> None:
    await load(truss(tmp_path, "class Model:\n    def predict(self, x): ...\n"))


# ── load ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "written"),
    [("__init__(**kwargs)", "__init__(self, **kwargs)"), ("__init__()", "__init__(self)"), ("load()", "load(self)")],
)
async def test_a_method_without_self_is_no_load_to_try_again(tmp_path: Path, method: str, written: str) -> None:
    spec = truss(tmp_path, f"class Model:\n    def predict(self, x): ...\n    def {method}: ...\n")
    with pytest.raises((Unloadable, ModelDefinitionError)) as caught:  # of which the gateway tries none again
        await load(spec)
    told = f"{tmp_path}/model/model.py:3: `{method}` has no self, so it cannot be called: write `{written}`"
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("__init__(config): config['a']", "`__init__(config)` has no self, so config is the model itself"),
        ("__int__(self, config): self.a = 1", "the class has `__int__`, which nothing calls"),
        ("load(config): config['a']", "`load(config)` has no self, so config is the model itself"),
    ],
)
async def test_what_is_asked_about_a_class_is_in_the_reason_of_its_failure(
    tmp_path: Path, method: str, told: str
) -> None:
    source = f"class Model:\n    def predict(self, x): ...\n    def {method}\n"
    more = "" if method.startswith("load") else "    def load(self): self.a\n"
    with pytest.raises((AttributeError, TypeError)) as caught:
        await load(truss(tmp_path, source + more))
    assert notes_of(caught.value).startswith(f"; {told}")


async def test_load_runs_after_the_deployment_was_told_off_the_loop_and_without_one(tmp_path: Path) -> None:
    source = """
        import asyncio, threading
        class Model:
            def __init__(self): self.steps = []; self.thread = threading.get_ident()
            def setup_environment(self, environment): self.steps.append(environment["name"])
            def load(self):
                try: asyncio.get_running_loop()
                except RuntimeError: self.steps.append("no loop")
                self.steps.append(self.thread == threading.get_ident())
            def predict(self, x): ...
        """
    loaded = await load(truss(tmp_path, source), deployment={"name": "staging"})
    assert loaded.model.steps == ["staging", "no loop", True]
    assert (await load(truss(tmp_path, source))).model.steps == ["no loop", True]


async def test_coroutines_are_awaited_where_the_model_will_live(tmp_path: Path) -> None:
    source = """
        import asyncio
        class Model:
            async def setup_environment(self, environment): self.environment = environment
            async def load(self):
                await asyncio.sleep(0)
                self.loop = asyncio.get_running_loop()
            def predict(self, x): ...
        """
    loaded = await load(truss(tmp_path, source), deployment={"name": "x"})
    assert loaded.model.loop is asyncio.get_running_loop()
    assert loaded.model.environment == {"name": "x"}


FAILING = """
    class Model:
        def __init__(self): self.tries = 0
        def load(self):
            self.tries += 1
            if self.tries <= {failures}: raise OSError(f"try {{self.tries}}")
        def predict(self, x): ...
    """


async def test_load_has_a_second_try_on_the_same_instance(tmp_path: Path) -> None:
    assert (await load(truss(tmp_path, FAILING.format(failures=1)))).model.tries == 2


async def test_the_last_error_of_load_is_the_one_that_counts(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="try 2"):
        await load(truss(tmp_path, FAILING.format(failures=9)))


@pytest.mark.parametrize(("value", "tries"), [("0", 1), ("3", 4), ("junk", 2), ("-5", 1)])
async def test_the_number_of_tries_is_trusss_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, tries: int
) -> None:
    monkeypatch.setenv("NUM_LOAD_RETRIES_TRUSS", value)
    with pytest.raises(OSError, match=f"try {tries}"):
        await load(truss(tmp_path, FAILING.format(failures=99)))


async def test_a_coroutine_that_exits_ends_the_load_and_not_the_loop(tmp_path: Path) -> None:
    source = """
        class Model:
            async def load(self): raise SystemExit(3)
            def predict(self, x): ...
        """
    caught: BaseException | None = None
    try:
        await load(truss(tmp_path, source))
    except BaseException as error:
        caught = error
    assert isinstance(caught, SystemExit)


async def test_weights_are_at_their_mount_location_before_the_constructor_looks(tmp_path: Path) -> None:
    write(tmp_path, "weights/w.txt", "42")
    place = tmp_path / "mounted"
    os.environ["GATEWAY_CACHE_DIR"] = str(tmp_path / "cache")
    try:
        source = f"""
            class Model:
                def __init__(self): self.text = open({str(place / "w.txt")!r}).read()
                def predict(self, x): ...
            """
        weights = [{"source": f"file://{tmp_path / 'weights'}", "mount_location": str(place)}]
        with pytest.raises(ConfigError, match=r"is only created where gateway\.toml allows it"):
            await load(truss(tmp_path / "m", source, config={"weights": weights}))
        loaded = await load(truss(tmp_path / "m", source, config={"weights": weights}, mount_roots=(tmp_path,)))
        assert loaded.model.text == "42"
        weights = [{"source": "file:///not/here", "mount_location": str(tmp_path / "other")}]
        with pytest.raises(ConfigError, match="/not/here does not exist"):
            await load(truss(tmp_path / "m", source, config={"weights": weights}, mount_roots=(tmp_path,)))
    finally:
        del os.environ["GATEWAY_CACHE_DIR"]


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_missing_file_says_what_truss_says(tmp_path: Path) -> None:
    with pytest.raises(Unloadable, match="No module class file found"):
        await load(ModelSpec(name="m", target="model.model:Model", root=tmp_path, own_code=True))
    with pytest.raises(Unloadable, match="No module class file found"):
        await load(ModelSpec(name="m", target=f"{tmp_path / 'gone.py'}:Model", root=tmp_path))


async def test_a_missing_class_lists_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(Unloadable, match=r"has no class 'Model' \(classes there: Modell\)"):
        await load(truss(tmp_path, "class Modell:\n    pass\n"))


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("class Model(:\n", SyntaxError),
        ("import no_such_module_anywhere\n", ModuleNotFoundError),
        ("1/0", ZeroDivisionError),
    ],
)
async def test_an_error_of_the_file_itself_is_passed_on_and_leaves_no_half_module(
    tmp_path: Path, source: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await load(truss(tmp_path, source))
    assert "model.model" not in sys.modules


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_secrets_answer_for_declared_names_only() -> None:
    secrets = Secrets(("token", "empty"), {"token": "value", "empty": "", "other": "x"})
    assert secrets["token"] == "value"
    assert secrets.get("other", "default") == "default"
    assert "token" in secrets
    assert "empty" not in secrets
    assert len(secrets) == 2
    with pytest.raises(SecretNotFound, match="'other' is not declared"):
        secrets["other"]
    with pytest.raises(SecretNotFound, match="'empty' has no value"):
        secrets["empty"]


def test_secrets_know_what_config_yaml_declares_by_the_name_that_trusses_use() -> None:
    secrets = Secrets(("token", "other"), {"token": "value"}, {"token": None, "other": "given"})
    assert "token" in secrets._base_secrets.keys()  # noqa: SIM118  (as they write it)
    assert secrets._base_secrets == {"token": None, "other": "given"}


def test_secrets_are_looked_up_at_every_access() -> None:
    secrets = Secrets(("token",), {})
    assert "token" not in secrets
    secrets.replace({"token": "new"})
    assert secrets["token"] == "new"


# ── what lies there ──────────────────────────────────────────────────────────────────────────────────────────────────

RAN = "open('ran', 'w')\nclass Model:\n    def predict(self, x): return x\n"


async def test_nothing_of_a_model_runs_when_a_file_is_not_the_one_that_was_listed(tmp_path: Path) -> None:
    spec = truss(tmp_path, RAN)
    digest = hashlib.sha256(RAN.encode()).hexdigest()
    write(tmp_path, "data/weights.bin", "good")
    write(
        tmp_path, "SHA256SUMS", f"{digest}  model/model.py\n{hashlib.sha256(b'good').hexdigest()}  data/weights.bin\n"
    )
    write(tmp_path, "data/weights.bin", "evil")
    with pytest.raises(ConfigError, match=r"data/weights\.bin: differs from SHA256SUMS"):
        await load(spec)
    assert not (tmp_path / "ran").exists()
    write(tmp_path, "data/weights.bin", "good")
    await load(spec)
    assert (tmp_path / "ran").exists()


async def test_nothing_of_a_model_runs_when_a_file_is_there_that_the_list_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "")
    spec = truss(tmp_path, RAN)
    write(tmp_path, "SHA256SUMS", f"{hashlib.sha256(RAN.encode()).hexdigest()}  ./model/model.py\n")
    write(tmp_path, "model/json.py", "")
    with pytest.raises(ConfigError, match=r"model/json\.py: not listed in SHA256SUMS"):
        await load(spec)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "model/json.py").unlink()
    # Compiled code is of the listed sources and of nothing else, and what the model wrote itself is its own.
    write(tmp_path, "data/rows.txt", "written by an earlier call")
    await load(spec)
    (tmp_path / "ran").rename(tmp_path / "data/ran")
    assert not (tmp_path / "model/__pycache__").exists()
    assert sys.pycache_prefix == os.environ["PYTHONPYCACHEPREFIX"] != ""


async def test_nothing_of_a_model_runs_when_a_link_of_its_directory_leads_out(tmp_path: Path) -> None:
    spec = truss(tmp_path, RAN)
    (tmp_path / "vocabulary.txt").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match=r"vocabulary\.txt: this link leads out of the model directory"):
        await load(spec)
    assert not (tmp_path / "ran").exists()
    await load(truss(tmp_path, RAN, allow_links=True))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("is_mounted", [False, True])
async def test_no_class_gets_weights_with_a_link_out_of_them_unless_that_is_allowed(
    is_mounted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_allows_links", False)
    monkeypatch.setattr(weights, "_of_the_model", {})
    mount = tmp_path / "mounted" / "weights"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "template").symlink_to("/etc/passwd")
    source = """
        from pathlib import Path
        from gateway import weights_path

        class Model:
            def __init__(self, config): self.config = config
            def load(self): self.place = weights_path(self.config, Path(__file__).parent.parent)
            def predict(self, x): return str(self.place)
        """
    entry = {"source": "file://../weights"} | ({"mount_location": str(mount)} if is_mounted else {})
    spec = truss(tmp_path / "m", source, config={"weights": [entry]}, mount_roots=(tmp_path / "mounted",))
    with pytest.raises(ConfigError, match="template: this link leads out of the folder of the weights"):
        await load(spec)
    loaded = await load(replace(spec, allow_links=True))
    assert loaded.model.predict(0) == str(mount if is_mounted else tmp_path / "m/../weights")
