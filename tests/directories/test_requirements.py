"""What is said of requirements: read as pip reads them, and an error only where the model could not serve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.directories.code import requirements
from gateway.directories.code.requirements import Lack, lacking
from gateway.directories.describe import describe
from gateway.directories.repeated_problems import MOST_ALIKE
from gateway.environments import distributions

HAVE = {"torch": "2.13.0+cpu", "click": "8.2.0", "scikit-learn": "1.8.0", "pre": "2.0rc1", "odd": "unknown"}
GOOD = "class Model:\n    def predict(self, x): return x\n"


def lacks(
    root: Path,
    config: str,
    source: str = GOOD,
    have: Mapping[str, str] = HAVE,
    files: Mapping[str, str] | None = None,
    isolated: bool = False,
) -> list[Lack]:
    for name, text in {"config.yaml": config, "model/model.py": source, **(files or {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    spec = describe(root, target="model.model:Model", format="truss", overrides={}, own_code=True)
    return list(lacking(spec, have, isolated=isolated))


@pytest.mark.parametrize(
    "line",
    [
        "torch",
        "torch==2.13.0",
        "torch==2.13.0+cpu",
        "torch===2.13.0+cpu",
        "torch>=2,<3",
        "torch~=2.13",
        "Scikit_Learn",
        "scikit.learn>=1",
        "pre>=1",
        "odd==1",
        "torch @ https://example.com/torch.whl",
        "no-such; python_version < '3'",
        "no-such ; sys_platform == 'win32'",
        "no-such; extra == 'gpu'",
        "https://example.com/x.whl",
        "git+https://example.com/x.git",
        "git+https://example.com/x.git#egg=torch",
        "./wheels/x.whl",
        "--extra-index-url https://example.com/simple",
        "-e .",
        "# nothing",
        "torch  # with a reason",
        "torch==2.13.0 --hash=sha256:aa",
    ],
)
def test_what_is_here_or_not_ours_to_judge_is_no_finding(tmp_path: Path, line: str) -> None:
    (tmp_path / "req.txt").write_text(f"{line}\n")
    assert lacks(tmp_path, "requirements_file: req.txt\n") == []


@pytest.mark.parametrize(
    ("line", "code", "what"),
    [
        ("torch==2.12.0", "other_version", "requirement torch==2.12.0: version 2.13.0+cpu is installed"),
        ("torch==2.13.0+cu128", "other_version", "version 2.13.0+cpu is installed"),
        ("torch<2", "other_version", "version 2.13.0+cpu is installed"),
        ("no-such>=2", "missing_package", "requirement no-such>=2 is not installed; the file of the class does not"),
        ("no-such[extra]", "missing_package", "is not installed"),
        ("no-such @ https://example.com/x.whl", "missing_package", "is not installed"),
        ("git+https://example.com/x.git#egg=no-such", "missing_package", "is not installed"),
        ("torch=>2", "odd_requirement", "requirement torch=>2 cannot be read"),
        ("click torch", "odd_requirement", "cannot be read"),
    ],
)
def test_what_the_model_may_serve_without_is_a_warning(tmp_path: Path, line: str, code: str, what: str) -> None:
    (found,) = lacks(tmp_path, f'requirements: ["{line}"]\n')
    assert found[:2] == ("warning", code)
    assert what in found[2]


@pytest.mark.parametrize(
    ("statement", "level"),
    [
        ("import nosuch", "error"),
        ("import nosuch.deep as n", "error"),
        ("from nosuch import thing", "error"),
        ("try:\n    import nosuch\nexcept ImportError:\n    nosuch = None", "warning"),
        ("if False:\n    import nosuch", "warning"),
        ("import os, json", "warning"),
        ("class Other:\n    def load(self):\n        import nosuch", "error"),
        ("def later():\n    import nosuch", "error"),
    ],
)
def test_a_missing_requirement_that_is_imported_is_an_error(tmp_path: Path, statement: str, level: str) -> None:
    (found,) = lacks(tmp_path, "requirements: [nosuch]\n", f"{statement}\n{GOOD}")
    assert found[:2] == (level, "missing_package")


@pytest.mark.parametrize(
    ("statement", "config", "fix"),
    [
        ("import no_cv", "", "put no_cv into packages/, or add the package that has it to requirements"),
        ("import helpers.stuff", "", "put helpers into packages/"),
        ("import pkg_resources", "", "pip install 'setuptools<82'"),
        ("import wx", "", "pip install wxpython"),
        ("from nosuch import x", "requirements: [python-nosuch]", "pip install 'python-nosuch'"),
        ("from google.cloud import storage", "", "pip install google-cloud-storage"),
        ("from google.cloud import vision_v1 as v", "", "pip install google-cloud-vision"),
        ("import google.cloud.bigquery_storage", "", "pip install google-cloud-bigquery-storage"),
        (
            "from google.cloud import storage",
            "requirements: ['google-cloud-storage==3.1']",
            "pip install 'google-cloud",
        ),
        ("from google import genai", "", "pip install google-genai"),
        ("from google.oauth2 import service_account", "", "pip install google-auth"),
        ("from azure.storage.blob import BlobClient", "", "pip install azure-storage-blob"),
        ("from azure.ai import ml", "", "pip install azure-ai-ml"),
        ("from ruamel.yaml import YAML", "", "pip install ruamel-yaml"),
        ("from ruamel import yaml", "", "pip install ruamel-yaml"),
        ("from opentelemetry.sdk.trace import TracerProvider", "", "pip install opentelemetry-sdk"),
        (
            "from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter",
            *("", "pip install opentelemetry-exporter-otlp-proto-grpc"),
        ),
        ("import llama_index.llms.openai_like", "", "pip install llama-index-llms-openai-like"),
        ("from pytz.tzinfo import BaseTzInfo", "requirements: [pytz]", "pip install 'pytz'"),
        ("import google.cloud", "", "put google into packages/, or add the package that has it"),
        ("from google.colab import files", "", "put google into packages/, or add the package that has it"),
    ],
)
def test_a_module_that_nothing_provides_is_an_error_with_its_line(
    tmp_path: Path, statement: str, config: str, fix: str
) -> None:
    (found,) = lacks(tmp_path, config, f"{statement}\n{GOOD}")
    assert found[0] == "error" and found[3].startswith(fix)
    assert config or found[2].startswith("model/model.py:1 imports ")


@pytest.mark.parametrize(
    ("statement", "what", "fix"),
    [
        ("from .inference import f", "has a relative import", "write: from model.inference import f; and model.inf"),
        ("from .there import f, g as h", "has a relative import", "write: from model.there import f, g as h"),
        ("from . import there", "has a relative import", "write: from model import there"),
        ("from . import inference", "has a relative import", "write: from model import inference; and model.inference"),
        ("from ..packages.x import f", "has a relative import", "write: from packages.x import f; and packages.x "),
        (
            "class X:\n    def load(self):\n        from .there import f",
            "has a relative",
            "write: from model.there import f",
        ),
        ("from model.x import y", "imports model.x, but there is no such file", "write the file"),
        ("import model.deep.er", "imports model.deep.er, but there is no such file", "write the file"),
        ("from model import there, gone", "imports model.gone, but there is no such file", "write the file"),
        ("from bundled.x import y", "imports bundled.x, but there is no such file", "write the file"),
        ("from bare import here, x", "imports bare.x, but there is no such file", "write the file"),
    ],
)
@pytest.mark.parametrize("isolated", [False, True])
def test_a_module_of_the_model_itself_has_to_be_there(
    tmp_path: Path, statement: str, what: str, fix: str, isolated: bool
) -> None:
    files = {"model/there.py": "", "packages/bundled/__init__.py": "", "packages/bare/here.py": ""}
    if isolated and "bare" in statement:
        files["packages/bare/__init__.py"] = "here = 1\n"
        assert lacks(tmp_path, "", f"{statement}\n{GOOD}", files=files, isolated=True) == []
        return
    (found,) = lacks(tmp_path, "", f"{statement}\n{GOOD}", files=files, isolated=isolated)
    assert found[0] == "error" and what in found[2] and found[3].startswith(fix)


def test_a_relative_import_that_runs_with_a_call_only_is_a_warning(tmp_path: Path) -> None:
    (found,) = lacks(tmp_path, "", "class Model:\n    def predict(self, x):\n        from .a import b\n")
    assert found[:2] == ("warning", "relative_import")


@pytest.mark.parametrize(
    ("statement", "instead"),
    [
        ("import helpers", "from model import helpers"),
        ("from helpers import f", "from model.helpers import f"),
        ("from tools.saw import cut", "from model.tools.saw import cut"),
    ],
)
def test_what_lies_beside_the_file_is_imported_from_its_package(tmp_path: Path, statement: str, instead: str) -> None:
    files = {"model/helpers.py": "", "model/tools/saw.py": ""}
    (found,) = lacks(tmp_path, "", f"{statement}\n{GOOD}", files=files)
    assert found[3] == f"it is next to the file: write {instead}"


@pytest.mark.parametrize("statement", ["import helpers", "from helpers import f", "from src.helpers import f"])
def test_a_file_that_is_not_called_as_its_directory_may_import_what_lies_beside_it(
    tmp_path: Path, statement: str
) -> None:
    files = {"src/my_model.py": f"{statement}\n{GOOD}", "src/helpers.py": "", "config.yaml": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    spec = describe(tmp_path, target="src.my_model:Model", format="truss", overrides={})
    assert list(lacking(spec, HAVE, isolated=False)) == []


@pytest.mark.parametrize(
    ("installed", "statement", "is_here"),
    [
        ("google/protobuf/__init__.py", "from google.cloud import storage", False),
        ("google/cloud/vision/__init__.py", "from google.cloud import storage, vision", False),
        ("google/cloud/storage/__init__.py", "from google.cloud import storage", True),
        ("google/cloud/storage/__init__.py", "from google.cloud.storage.made_up import x", True),
        ("google/cloud/storage.py", "import google.cloud.storage", True),
        ("google/__init__.py", "from google.cloud import storage", True),
    ],
)
def test_of_a_shared_namespace_it_matters_what_is_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, statement: str, is_here: bool
) -> None:
    (tmp_path / "site" / installed).parent.mkdir(parents=True)
    (tmp_path / "site" / installed).touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = lacks(tmp_path / "m", "", f"{statement}\n{GOOD}")
    assert [item[3] for item in found] == ([] if is_here else ["pip install google-cloud-storage"])


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.path.append('/elsewhere')\nimport helpers\n",
        "try:\n    import helpers\nexcept ImportError:\n    pass\n",
        "import contextlib\nwith contextlib.suppress(ImportError):\n    import helpers\n",
        "def predict():\n    import helpers\n",
        "from model.sibling import x\nimport bundled, beside\nfrom model import sibling, kept\n",
        "from bundled import anything\nfrom bare.here import x\nfrom lazy.made_up import x\n",
        "try:\n    from .sibling import x\nexcept ImportError:\n    from model.sibling import x\n",
        "import json, click, __main__\nfrom gateway import weights_path\n",
    ],
)
def test_an_import_that_may_be_found_or_need_not_be_is_no_finding(tmp_path: Path, source: str) -> None:
    files = {
        "packages/bundled/__init__.py": "",
        "beside.py": "",
        "model/sibling.py": "",
        "model/kept/x.txt": "",
        "packages/bare/here.py": "",
        "packages/lazy/__init__.py": "def __getattr__(name): ...",
    }
    assert lacks(tmp_path, "", source + GOOD, files=files) == []


def test_a_file_of_requirements_that_is_missing_matters_where_it_is_installed_from(tmp_path: Path) -> None:
    (shared,) = lacks(tmp_path, "requirements_file: gone.txt\n")
    (alone,) = lacks(tmp_path, "requirements_file: gone.txt\n", isolated=True)
    assert shared[:3] == ("warning", "missing_requirements", "gone.txt: requirements_file does not exist")
    assert alone[0] == "error"
    assert lacks(tmp_path, "requirements: [no-such]\n", isolated=True) == []


@pytest.mark.parametrize(
    "line", ["-r gone.txt", "-rgone.txt", "--requirement=gone.txt", "-c gone.txt", "--constraint gone.txt"]
)
def test_a_file_that_another_file_names_has_to_be_there(tmp_path: Path, line: str) -> None:
    files = {"req.txt": f"{line}\nno-such\n-r https://example.com/more.txt\n"}
    named, missing = lacks(tmp_path, "requirements_file: req.txt\n", files=files)
    assert named[:3] == ("warning", "missing_requirements", f"{line}: there is no such file")
    assert missing[1] == "missing_package"
    (alone,) = lacks(tmp_path, "requirements_file: req.txt\n", files=files, isolated=True)
    assert alone[:2] == ("error", "missing_requirements")


def test_a_file_that_another_names_lies_beside_it(tmp_path: Path) -> None:
    files = {"reqs/req.txt": "-r more.txt\n", "reqs/more.txt": ""}
    assert lacks(tmp_path, "requirements_file: reqs/req.txt\n", files=files, isolated=True) == []


def test_a_repository_brings_the_module_of_its_name(tmp_path: Path) -> None:
    line = "git+https://github.com/team/no_such_zz.git@main"
    (found,) = lacks(tmp_path, f"requirements: ['{line}']\n", "import no_such_zz\n" + GOOD)
    assert found[1:] == (found[1], found[2], f"pip install '{line}'")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_of_requirements_is_read_in_the_encoding_that_it_begins_with(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "req.txt").write_bytes("torch\r\nno-such\r\n".encode(encoding))
    (found,) = lacks(tmp_path, "requirements_file: req.txt\n")
    assert found[2].startswith("requirement no-such is not installed")


def test_a_file_of_requirements_that_is_not_text_is_told_and_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "req.txt").write_bytes("# gr\xfc\xdfe\nno-such\n".encode("latin-1"))
    (found,) = lacks(tmp_path, "requirements_file: req.txt\n")
    assert found[:3] == ("warning", "missing_requirements", "req.txt: it is not UTF-8")


def test_files_may_name_others_and_pyproject_has_dependencies(tmp_path: Path) -> None:
    files = {
        "req.txt": "-r more.txt\nclick\\\n>=9\n",
        "more.txt": "no-such\n",
        "pyproject.toml": "[project]\nname='x'\n",
    }
    found = lacks(tmp_path, "requirements_file: req.txt\n", files=files)
    assert [item[1] for item in found] == ["missing_package", "other_version"]

    files["pyproject.toml"] += "dependencies = ['no-such']\n"
    (found_there,) = lacks(tmp_path, "requirements_file: pyproject.toml\n", files=files)
    assert found_there[2].startswith("requirement no-such is not installed")


def test_what_an_extra_lacks_is_named(tmp_path: Path) -> None:
    (found,) = lacks(tmp_path, "requirements: ['uvicorn[standard]']\n", have={"uvicorn": "0.54", "httptools": "1"})
    assert found[:2] == ("warning", "missing_package")
    assert "its extra standard lacks " in found[2] and "uvloop" in found[2] and "httptools" not in found[2]


@pytest.mark.parametrize(
    ("text", "place", "module"),
    [
        ("import skimage\n", "packages/helper/deep.py:1", "skimage"),
        ("try:\n    import skimage\nfinally:\n    x = 1\n", "packages/helper/deep.py:2", "skimage"),
        ("from .other import x\n", "packages/helper/deep.py:1", "packages.helper.other"),
    ],
)
def test_what_a_file_imports_that_the_class_leads_to_has_to_be_there(
    tmp_path: Path, text: str, place: str, module: str
) -> None:
    files = {"packages/helper/__init__.py": "from .deep import x\n", "packages/helper/deep.py": text}
    (found,) = lacks(tmp_path, "", f"import helper\n{GOOD}", files=files)
    assert found[0] == "error" and f"{place} imports {module}" in found[2]
    assert "scikit-image" in found[3] if module == "skimage" else found[3].startswith("write the file")


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import skimage\nexcept ImportError:\n    skimage = None\n",
        "try:\n    import skimage\nexcept Exception:\n    pass\n",
        "try:\n    import skimage\nexcept ODD:\n    pass\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import skimage\n",
        "def late():\n    import skimage\n",
        "import sys\nsys.path.append('elsewhere')\nimport skimage\n",
        "import sys\nsys.modules['skimage'] = sys\nimport skimage\n",
        "from . import deep, json\nfrom .deep import *\n",
    ],
)
def test_what_such_a_file_may_do_without_is_no_finding(tmp_path: Path, text: str) -> None:
    deep = {
        "packages/helper/deep.py": text,
        "packages/helper/json.py": "",
        "packages/helper/unused.py": "import nowhere\n",
    }
    files = {"packages/helper/__init__.py": "from . import deep\n", **deep}
    assert lacks(tmp_path, "", f"import helper\n{GOOD}", files=files) == []


def test_a_file_that_the_class_may_do_without_may_lack_what_it_imports(tmp_path: Path) -> None:
    source = f"try:\n    import helper\nexcept ImportError:\n    pass\n{GOOD}"
    assert lacks(tmp_path, "", source, files={"packages/helper.py": "import skimage\n"}) == []


def test_a_misspelt_module_is_told_what_it_may_have_meant(tmp_path: Path) -> None:
    ((level, code, _, fix),) = lacks(tmp_path, "", f"import clickk\n{GOOD}")
    assert (level, code, fix) == ("error", "missing_module", "did you mean click?")


@pytest.mark.parametrize(
    ("statement", "where", "name", "meant"),
    [
        ("from starlette.request import Request", "", "starlette.request", "starlette.requests"),
        ("import collections.abcd", "", "collections.abcd", "collections.abc"),
        ("import os.pth", "", "os.pth", "os.path"),
        ("from tools.hamer import hit", "packages/tools", "tools.hamer", "tools.hammer"),
    ],
)
def test_a_misspelt_submodule_of_what_is_there_is_told_and_nothing_to_install(
    tmp_path: Path, statement: str, where: str, name: str, meant: str
) -> None:
    files = {f"{where}/__init__.py": "", f"{where}/hammer.py": ""} if where else {}
    ((level, code, what, fix),) = lacks(tmp_path, "requirements: [torch]\n", f"{statement}\n{GOOD}", files=files)
    assert (level, code, fix) == ("error", "missing_module", f"did you mean {meant}?")
    assert what.startswith(f"model/model.py:1 imports {name}, ")


def test_a_submodule_that_is_there_or_that_code_may_make_is_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "makes_modules").mkdir(parents=True)
    (tmp_path / "site" / "makes_modules" / "__init__.py").write_text(
        "import sys; sys.modules[f'{__name__}.mover'] = sys"
    )
    (tmp_path / "site" / "makes_modules" / "movers.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    source = f"import os.path, collections.abc, xml.etree.ElementTree, distutils.ccompiler, makes_modules.mover\n{GOOD}"
    assert lacks(tmp_path / "m", "", source) == []


def test_what_to_do_is_looked_for_as_often_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(requirements, "did_you_mean", lambda module, _: looked.append(module) or "")
    source = "".join(f"import nosuch{at}\n" for at in range(200)) + GOOD
    found = lacks(tmp_path, "", source)
    assert len(found) == 200
    assert len(looked) == MOST_ALIKE


def test_each_line_is_read_once_however_many_imports_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Counter[str]()
    name_in = distributions.name_in
    monkeypatch.setattr(distributions, "name_in", lambda line: read.update([line]) or name_in(line))
    source = "".join(f"import nosuch{at}\n" for at in range(100)) + GOOD
    lacks(tmp_path, "requirements: [one, two, nosuch7]", source)
    assert read.keys() == {"one", "two", "nosuch7"}
    assert max(read.values()) <= 3


def test_a_file_of_more_lines_than_anybody_writes_is_not_read(tmp_path: Path) -> None:
    files = {"requirements.txt": "torch\n" * 50_001}
    ((level, _, what, _),) = lacks(tmp_path, "requirements_file: requirements.txt", files=files)
    assert level == "warning"
    assert what == "requirements.txt: more than 50000 lines, too many for a requirements file"
