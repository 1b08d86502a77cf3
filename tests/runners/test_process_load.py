"""Real workers: how they load, and how they fail to, with a reason that people can act on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ModelError
from gateway.hosting.model import HostedModel
from gateway.hosting.replica_maker import Maker
from gateway.runners.process import ProcessReplica
from gateway.runners.replica import Launch, LoadError
from gateway.spec import Limits, ModelSpec

from .started import Started, started, write

pytestmark = pytest.mark.anyio

HANGING_LOAD = """
    import time
    class Model:
        def load(self): print("loading"); time.sleep(600)
        def predict(self, x): ...
    """
GOOD = "class Model:\n    def predict(self, x): return x\n"


async def test_what_no_second_try_can_help_is_fatal_at_once_with_its_text(tmp_path: Path) -> None:
    sources = {
        "syntax": ("class Model(:\n", "SyntaxError: "),
        "import": ("import no_such_package_anywhere\n", "if it is your own code, put no_such_package_anywhere.py"),
        "sibling": ("import helper\n", "import it as model.helper"),
        "submodule": ("import fastapi.nothing_of_that_name\n", "has no such module: another version may"),
        "relative": ("from .helper import x\n", "absolute imports"),
        "class": ("class Modell: pass\n", "has no class 'Model' (classes there: Modell)"),
        "definition": ("class Model:\n    def predict(self, a, b, c): ...\n", "cannot have more than two arguments"),
        "methods": ("class Model:\n    def load(self): ...\n", "a model needs one of the methods predict, "),
        "file": (None, "No module class file found"),
    }

    async def reason_of(name: str, source: str | None) -> tuple[str, bool, int]:
        root = write(tmp_path / name, {"model/helper.py": "x = 1"})
        found = Started(root)
        if source is not None:
            write(root, {"model/model.py": source})
        with pytest.raises(LoadError) as caught:
            await found.replica.start()
        assert found.guarded == set()
        return str(caught.value), caught.value.fatal, len(found.log.lines)

    found = await asyncio.gather(*(reason_of(name, source) for name, (source, _) in sources.items()))
    for (name, (_, text)), (reason, fatal, _) in zip(sources.items(), found, strict=True):
        assert text in reason, name
        assert fatal, name


async def test_the_advice_of_a_failed_load_has_the_id_of_the_model(tmp_path: Path) -> None:
    source = """
        from gateway import ConfigError
        class Model:
            def load(self): raise ConfigError("trust it: [models.NAME] allow_pickle = true")
            def predict(self, x): ...
        """
    write(tmp_path, {"model/model.py": source})
    with pytest.raises(LoadError) as caught:
        await Started(tmp_path, spec={"name": "saved/iris-cp"}).replica.start()
    assert str(caught.value) == 'trust it: [models."saved/iris-cp"] allow_pickle = true'


async def test_a_load_that_raises_has_two_attempts_and_its_traceback_in_the_log(tmp_path: Path) -> None:
    source = """
        class Model:
            tries = 0
            def load(self):
                Model.tries += 1
                raise OSError(f"no weights, attempt {Model.tries}")
            def predict(self, x): ...
        """
    write(tmp_path, {"model/model.py": source})
    found = Started(tmp_path)
    with pytest.raises(LoadError, match="OSError: no weights, attempt 2") as caught:
        await found.replica.start()
    assert not caught.value.fatal
    assert any("attempt 1; trying again" in line for line in found.log.lines)
    assert any("model.py" in line for line in found.log.lines)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("os._exit(3)", r"the worker exited with status 3 \(code of the model, .* ended its process\)"),
        ("os._exit(0)", r"the worker exited with status 0 \(code of the model, .* ended its process\)"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("os.kill(os.getpid(), 11)", "the worker was ended by SIGSEGV"),
        (
            "os.fork() and os._exit(4); time.sleep(600)",
            "the worker exited with status 4",
        ),  # the child holds the channel
    ],
    ids=["_exit", "_exit of 0", "exit", "segfault", "forked"],
)
async def test_a_process_that_ends_while_it_loads_is_a_load_error_that_says_how(
    tmp_path: Path, how: str, reason: str
) -> None:
    source = f"import os, sys, time\nclass Model:\n    def load(self): {how}\n    def predict(self, x): ...\n"
    write(tmp_path, {"model/model.py": source})
    found = Started(tmp_path)
    with pytest.raises(LoadError, match=reason):
        await found.replica.start()
    assert found.guarded == set()


async def test_a_load_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    source = HANGING_LOAD
    write(tmp_path, {"model/model.py": source})
    found = Started(tmp_path)
    loading = asyncio.create_task(found.replica.start())
    await found.log.find("loading")
    pid = found.replica.pid
    assert pid is not None
    loading.cancel()
    await asyncio.wait([loading])
    assert loading.cancelled()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert found.guarded == set()


async def test_a_load_over_its_limit_fails_its_model_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, {"model/model.py": HANGING_LOAD})
    spec = ModelSpec(
        name="m", target="model.model:Model", root=tmp_path, own_code=True, limits=Limits(load_timeout=0.5)
    )
    maker = Maker(ProcessReplica, lambda spec, index: Launch(spec=spec, index=index, on_log=lambda line: None))
    model = HostedModel(spec, maker)
    model.start()
    assert await model.settled() == "failed"
    assert model.reason == "the load took longer than 0.5 s and was ended"
    await model.stop(1)


async def test_a_worker_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    write(tmp_path, {"model/model.py": GOOD})
    found = Started(tmp_path, spec={"python": "/no/such/python"})
    with pytest.raises(LoadError, match="could not be started"):
        await found.replica.start()
    await found.replica.stop(1)
    await found.replica.kill("again")


async def test_what_changes_while_a_model_loads_is_there_when_it_has_loaded(tmp_path: Path) -> None:
    """Told before the process has even started, and once more during its load; and a config larger than a frame."""
    source = """
        import time
        class Model:
            def __init__(self, secrets, config, environment):
                self.secrets, self.size, self.told = secrets, len(config["big"]), [environment]
            def setup_environment(self, environment):
                self.told.append(environment)
                print("told", environment["name"])
            def load(self):
                print("first", self.secrets["token"])
                while self.secrets["token"] != "third-token": time.sleep(0.001)
            def predict(self, x): return [self.secrets["token"], self.size, self.told]
        """
    write(tmp_path, {"model/model.py": source})
    spec = {"secrets": ("token",), "config": {"big": "x" * 600_000}}
    found = Started(tmp_path, spec=spec, secrets={"token": "first-token"}, deployment={"name": "old"})
    loading = asyncio.create_task(found.replica.start())
    found.replica.update({"token": "second-token"}, {"name": "new"})
    try:
        await found.log.find("first ***")
        found.replica.update({"token": "third-token"}, None)
        await loading
        await found.log.find("told new")
        assert await found.ask("predict") == [
            "third-token",
            600_000,
            [{"name": "old"}, {"name": "old"}, {"name": "new"}],
        ]
    finally:
        await found.replica.kill("the test is over")


async def test_three_models_with_the_same_module_names_do_not_meet(tmp_path: Path) -> None:
    async def answer(number: int) -> Any:
        files = {
            "model/model.py": """
                from model.helper import WORD
                from shared.words import PACKAGED
                class Model:
                    def predict(self, x): return [WORD, PACKAGED, open("data/file.txt").read()]
                """,
            "model/helper.py": f"WORD = 'sibling {number}'",
            "packages/shared/words.py": f"PACKAGED = 'package {number}'",
            "data/file.txt": f"data {number}",
        }
        root = write(tmp_path / str(number), files)
        async with started(root, spec={"import_dirs": (root / "packages",)}) as found:
            return await found.ask("predict")

    answers = await asyncio.gather(*(answer(number) for number in range(3)))
    assert answers == [[f"sibling {n}", f"package {n}", f"data {n}"] for n in range(3)]


async def test_a_model_that_breaks_its_own_output_still_becomes_ready(tmp_path: Path) -> None:
    source = """
        import os, sys
        class Model:
            def load(self):
                os.close(1); os.close(2); sys.stdout.close(); sys.stderr.close()
            def predict(self, x):
                if x: raise ValueError("nobody sees it")
                return "fine"
        """
    async with started(tmp_path, source) as found:
        assert await found.ask("predict", 0) == "fine"
        with pytest.raises(ModelError):
            await found.ask("predict", 1)
        assert await found.ask("predict", 0) == "fine"
