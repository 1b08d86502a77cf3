"""Variables that a model reads and will not have: told where it matters, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.directories.code.variables import unset
from gateway.spec import ModelSpec
from gateway.wording import TOML

MODEL = "class Model:\n    def predict(self, x):\n        return x\n"


def found(root: Path, source: str, has: str = "", **spec: object) -> list[tuple[str, str, str]]:
    """Level, place and name of each, for a gateway with the variable `has`."""
    (root / "model.py").write_text(f"{source}\n{MODEL}")
    model = ModelSpec(name="m", target="model:Model", root=root, own_code=True, **spec)  # type: ignore[arg-type]
    return [(each.level, each.where, each.name) for each in unset(model, {has: "x"} if has else {})]


@pytest.mark.parametrize(
    "source",
    [
        "import os\nK = os.environ['API_KEY']",
        "import os as o\nK = o.environ['API_KEY']",
        "from os import environ as e\nK = e['API_KEY']",
        "import os\nenv = os.environ; K = env['API_KEY']",
        "import os; NAME = 'API_KEY'\ndef f(): return os.environ[NAME]",
        "import os\nK = f\"{os.environ['API_KEY']}\"",
        "import os\ntry: K = os.environ['API_KEY']\nexcept ValueError: pass",
    ],
)
def test_a_read_that_would_raise_is_a_warning_with_its_line(tmp_path: Path, source: str) -> None:
    assert found(tmp_path, source) == [("warning", "model.py:2", "API_KEY")]


@pytest.mark.parametrize(
    "read",
    ["os.getenv('API_KEY')", "os.environ.get('API_KEY')", "client(key=os.getenv('API_KEY'))"],
)
def test_a_read_without_a_default_is_a_note_and_a_warning_where_the_gateway_has_it(tmp_path: Path, read: str) -> None:
    assert found(tmp_path, f"import os\nK = {read}") == [("note", "model.py:2", "API_KEY")]
    assert found(tmp_path, f"import os\nK = {read}", has="API_KEY") == [("warning", "model.py:2", "API_KEY")]


@pytest.mark.parametrize(
    "read",
    [
        "K = os.getenv('API_KEY', 'none')",
        "K = os.environ.get('API_KEY', default=1)",
        "K = os.getenv('API_KEY') or 'none'",
        "K = 1 if os.getenv('API_KEY') else 2",
        "if os.getenv('API_KEY') == '1': K = 1",
        "K = bool(os.getenv('API_KEY'))",
        "try: K = os.environ['API_KEY']\nexcept KeyError: K = None",
        "try: K = os.environ['API_KEY']\nexcept: K = None",
        "import contextlib\nwith contextlib.suppress(KeyError): K = os.environ['API_KEY']",
    ],
)
def test_a_read_with_another_way_is_told_only_where_the_gateway_has_the_variable(tmp_path: Path, read: str) -> None:
    assert found(tmp_path, f"import os\n{read}") == []
    assert [each[0] for each in found(tmp_path, f"import os\n{read}", has="API_KEY")] == ["warning"]


@pytest.mark.parametrize(
    "source",
    [
        "os.environ['API_KEY'] = 'x'\nK = os.environ['API_KEY']",
        "os.environ.setdefault('API_KEY', 'x')\nK = os.environ['API_KEY']",
        "os.environ.update({'API_KEY': 'x'})\nK = os.environ['API_KEY']",
        "os.environ.update(API_KEY='x')\nK = os.environ['API_KEY']",
        "os.environ |= read()\nK = os.environ['API_KEY']",
        "if 'API_KEY' in os.environ: K = os.environ['API_KEY']",
        "import dotenv\ndotenv.load_dotenv()\nK = os.environ['API_KEY']",
        "if __name__ == '__main__': print(os.environ['API_KEY'])",
        "K = {'API_KEY': 1}['API_KEY']",
        "K = os.environ['PATH'], os.environ['HF_HOME'], os.environ['OMP_NUM_THREADS'], os.environ['TMPDIR']",
        "K = os.environ['CUDA_VISIBLE_DEVICES'], os.environ['HTTPS_PROXY'], os.environ['LC_ALL']",
    ],
)
def test_what_the_code_sets_or_asks_itself_and_what_every_worker_may_have_is_no_fault(
    tmp_path: Path, source: str
) -> None:
    assert found(tmp_path, f"import os\n{source}", has="API_KEY") == []


def test_a_variable_that_the_settings_set_is_there_and_a_secret_is_read_as_one(tmp_path: Path) -> None:
    hard, soft = "import os\nK = os.environ['API_KEY']", "import os\nK = os.getenv('API_KEY')"
    assert found(tmp_path, hard, environment={"API_KEY": "x"}) == []
    assert found(tmp_path, soft, secrets=("api_key",)) == []
    model = ModelSpec(name="m", target="model:Model", root=tmp_path, own_code=True, secrets=("api_key",))
    (tmp_path / "model.py").write_text(f"{hard}\n{MODEL}")
    (told,) = unset(model, {})
    assert told.fix == "it is a secret: read secrets['API_KEY']"


def test_files_that_the_class_imports_are_read_too_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "packages" / "tools").mkdir(parents=True)
    (tmp_path / "packages" / "tools" / "__init__.py").write_text("from . import deep\n")
    (tmp_path / "packages" / "tools" / "deep.py").write_text("import os\nK = os.environ['DEEP']\n")
    (tmp_path / "helper.py").write_text("import os, model\nK = os.environ['HELPER']\n")
    (tmp_path / "train.py").write_text("import os\nK = os.environ['TRAIN']\n")
    source = "import helper\ntry: import tools.deep\nexcept ImportError: pass"
    places = found(tmp_path, source, import_dirs=(tmp_path / "packages",))
    assert places == [("warning", "helper.py:2", "HELPER"), ("warning", "packages/tools/deep.py:2", "DEEP")]


def test_data_has_no_code_that_reads(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import os\nK = os.environ['API_KEY']\n")
    assert list(unset(ModelSpec(name="m", target="model:Model", root=tmp_path), {})) == []


def test_variables_of_a_login_are_told_only_where_they_are_needed(tmp_path: Path) -> None:
    assert found(tmp_path, "import os\nK = os.getenv('USER')", has="USER") == []
    assert [each[0] for each in found(tmp_path, "import os\nK = os.environ['USER']", has="USER")] == ["warning"]


def test_what_was_set_in_the_shell_is_told_how_it_comes_from_there(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(f"import os\nK = os.environ['API_KEY']\n{MODEL}")
    model = ModelSpec(name="m", target="model:Model", root=tmp_path, own_code=True)
    (here,), (nowhere,) = unset(model, {"API_KEY": "x"}), unset(model, {})
    assert here.fix.startswith("set GATEWAY_SECRET_API_KEY in its place, ")
    assert nowhere.fix.startswith(f"set it under [models.m.environment] in {TOML}, or ")
