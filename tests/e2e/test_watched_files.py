"""`gateway serve --reload`: what serves is what is on the disk, and where it is not, the terminal and `ps` say so."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from gateway.testing import Gateway

from .test_first_day import ask, good, operate

Serve = Callable[..., Gateway]


def start(serve: Serve, place: Path, *names: str) -> Gateway:
    models = {name: {"model.py": good(name)} for name in names}
    return serve(models, "--reload", env={"XDG_RUNTIME_DIR": str(place), "NUM_LOAD_RETRIES_TRUSS": "0"})


def test_a_directory_that_was_moved_away_edited_and_moved_back_is_reloaded(serve: Serve, tmp_path: Path) -> None:
    truss = {"model/model.py": good("m"), "config.yaml": ""}
    gateway = serve({"m": truss, "n": {"model.py": good("n")}}, "--reload", env={"XDG_RUNTIME_DIR": str(tmp_path)})
    there, away = tmp_path / "models/m", tmp_path / "away"
    there.rename(away)
    gateway.wait_for("m: its directory is gone")
    (away / "model/model.py").write_text(good("edited"))
    away.rename(there)
    gateway.wait_for("model 'm' is reloaded")
    assert ask(gateway, "/models/m/predict", {}) == (200, ["edited"])

    (there / "model").rename(away)
    (away / "model.py").write_text(good("inner"))
    away.rename(there / "model")
    gateway.wait_for("(?s)'m' is reloaded.*'m' is reloaded")
    assert ask(gateway, "/models/m/predict", {}) == (200, ["inner"])
    assert "'n' is reloaded" not in gateway.log


def test_a_link_that_leads_elsewhere_now_is_a_reload(serve: Serve, tmp_path: Path) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model.py").write_text(good(version))
    gateway = start(serve, tmp_path, "n")
    link, next_link = tmp_path / "models/m", tmp_path / "next"
    link.symlink_to(tmp_path / "one")
    gateway.wait_for("model 'm' is ready")
    next_link.symlink_to(tmp_path / "two")
    next_link.rename(link)
    gateway.wait_for("model 'm' is reloaded")
    assert ask(gateway, "/models/m/predict", {}) == (200, ["two"])


def test_a_reload_that_failed_is_told_once_and_shown_as_long_as_the_old_code_serves(
    serve: Serve, tmp_path: Path
) -> None:
    gateway = start(serve, tmp_path, "m")
    code = tmp_path / "models/m/model.py"
    unknown = "import nothing_of_that_name\n" + good("m")
    for broken, why in (("class Model\n", "syntax error"), (unknown, "No module named 'nothing_of_that_name'")):
        code.write_text(broken)
        gateway.wait_for(f"by a change of its files: failed, but the previously loaded code keeps serving: .*{why}")
        shown = " ".join(operate(gateway, tmp_path, "ps").stdout.split())
        assert re.search(rf"m ready .* the reload at \d\d:\d\d:\d\d failed, the previously .* serving: .*{why}", shown)
        lines = [line for line in gateway.log.splitlines() if why in line and " m | " not in line]  # its own log aside
        assert len(lines) == 1 and "WARNING audit: reload of model 'm'" in lines[0]
        assert ask(gateway, "/models/m/predict", {}) == (200, ["m"])
    code.write_text(good("mended"))
    gateway.wait_for("model 'm' is reloaded")
    assert "failed" not in operate(gateway, tmp_path, "ps").stdout


def test_a_load_that_hangs_is_given_up_for_a_change_of_its_files_and_keeps_no_other_model_waiting(
    serve: Serve, tmp_path: Path
) -> None:
    hangs = good("x") + "    def load(self):\n        print('it hangs')\n        while True:\n            pass\n"
    files = {"new": {"model.py": hangs}, "m": {"model.py": good("m")}, "n": {"model.py": good("n")}}
    gateway = serve(files, "--reload", env={"XDG_RUNTIME_DIR": str(tmp_path)}, until="accepting")
    for line in ("new . it hangs", "model 'm' is ready", "model 'n' is ready"):
        gateway.wait_for(line)
    (tmp_path / "models/new/model.py").write_text(good("mended"))
    gateway.wait_for("model 'new' is ready")
    assert ask(gateway, "/models/new/predict", {}) == (200, ["mended"])

    (tmp_path / "models/m/model.py").write_text(hangs)
    gateway.wait_for("m . it hangs")
    (tmp_path / "models/n/model.py").write_text(good("other"))
    gateway.wait_for("model 'n' is reloaded")
    assert ask(gateway, "/models/n/predict", {}) == (200, ["other"])
    assert ask(gateway, "/models/m/predict", {}) == (200, ["m"])
    (tmp_path / "models/m/model.py").write_text(good("mended"))
    gateway.wait_for("model 'm' is reloaded")
    assert ask(gateway, "/models/m/predict", {}) == (200, ["mended"])


def test_a_directory_that_is_gone_is_told_once_with_what_ends_its_model(serve: Serve, tmp_path: Path) -> None:
    gateway = start(serve, tmp_path, "m", "n")
    (tmp_path / "models/m").rename(tmp_path / "models/renamed")
    gateway.wait_for("model 'renamed' is ready")
    gateway.wait_for("m: its directory is gone; the loaded model keeps serving until `gateway unload m` ends it")
    assert "`gateway unload m` ends it" in " ".join(operate(gateway, tmp_path, "ps").stdout.split())
    shutil.rmtree(tmp_path / "models/n")
    gateway.wait_for("n: its directory is gone")
    assert gateway.log.count("m: its directory is gone") == 1 and "not reloaded" not in gateway.log

    assert operate(gateway, tmp_path, "unload", "m").returncode == 0
    status, answer = ask(gateway, "/models/m/predict", {})
    assert status == 404 and "(have: n, renamed)" in answer["error"]
    (tmp_path / "models/m").mkdir()
    (tmp_path / "models/m/model.py").write_text(good("anew"))
    gateway.wait_for("(?s)find of model 'm' by a change of its files: done.*model 'm' is ready")
    assert ask(gateway, "/models/m/predict", {}) == (200, ["anew"])


def test_a_model_that_was_unloaded_says_what_loads_it(serve: Serve, tmp_path: Path) -> None:
    gateway = start(serve, tmp_path, "m")
    assert operate(gateway, tmp_path, "unload", "m").returncode == 0
    loads = "`gateway load m` loads it"
    assert loads in " ".join(operate(gateway, tmp_path, "ps").stdout.split())
    (tmp_path / "models/m/model.py").write_text(good("edited"))
    gateway.wait_for(f"m: its files have changed; it is not loaded: {loads}")
    assert "audit: reload" not in gateway.log
    status, answer = ask(gateway, "/models/m/predict", {})
    assert status == 503 and loads in answer["error"]
    told = operate(gateway, tmp_path, "predict", "m")
    assert told.returncode == 1 and loads in told.stderr and "loading" not in told.stderr
    assert operate(gateway, tmp_path, "load", "m").returncode == 0
    assert ask(gateway, "/models/m/predict", {}) == (200, ["edited"])


def test_what_keeps_a_model_from_its_load_is_in_its_log_with_what_to_do(serve: Serve, tmp_path: Path) -> None:
    gateway = start(serve, tmp_path, "m")
    takes = "    def __init__(self, threshold):\n        pass\n"
    loads = "    def load(self, path):\n        pass\n"
    secret = "    def __init__(self, secrets):\n        secrets['token']\n"
    told = {
        "typo": ("class Model\n", "not loaded: model.py:1: syntax error"),
        "chat": (
            "class Model:\n    def chat(self, x):\n        return x\n",
            "failed: .*did you mean `chat_completions`",
        ),
        "takes": (good("x") + takes, "failed: `__init__` needs threshold, which nobody gives; there are config,"),
        "loads": (good("x") + loads, "failed: `load` needs path, which nobody gives: it is called without arguments"),
        "secret": (
            good("x") + secret,
            "failed: .*write `token: null` below `secrets:` in config.yaml, and put its value",
        ),
    }
    for name, (code, _) in told.items():
        (tmp_path / f"models/{name}").mkdir()
        (tmp_path / f"models/{name}/model.py").write_text(code)
    for name, (_, expected) in told.items():
        gateway.wait_for(f"model '{name}' failed: ")
        log = operate(gateway, tmp_path, "logs", name).stdout
        assert re.search(expected, log), (name, log)
        assert "/gateway/worker/" not in log, log
    (tmp_path / "models/m/model.py").write_text("class Model\n")
    gateway.wait_for("reload of model 'm' by a change of its files: failed")
    assert "not reloaded, the previously loaded code keeps serving" in operate(gateway, tmp_path, "logs", "m").stdout


def test_a_directory_that_lacks_what_made_it_a_model_is_told_what_and_what_to_do(serve: Serve, tmp_path: Path) -> None:
    truss = {"model/code.py": good("t"), "config.yaml": "model_class_filename: code.py\n"}
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    gateway = serve({"m": {"model.py": good("m")}, "t": truss}, "--reload", env=env)
    for name, file in (("m", "model.py"), ("t", "config.yaml")):
        (tmp_path / "models" / name / file).unlink()
        gateway.wait_for(rf"{name}: .*{file} is gone from its directory; .*`gateway unload {name}` ends")
        shown = " ".join(operate(gateway, tmp_path, "ps").stdout.split())
        assert f"{file} is gone from its directory; " in shown and f"`gateway unload {name}` ends" in shown
        told = operate(gateway, tmp_path, "reload", name).stderr
        assert f"any more: {file} is gone from its directory; put it back, or `gateway unload {name}` ends" in told
        assert ask(gateway, f"/models/{name}/predict", {}) == (200, [name])
    assert "its directory is gone" not in gateway.log


READS = """
from pathlib import Path

class Model:
    def load(self):
        self.words = (Path(__file__).parent / "weights.bin").read_text()

    def predict(self, inputs):
        return [self.words]
"""


def test_a_file_that_was_missing_is_put_there_and_weights_are_overwritten_and_nothing_is_restarted(
    serve: Serve, tmp_path: Path
) -> None:
    gateway = start(serve, tmp_path, "n")
    weights = tmp_path / "models/m/weights.bin"
    weights.parent.mkdir()
    (weights.parent / "model.py").write_text(READS)
    gateway.wait_for("model 'm' failed: FileNotFoundError")
    weights.write_text("first")
    gateway.wait_for("model 'm' is ready")
    assert ask(gateway, "/models/m/predict", {}) == (200, ["first"])
    weights.write_text("second")
    gateway.wait_for("model 'm' is reloaded")
    assert ask(gateway, "/models/m/predict", {}) == (200, ["second"])

    (tmp_path / "models/n/model.py").write_text(READS)
    gateway.wait_for("'n' by .*: failed, but the previously loaded code keeps serving: FileNotFoundError")
    (tmp_path / "models/n/weights.bin").write_text("third")
    gateway.wait_for("model 'n' is reloaded")
    assert ask(gateway, "/models/n/predict", {}) == (200, ["third"])


def test_settings_that_a_model_needs_are_written_while_it_waits_for_them(serve: Serve, tmp_path: Path) -> None:
    gateway = start(serve, tmp_path, "n")
    place = tmp_path / "models/m"
    place.mkdir()
    (place / "config.yaml").write_text("secrets:\n  token: null\n")
    code = good("m") + "    def __init__(self, secrets):\n        secrets['token']\n"
    (place / "model.py").write_text(code)
    gateway.wait_for(r"model 'm' failed: .*in the directory of `\[gateway\] secrets_dir = \"…\"` in gateway.toml")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/token").write_text("something")
    settings = tmp_path / "gateway.toml"
    settings.write_text('[gateway]\nsecrets_dir = "secrets"\n')
    gateway.wait_for("audit: change of settings by a change of the settings: gateway.secrets_dir from none to")
    gateway.wait_for("model 'm' is ready")

    settings.write_text('[gateway]\nsecrets_dir = "secrets"\n[models.n]\naliases = ["nick"]\n')
    gateway.wait_for("audit: reload of model 'n' by a change of the settings: done")
    assert ask(gateway, "/models/nick/predict", {}) == (200, ["n"])
    settings.write_text("[gateway\n")
    gateway.wait_for("change of settings by a change of the settings: failed: they stay as they were: ")
