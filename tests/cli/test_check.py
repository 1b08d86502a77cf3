from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from gateway.inspection.check import installed

Run = Callable[..., Result]
Models = Callable[..., Path]

# A plugin for files *.w, which says of every model that something lies beside it.
PLUGIN = """
from dataclasses import replace
from gateway import describe, hookimpl

@hookimpl
def find_model(path, overrides):
    if (path / "model.w").exists():
        spec = describe(path, target=f"{__file__}:Served", format="sklearn", overrides=overrides)
        return replace(spec, asides=("a projector lies beside it",))

class Served:
    def predict(self, inputs):
        return inputs
"""
GOOD = "class Model:\n    def predict(self, inputs):\n        return inputs\n"


def findings(run: Run, *arguments: str) -> list[dict[str, Any]]:
    result = run("check", "--json", *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return list(json.loads(result.stdout))


def only(run: Run, *arguments: str) -> dict[str, Any]:
    (found,) = findings(run, *arguments)
    return found


def test_a_good_model_has_no_findings(run: Run, models: Models) -> None:
    models({"echo/model.py": GOOD})
    result = run("check")
    assert result.stdout == "1 model can be served: 0 errors, 0 warnings\n"
    assert result.exit_code == 0


def test_a_model_with_an_error_is_not_counted_among_those_that_can_be_served(run: Run, models: Models) -> None:
    models({"good/model.py": GOOD, "bad/model.py": "class Model:\n    def predict(self, a, b, c): ...\n"})
    assert run("check").stdout.splitlines()[-1] == "1 model can be served: 1 error, 0 warnings"


def test_a_pointer_of_git_lfs_is_an_error_where_a_plugin_opens_it(run: Run, models: Models) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    models(
        {
            "own/model.py": GOOD,
            "own/data/w.bin": pointer,
            "minilm/modules.json": "[]",
            "minilm/model.safetensors": pointer,
        }
    )
    found = {each["model"]: each for each in findings(run) if each["code"] == "lfs_pointer"}
    assert (found["own"]["level"], found["minilm"]["level"]) == ("warning", "error")
    assert found["own"]["what"].startswith("data/w.bin is a Git LFS pointer")
    assert found["minilm"]["fix"] == "git lfs pull"


def test_advice_about_a_model_in_a_directory_has_its_id_and_not_the_name_of_its_own(run: Run, models: Models) -> None:
    models({"saved/iris-cp/model.pkl": "", "saved/linked/model.py": GOOD})
    Path("models/saved/linked/out").symlink_to("/usr")
    says = {each["model"]: each["what"] for each in findings(run)}
    assert 'or trust the file: [models."saved/iris-cp"] allow_pickle = true' in says["saved/iris-cp"]
    assert '[models."saved/linked"] allow_links = true' in says["saved/linked"]


def test_no_code_of_a_model_is_run(run: Run, models: Models) -> None:
    models({"echo/model.py": "raise SystemExit('imported')\n" + GOOD})
    assert findings(run) == []


def test_a_misspelt_key_has_its_line_and_a_suggestion(run: Run, models: Models) -> None:
    models({"m/config.yaml": "model_name: m\nruntime:\n  predict_concurency: 4\n", "m/model/model.py": GOOD})
    assert only(run) == {
        "level": "warning",
        "code": "unknown_key",
        "where": "models/m/config.yaml:3",
        "what": "unknown key runtime.predict_concurency",
        "fix": "did you mean predict_concurrency?",
        "model": "m",
    }
    assert run("check").exit_code == 0
    assert run("check", "--strict").exit_code == 1
    line = "models/m/config.yaml:3: warning: unknown key runtime.predict_concurency (did you mean predict_concurrency?)"
    assert run("check").stdout.splitlines()[0] == f"{line} [unknown_key]"


def test_a_broken_config_keeps_its_codes_and_all_its_findings(run: Run, models: Models) -> None:
    models({"m/config.yaml": "resources: {cpu: many}\nnonsense: 1\n", "m/model/model.py": GOOD})
    assert [(item["level"], item["code"], item["where"]) for item in findings(run)] == [
        ("error", "invalid_config", "models/m/config.yaml:1"),
        ("warning", "unknown_key", "models/m/config.yaml:2"),
    ]
    assert run("check").exit_code == 1


def test_keys_without_effect_are_notes_and_no_failure(run: Run, models: Models) -> None:
    models({"m/config.yaml": "python_version: py38\nsystem_packages: [ffmpeg]\n", "m/model/model.py": GOOD})
    notes = findings(run)
    assert {item["level"] for item in notes} == {"note"}
    assert "system_packages has no effect here" in [item["what"] for item in notes]
    assert any(item["what"].startswith("python_version is py38") for item in notes)
    assert run("check", "--strict").exit_code == 0


def test_what_lies_beside_a_model_that_is_served_is_a_note_and_no_failure(run: Run, models: Models) -> None:
    models(
        {"m/model.w": "", "m/other.pt": "", "../w.py": PLUGIN, "../gateway.toml": '[gateway]\nplugins = ["./w.py"]\n'}
    )
    found = findings(run)
    assert {(item["level"], item["code"]) for item in found} == {("note", "passed_over")}
    assert any("these are ignored: other.pt" in item["what"] for item in found)
    assert "a projector lies beside it" in [item["what"] for item in found]
    assert run("check", "--strict").exit_code == 0
    assert run("doctor").exit_code == 0


def test_what_may_be_meant_to_have_an_effect_is_a_warning_still(run: Run, models: Models) -> None:
    models({"m/model.w": "", "../w.py": PLUGIN.replace("asides", "notes")})
    Path("gateway.toml").write_text('[gateway]\nplugins = ["./w.py"]\n')
    found = only(run)
    assert (found["level"], found["code"], found["what"]) == ("warning", "odd_model", "a projector lies beside it")
    assert run("check", "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        ("class Model:\n    def predict(self, inputs)\n", "syntax_error", 2),
        ("class Model:\n    def predict(self, a, b, c):\n        pass\n", "bad_signature", 2),
        ("class Model:\n    def other(self):\n        pass\n", "no_method", 1),
    ],
)
def test_the_source_is_read(run: Run, models: Models, source: str, code: str, line: int) -> None:
    models({"m/config.yaml": "", "m/model/model.py": source})
    found = only(run)
    assert (found["level"], found["code"]) == ("error", code)
    assert found["where"] == f"models/m/model/model.py:{line}"


def test_a_method_that_takes_keys_of_the_input_is_told_where_they_are(run: Run, models: Models) -> None:
    models({"m/model.py": "class Model:\n    def predict(self, x, y): ...\n"})
    fix = 'the body arrives whole, as the first: take one `inputs`, and of that inputs["x"] and inputs["y"]'
    assert only(run)["fix"] == fix
    models({"m/model.py": "class Model:\n    def predict(self, *args, **kwargs): ...\n"})
    assert only(run)["fix"] == ""


def test_a_missing_class_names_those_there(run: Run, models: Models) -> None:
    models({"m/model.py": "class Other:\n    pass\n"})
    found = only(run)
    assert found["code"] == "class_not_found"
    assert found["what"] == "no class Model in model.py (have: Other)"
    assert found["fix"] == "rename Other to Model, or write model_class_name: Other into config.yaml"


@pytest.mark.parametrize(
    ("methods", "code", "fix"),
    [
        (["chat"], "no_method", "it has chat: did you mean chat_completions?"),
        (["predcit"], "no_method", "it has predcit: did you mean predict?"),
        (["chatt"], "no_method", "it has chatt: did you mean chat_completions?"),
        (["__call__"], "no_method", "it has __call__: did you mean predict?"),
        (["predict", "chat_completion"], "misspelt", "did you mean chat_completions?"),
        (["predict", "laod"], "misspelt", "did you mean load?"),
    ],
)
def test_a_method_that_nothing_calls_is_told_with_what_may_have_been_meant(
    run: Run, models: Models, methods: list[str], code: str, fix: str
) -> None:
    models({"m/model.py": "class Model:\n" + "".join(f"    def {name}(self, x): ...\n" for name in methods)})
    found = only(run)
    assert (found["code"], found["fix"]) == (code, fix)


def test_helpers_beside_a_method_that_serves_are_no_slips(run: Run, models: Models) -> None:
    helpers = ("chat", "embed", "laod", "_init", "run", "_predcit", "prediction", "__call__", "__int__")
    written = "".join(f"    def {name}(self): ...\n" for name in helpers)
    calls = "    def preprocess(self, x):\n        return self.chat(self.embed(self.laod, self._init(), x))\n"
    models({"m/model.py": GOOD + written + calls})
    assert findings(run) == []
    based = f"import threading\n{GOOD}".replace("Model:", "Model(threading.Thread):")
    models({"m/model.py": based + written.replace("laod", "setup")})
    assert findings(run) == []  # a base may call any of them


@pytest.mark.parametrize(
    ("method", "fix"),
    [
        ("chat(self, x)", "did you mean chat_completions?"),
        ("complete(self, x)", "did you mean completions?"),
        ("generate(self, x)", "did you mean completions?"),
        ("embed(self, x)", "did you mean embeddings?"),
        ("load_model(self)", "did you mean load?"),
        ("setup(self)", "did you mean load?"),
        ("initialize(self)", "did you mean load?"),
        ("__int__(self, config)", "did you mean __init__?"),
        ("_init_(self)", "did you mean __init__?"),
        ("__init(self, **kwargs)", "did you mean __init__?"),
        ("__innit__(self)", "did you mean __init__?"),
        ("init(self, config)", "did you mean __init__?"),
    ],
)
def test_a_method_beside_predict_that_the_file_does_not_call_is_asked_about(
    run: Run, models: Models, method: str, fix: str
) -> None:
    models({"m/model.py": f"{GOOD}\n    def {method}: ...\n"})
    found = only(run)
    name = method.partition("(")[0]
    assert (found["level"], found["where"], found["code"]) == ("warning", "models/m/model.py:5", "misspelt")
    assert (found["what"], found["fix"]) == (f"nothing calls `{name}`", fix)
    models({"m/model.py": f"{GOOD}\n    def {method}: ...\n\n    def preprocess(self, x):\n        self.{name}(x)\n"})
    assert findings(run) == []


def test_a_method_that_slipped_out_of_the_class_is_told_with_its_line(run: Run, models: Models) -> None:
    models({"m/model.py": f"{GOOD}\ndef chat_completions(self, body): ...\n"})
    found = only(run)
    assert (found["where"], found["fix"]) == ("models/m/model.py:5", "indent it, as a method of the class")
    assert found["what"] == "`chat_completions` is defined outside the class, so nothing calls it"
    models({"m/model.py": "class Model:\n    def load(self):\n        pass\n        def predict(self, x): ...\n"})
    found = only(run)
    assert (found["code"], found["where"]) == ("no_method", "models/m/model.py:1")
    what = "`predict` is defined inside `load`, so nothing calls it"
    assert found["fix"] == f"{what} (line 4): give it the indentation of `load`"


@pytest.mark.parametrize(
    "source",
    [
        f"{GOOD}\ndef load(self): ...\nModel.load = load\n",
        f"{GOOD}\ndef load(path): ...\n",
        f"def load(self): ...\n{GOOD}",
        f"{GOOD}    def load(self):\n        def unload(self): ...\n        self.unload = unload\n",
        f"{GOOD}    def load(self):\n        class Other:\n            def preprocess(self, x): ...\n",
    ],
)
def test_a_function_that_is_meant_to_be_where_it_is_has_not_slipped(run: Run, models: Models, source: str) -> None:
    models({"m/model.py": source})
    assert findings(run) == []


@pytest.mark.parametrize(
    ("method", "fix"),
    [
        ("load()", "write `load(self)`"),
        ("unload()", "write `unload(self)`"),
        ("is_healthy()", "write `is_healthy(self)`"),
        ("postprocess()", "write `postprocess(self, inputs)`"),
        ("setup_environment(*, environment)", "write `setup_environment(self, *, environment)`"),
        ("__init__(**kwargs)", "write `__init__(self, **kwargs)`"),
    ],
)
def test_a_method_without_self_cannot_be_called(run: Run, models: Models, method: str, fix: str) -> None:
    models({"m/model.py": f"{GOOD}    def {method}: ...\n"})
    found = only(run)
    assert (found["level"], found["code"], found["where"]) == ("error", "bad_signature", "models/m/model.py:4")
    assert (found["what"], found["fix"]) == (f"`{method}` has no self, so it cannot be called", fix)


def test_a_method_whose_first_parameter_is_the_model_by_accident_is_a_warning(run: Run, models: Models) -> None:
    models({"m/model.py": "class Model:\n    def __init__(config): ...\n    def predict(inputs): ...\n"})
    found = findings(run)
    assert [each["code"] for each in found] == ["no_self", "no_self"]
    assert found[0]["what"] == "`__init__(config)` has no self, so config is the model itself"
    assert found[1]["fix"] == "write `predict(self, inputs)`"
    models({"m/model.py": "class Model:\n    def load(model): ...\n    def predict(model, x): ...\n"})
    assert findings(run) == []  # who calls the model so knows what it is


def test_missing_packages_have_the_pip_line(run: Run, models: Models) -> None:
    lines = ["click", "no-such-package>=2", "pluggy==0.0.1", "https://example.com/x.whl", "other; sys_platform == 'x'"]
    models({"m/config.yaml": f"requirements: {json.dumps(lines)}\n", "m/model/model.py": GOOD})
    missing, other = findings(run)
    assert (missing["level"], missing["code"]) == ("warning", "missing_package")  # its code does without
    assert missing["fix"] == "pip install 'no-such-package>=2'"
    assert other["level"] == "warning"
    assert other["what"].startswith("requirement pluggy==0.0.1: version ")


def test_requirements_may_be_in_a_file(run: Run, models: Models) -> None:
    text = "# what it needs\n-r other.txt\nno-such-package  # really\n\n"
    files = {"m/req.txt": text, "m/other.txt": "click\n", "m/model/model.py": GOOD}
    models({"m/config.yaml": "requirements_file: req.txt\n", **files})
    assert only(run)["what"].startswith("requirement no-such-package is not installed; the file of the class does not")


def test_the_requirements_txt_beside_a_model_py_counts_and_what_is_missing_of_it_is_one_line(
    run: Run, models: Models
) -> None:
    text = "\n".join(["click", "scikit-image", "pluggy==0.0.1", *(f"no-such-package-{number}" for number in range(6))])
    models({"m/requirements.txt": text, "m/model.py": f"import skimage\n{GOOD}"})
    needed, others = findings(run)
    assert (needed["level"], needed["fix"]) == ("error", "pip install 'scikit-image'")
    assert (others["level"], others["code"]) == ("warning", "missing_package")
    assert "here pluggy==0.0.1: version " in others["what"] and others["what"].endswith(" and 2 more")
    assert 'set env = "isolated" in [models.m]' in others["fix"]
    Path("gateway.toml").write_text('[models.m]\nenv = "isolated"\n')
    assert findings(run) == []


def test_a_requirements_txt_that_nobody_reads_says_so(run: Run, models: Models) -> None:
    files = {"m/requirements.txt": "no-such-package\n", "m/config.yaml": "", "m/model/model.py": GOOD}
    models({**files, "own/requirements.txt": "x\n", "own/config.yaml": "requirements: [click]\n", "own/model.py": GOOD})
    assert [(found["level"], found["what"]) for found in findings(run)] == [
        ("note", "requirements.txt is not read")
    ] * 2
    Path("gateway.toml").write_text('[models."*"]\nenv = "isolated"\n')
    told = findings(run)
    assert [found["level"] for found in told] == ["warning"] * 2
    assert told[0]["fix"] == "write requirements_file: requirements.txt into its config.yaml"


def test_an_isolated_environment_is_not_ours_to_check(run: Run, models: Models) -> None:
    models({"m/config.yaml": "requirements: [no-such-package]\n", "m/model/model.py": GOOD})
    Path("gateway.toml").write_text('[models.m]\nenv = "isolated"\n')
    assert findings(run) == []


def test_an_isolated_environment_runs_the_gateways_python_too_which_is_a_note(run: Run, models: Models) -> None:
    models({"m/config.yaml": "python_version: py39\n", "m/model/model.py": GOOD})
    ours = f"py{sys.version_info.major}{sys.version_info.minor}"
    for text in ('[models.m]\nenv = "isolated"\n', '[gateway]\nenv = "isolated"\n', ""):
        Path("gateway.toml").write_text(text)
        found = only(run)
        assert (found["level"], found["what"]) == ("note", f"python_version is py39; this gateway runs {ours}")


def test_the_environments_of_all_models_may_be_isolated(run: Run, models: Models) -> None:
    models({"m/config.yaml": "requirements: [no-such-package]\n", "m/model/model.py": GOOD})
    Path("gateway.toml").write_text('[gateway]\nenv = "isolated"\n')
    assert findings(run) == []


def test_another_interpreter_is_asked_for_its_packages() -> None:
    assert installed(sys.executable)["click"] == installed(None)["click"]
    assert installed("/nowhere/python") == {}


def test_a_server_on_the_gateways_own_port_is_a_warning(run: Run, models: Models) -> None:
    source = "import subprocess\nsubprocess.Popen(['vllm', 'serve', 'x', '--port', '8000'])\n"
    models({"m/model.py": source + GOOD})
    found = only(run)
    assert (found["level"], found["code"]) == ("warning", "own_port")
    assert found["what"] == "model.py:2: a server of its own would listen on port 8000, which is the gateway's own"
    Path("gateway.toml").write_text("[gateway]\nport = 9000\n")
    assert only(run)["code"] == "fixed_port"


def test_a_server_on_a_fixed_port_gets_the_reload_that_it_needs(run: Run, models: Models) -> None:
    models({"m/model.py": "import subprocess\nsubprocess.Popen(['x', '--port', '8765'])\n" + GOOD})
    found = only(run)
    assert (found["level"], found["fix"]) == ("note", 'set reload = "replace" in [models.m]')
    Path("gateway.toml").write_text("[models.m]\nreload = 'replace'\n")
    assert findings(run) == []
    Path("gateway.toml").write_text("[models.m]\nreplicas = 2\n")
    assert (only(run)["level"], only(run)["code"]) == ("warning", "fixed_port")


def test_weights_in_a_package_have_the_pip_line(run: Run, models: Models) -> None:
    source = "package://no_such_package/model.bin"
    models({"m/config.yaml": f"weights: [{{source: '{source}'}}]\n", "m/model/model.py": GOOD})
    found = only(run)
    assert (found["level"], found["code"]) == ("error", "missing_weights")
    assert "run: pip install no-such-package" in found["what"]


def test_weights_that_will_be_fetched_are_a_note(run: Run, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(Path("cache").absolute()))
    models({"m/config.yaml": "weights: [{source: 'hf://some/model'}]\n", "m/model/model.py": GOOD})
    assert only(run)["level"] == "note"


def test_a_secret_without_a_value_is_a_warning(run: Run, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    models({"m/config.yaml": "secrets: {hf_token: null, other: default}\n", "m/model/model.py": GOOD})
    found = only(run)
    assert (found["level"], found["what"]) == ("warning", "secret hf_token has no value")
    assert "GATEWAY_SECRET_HF_TOKEN" in found["fix"]
    monkeypatch.setenv("GATEWAY_SECRET_HF_TOKEN", "x")
    assert findings(run) == []


def test_what_no_device_can_hold_is_an_error_here_and_fine_elsewhere(run: Run, models: Models) -> None:
    models({"m/config.yaml": "resources: {accelerator: 'H100:2'}\n", "m/model/model.py": GOOD})
    found = only(run, "--devices", "1xL4:24GiB")
    assert (found["level"], found["code"]) == ("error", "does_not_fit")
    assert "2 × H100 wanted, 0 present" in found["what"]
    assert findings(run, "--devices", "2xH100:80GiB") == []
    assert findings(run, "--devices", "2xL4:24GiB", "--any-gpu") == []


def test_names_that_cannot_be_served_are_told(run: Run, models: Models) -> None:
    models({"a/predict/model.py": GOOD, "b/echo/model.py": GOOD, "c/echo/model.py": GOOD})
    result = run("check", "--json", "models/a", "models/b", "models/c")
    assert [item["code"] for item in json.loads(result.stdout)] == ["invalid_name", "duplicate_name"]


def test_a_path_is_a_model_or_a_directory_of_models(run: Run, models: Models) -> None:
    models({"one/model.py": GOOD, "two/model.py": "x = "})
    Path("gateway.toml").write_text("[models.two]\nslots = 2\n")
    assert findings(run, "models/one") == []
    assert [item["code"] for item in findings(run, "models")] == ["syntax_error"]
    assert [item["code"] for item in findings(run, "nowhere")] == ["missing_root"]


def test_a_link_out_of_a_model_is_an_error_unless_it_is_allowed(run: Run, models: Models, tmp_path: Path) -> None:
    models({"m/model.py": GOOD})
    (tmp_path / "models/m/data").symlink_to("/etc")
    found = only(run)
    assert (found["level"], found["code"]) == ("error", "link_out")
    assert "data: this link leads out of the model directory, to /etc" in found["what"]
    (tmp_path / "gateway.toml").write_text("[models.m]\nallow_links = true\n")
    found = only(run)
    assert (found["level"], found["code"]) == ("note", "allowance")


def test_what_a_list_of_sums_lacks_is_told_without_reading_the_files(run: Run, models: Models) -> None:
    sums = f"{'0' * 64}  model.py\n{'0' * 64}  data/weights.bin\n"
    models({"m/model.py": GOOD, "m/SHA256SUMS": sums})
    found = only(run)
    assert (found["code"], found["what"]) == ("missing_file", "data/weights.bin is listed in SHA256SUMS and not there")
    models({"m/SHA256SUMS": f"{'0' * 64}  model.py\n", "m/data/rows.txt": "", "m/helper.py": ""})
    found = only(run)
    assert (found["code"], found["what"]) == ("unlisted_file", "helper.py is not listed in SHA256SUMS")
    models({"m/SHA256SUMS": "nonsense\n"})
    assert only(run)["code"] == "invalid_sums"


def test_everything_that_a_model_is_allowed_is_a_line(run: Run, models: Models, tmp_path: Path) -> None:
    models({"m/model.py": GOOD, "other/model.py": GOOD})
    keys = ("allow_pickle", "trust_remote_code", "allow_links", "forward_credentials")
    (tmp_path / "gateway.toml").write_text("[models.m]\n" + "".join(f"{key} = true\n" for key in keys))
    found = findings(run)
    assert [(item["model"], item["level"], item["what"].split()[1]) for item in found] == [
        ("m", "note", k) for k in keys
    ]
    assert run("check", "--strict").exit_code == 0


def test_a_variable_that_will_not_be_there_has_its_line_and_the_way_to_set_it(run: Run, models: Models) -> None:
    models({"m/model.py": f"import os\nKEY = os.environ['NO_SUCH_KEY_HERE']\n{GOOD}"})
    found = only(run)
    assert (found["level"], found["code"], found["where"]) == ("warning", "missing_variable", "models/m/model.py:2")
    assert found["what"].startswith("NO_SUCH_KEY_HERE is needed and will not be set")
    assert found["fix"].startswith("set it under [models.m.environment] in gateway.toml")
    Path("gateway.toml").write_text('[models.m.environment]\nNO_SUCH_KEY_HERE = "x"\n')
    assert findings(run) == []


def test_an_isolated_environment_that_nobody_can_build_is_an_error(
    run: Run, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    models({"m/model.py": GOOD})
    Path("gateway.toml").write_text('[models.m]\nenv = "isolated"\n')
    assert findings(run) == []
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    found = only(run)
    assert (found["level"], found["code"]) == ("error", "missing_uv")
    assert "pip install 'model-gateway[isolated]'" in found["what"]


def test_a_class_that_a_plugin_names_and_lacks_is_an_error(run: Run, models: Models, tmp_path: Path) -> None:
    models({"capitals/answers.json": "{}"})
    (tmp_path / "answers_plugin.py").write_text(
        "from gateway import describe, hookimpl\n\n\n@hookimpl\ndef find_model(path, overrides):\n"
        "    if (path / 'answers.json').is_file():\n"
        "        return describe(path, target='answers_plugin:Answrs', format='answers', overrides=overrides)\n\n\n"
        "class Answers: ...\n"
    )
    (tmp_path / "gateway.toml").write_text('[gateway]\nplugins = ["answers_plugin.py"]\n')
    found = only(run)
    assert (found["level"], found["code"], found["model"]) == ("error", "missing_target", "capitals")
    assert found["what"].endswith("no class Answrs in answers_plugin.py (have: Answers)")


def test_names_of_plugins_that_are_none_are_told_with_those_meant(run: Run, models: Models, tmp_path: Path) -> None:
    models({"echo/model.py": GOOD, "odd/config.yaml": "framework: sklern\n"})
    (tmp_path / "answers_plugin.py").write_text("")
    (tmp_path / "gateway.toml").write_text(
        '[gateway]\nplugins = ["answer_plugin.py"]\nblock_plugins = ["sentence-transformer"]\n'
    )
    missing, blocked, framework = findings(run)
    assert "answer_plugin.py does not exist (did you mean answers_plugin.py?)" in missing["what"]
    assert blocked["what"] == "no plugin is called 'sentence-transformer' (did you mean sentence-transformers?)"
    assert blocked["level"] == "warning"
    assert "the framework 'sklern' (did you mean sklearn?)" in framework["what"]


def test_a_file_of_the_class_that_is_not_there_is_told_with_the_one_that_was_meant(run: Run, models: Models) -> None:
    models({"m/config.yaml": "model_class_filename: modle.py\n", "m/model/model.py": GOOD})
    assert only(run)["what"] == "No module class file found: model/modle.py (did you mean model.py?)"


def test_of_very_many_findings_of_one_kind_the_first_are_told_and_the_others_counted(run: Run, models: Models) -> None:
    sums = "".join(f"{'0' * 64}  f{at}\n" for at in range(1000))
    models({"m/model.py": GOOD, "m/SHA256SUMS": f"{sums}{'0' * 64}  model.py\n"})
    found = [each["what"] for each in findings(run)]
    assert found[:2] == ["f0 is listed in SHA256SUMS and not there", "f1 is listed in SHA256SUMS and not there"]
    assert found[-1] == "980 more of this kind"
    assert len(found) == 21


def test_of_a_directory_with_very_many_faults_the_first_are_its_reason(run: Run, models: Models) -> None:
    models({"m/config.yaml": f"weights: [{','.join(['{}'] * 100)}]\n", "m/model/model.py": GOOD})
    found = findings(run)
    assert {each["code"] for each in found} == {"invalid_config"}
    assert found[-1]["what"] == "80 more of this kind"
    assert len(found) == 21


def test_a_directory_that_is_shared_and_holds_too_much_is_told(
    run: Run, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.directories.code.server_ports.MAX_LOOKED", 20)
    models({"m/config.yaml": "external_package_dirs: [..]\n", "m/model/model.py": GOOD})
    for number in range(30):
        Path(f"models/{number}").mkdir()
    (found,) = (each for each in findings(run) if each["code"] == "not_searched")
    assert (found["level"], found["model"], found["fix"]) == ("warning", "m", "list only directories of packages")
