from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.directories.code import source as sources
from gateway.directories.code.source import FATAL, inspect_source


def problems(path: Path, source: str, name: str = "Model") -> list[tuple[str, str]]:
    (path / "model.py").write_text(source, "utf-8")
    return [(problem.code, problem.what) for problem in inspect_source(path / "model.py", name)]


@pytest.mark.parametrize(
    "source",
    [
        "class Model:\n  def predict(self, x): return x",
        "class Model(object):\n  async def predict(self, x, request): return x",
        "class Model:\n  def predict(self, x, request: 'starlette.requests.Request'): return x",
        "class Model:\n  def predict(self, x, req: Request): return x",
        "class Model:\n  def predict(self, request: Request): return x",
        "class Model:\n  def predict(self): return 1",
        "class Model:\n  def __init__(self, config, x=1, *, secrets, **rest): ...\n  def predict(self, x): ...",
        "class Model:\n  def load(self, path=None, *rest, **more): ...\n  def predict(self, x): ...",
        "class Model:\n  def __init__(self, *rest, data_dir, y=2): ...\n  def predict(self, x): ...",
        "class Model:\n  def chat_completions(self, body): yield 'x'",
        "class Model:\n  async def websocket(self, websocket): ...",
        "class Model:\n  def __init__(self): self.predict = print",
        "class Model:\n  predict = print",
        "class Model:\n  @staticmethod\n  def predict(x): return x",
        "class Model:\n  @cached(1)\n  def predict(self, a, b, c): return a",
        "class Model(Base): pass",
        "class Model(metaclass=Meta): pass",
        "@decorated\nclass Model: pass",
        "if True:\n  class Model:\n    def predict(self, x): return x",
        "try:\n  import x\nexcept ImportError:\n  class Model:\n    def predict(self, x): return x",
        "from elsewhere import Model",
        "from elsewhere import *",
        "import Model",
        "Model = make()",
        "Model, Other = make()",
        "for Model in []: pass",
        "def __getattr__(name): ...",
        "class Model:\n  def predict(self, x): return '\\d'",
    ],
)
def test_what_may_work_is_no_problem(tmp_path: Path, source: str) -> None:
    assert problems(tmp_path, source) == []


@pytest.mark.parametrize(
    ("methods", "code", "what"),
    [
        (
            "def predict(self, x, y=None): ...",
            "bad_signature",
            "`predict` method with two arguments must have request as second argument (type annotated). Got: (x, y) ",
        ),
        (
            "def __init__(self, cfg, y=1): ...\n  def predict(self, x): ...",
            "bad_signature",
            "`__init__` needs cfg, which",
        ),
        ("def __init__(self, *, name, y=1): ...\n  def predict(self, x): ...", "bad_signature", "needs name, which"),
        (
            "def load(self, path): ...\n  def predict(self, x): ...",
            "bad_signature",
            "`load` needs path, which nobody gives",
        ),
        ("def unload(self, *, x): ...\n  def predict(self, x): ...", "bad_signature", "`unload` needs x, which nobody"),
        ("def predict(self, *args, **kwargs): ...", "bad_signature", "must have request as second argument"),
        (
            "def chat_completions(self, request: Request, x): ...",
            "bad_signature",
            "`chat_completions` method with two arguments is not allowed to have request as first argument,"
            " request must be second. Got: (request: Request, x)",
        ),
        ("def predict(self, a, b, c) -> int: ...", "bad_signature", "more than two arguments. Got: (a, b, c) -> int"),
        ("def predict(self, x): ...\n  def is_healthy(self, x): ...", "bad_signature", "`is_healthy` must have only"),
        ("async def websocket(self): ...", "bad_signature", "`websocket` must have only one argument: `websocket`."),
        ("def websocket(self, websocket): ...", "sync_websocket", "must be async function definitions."),
        (
            "async def websocket(self, w): ...\n  def predict(self, x): ...",
            "websocket_and_predict",
            "cannot have both `websocket` and any of",
        ),
        ("def load(self): ...", "no_method", "a model needs one of the methods predict, chat_completions"),
        (
            "def preprocess(self, x): ...\n  def predict(self, request: Request): ...",
            "discarded_result",
            "When using `preprocess`, the predict method cannot only have the request argument",
        ),
        (
            "def predict(self, x): ...\n  def postprocess(self, request: Request): ...",
            "discarded_result",
            "The `postprocess` method cannot only have the request argument",
        ),
    ],
)
def test_trusss_definition_errors_are_seen_in_the_text(tmp_path: Path, methods: str, code: str, what: str) -> None:
    ((found, text),) = problems(tmp_path, f"class Model:\n  {methods}\n")

    assert found == code
    assert what in text
    assert found not in FATAL


def test_a_missing_class_lists_those_that_are_there(tmp_path: Path) -> None:
    assert problems(tmp_path, "class Modell: ...\nclass Other: ...") == [
        ("class_not_found", "no class Model in model.py (have: Modell, Other)")
    ]
    assert problems(tmp_path, "x = 1") == [("class_not_found", "no class Model in model.py (it defines no class)")]


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("class Model:\n  def predict(self, x)\n    return x\n")

    (problem,) = inspect_source(path, "Model")

    assert problem.where == f"{path}:2"
    assert problem.what == "syntax error: expected ':'"
    assert problem.code in FATAL


def test_a_definition_error_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("\nclass Model:\n  def predict(self, a, b, c): ...\n")
    assert [problem.where for problem in inspect_source(path, "Model")] == [f"{path}:3"]


def test_methods_that_plugins_serve_count(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("class Model:\n  def transcribe(self, x): ...\n")

    assert [problem.code for problem in inspect_source(path, "Model")] == ["no_method"]
    assert inspect_source(path, "Model", ["transcribe"]) == []


def test_looking_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    assert problems(tmp_path, f"open({str(marker)!r}, 'w')\nclass Model:\n  def predict(self, x): ...\n") == []
    assert not marker.exists()


@pytest.mark.parametrize("source", [b"\x00", b"(" * 5000, b"class Model:\n" + b"  x = \xff", b"# coding: nonsense\n"])
def test_what_python_cannot_read_is_one_problem(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "model.py").write_bytes(source)
    assert [problem.code for problem in inspect_source(tmp_path / "model.py", "Model")] == ["syntax_error"]


def test_a_missing_file_is_one_problem(tmp_path: Path) -> None:
    assert [problem.code for problem in inspect_source(tmp_path / "model.py", "Model")] == ["unreadable_source"]


PYTHONISH = st.text(alphabet="class Model:def(self,x)\n\t=@'#\\é[]{}*", max_size=80)


@given(st.binary(max_size=80) | PYTHONISH.map(str.encode))
def test_any_bytes_are_inspected_without_an_exception(tmp_path_factory: pytest.TempPathFactory, source: bytes) -> None:
    path = tmp_path_factory.mktemp("model") / "model.py"
    path.write_bytes(source)
    assert all(problem.where.startswith(str(path)) for problem in inspect_source(path, "Model"))


@pytest.mark.parametrize(
    "dear",
    ["x = [" + "1," * 150_000 + "]", "x = f'" + "{a}" * 40_000 + "'"],
    ids=["a tree of hundreds of times its bytes", "an f-string of very many parts"],
)
def test_of_a_source_that_is_dear_to_parse_nothing_is_known_before_it_is_loaded(tmp_path: Path, dear: str) -> None:
    assert problems(tmp_path, f"{dear}\nclass Other: ...") == []
    assert problems(tmp_path, "class Other: ...") != []


def test_of_very_many_classes_few_are_compared_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    monkeypatch.setattr(sources, "written", lambda module, node: looked.append(node))
    ((code, what),) = problems(tmp_path, "\n".join(f"class Some{at}: pass" for at in range(500)))
    assert code == "class_not_found"
    assert what.endswith("Some9 and 490 more)")
    assert len(looked) == sources.MOST_CLASSES
