from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import ConfigError, ModelSpec, hookimpl
from gateway.directories.discovery import MAX_DEPTH, MAX_LOOKS, Discovery, discover
from gateway.directories.ids import RESERVED, id_problem
from gateway.plugins import BUILTINS, Plugins
from gateway.settings.load import load_settings
from gateway.settings.schema import Settings

MODEL = "class Model:\n    def predict(self, inputs):\n        return inputs\n"
PLUGINS = Plugins()
for name in ("truss", "python"):
    PLUGINS.register(importlib.import_module(BUILTINS[name]), name, source="built-in")


def model(path: Path, text: str = MODEL) -> Path:
    path.mkdir(parents=True)
    (path / "model.py").write_text(text)
    return path


def truss(path: Path, config: str = "") -> Path:
    model(path / "model")
    (path / "config.yaml").write_text(config)
    return path


def find(*roots: Path, settings: Settings | None = None) -> Discovery:
    return discover(roots, PLUGINS, settings)


def names(found: Discovery) -> list[str]:
    return [spec.name for spec in found.specs]


def told(found: Discovery) -> str:
    return "\n".join(str(problem) for problem in found.problems)


def test_every_model_directory_is_a_model_by_its_name(tmp_path: Path) -> None:
    truss(tmp_path / "echo")
    model(tmp_path / "shout")

    found = find(tmp_path)

    assert [(spec.name, spec.format, spec.root) for spec in found.specs] == [
        ("echo", "truss", tmp_path / "echo"),
        ("shout", "python", tmp_path / "shout"),
    ]
    assert found.problems == ()


def test_nested_directories_give_ids_with_slashes(tmp_path: Path) -> None:
    model(tmp_path / "a" / "b" / "c" / "d")
    model(tmp_path / "a" / "e")
    assert names(find(tmp_path)) == ["a/b/c/d", "a/e"]


@pytest.mark.parametrize("name", ["model.onnx", "model.py"])
def test_what_lies_deeper_than_is_searched_has_a_line(tmp_path: Path, name: str) -> None:
    deep = tmp_path / "voices/en/en_US/lessac/medium"
    deep.mkdir(parents=True)
    (deep / name).write_text(MODEL)

    found = find(tmp_path)

    assert not found.specs and "is deeper than the 4 levels that are searched: medium" in told(found)
    assert f"--models {deep.parent}" in told(found)


def test_few_directories_that_lie_deeper_are_looked_at(tmp_path: Path) -> None:
    for number in range(MAX_LOOKS + 1):
        (tmp_path / f"a/b/c/d/{number:04}").mkdir(parents=True)
    (tmp_path / f"a/b/c/d/{MAX_LOOKS:04}/model.py").write_text(MODEL)

    assert "no models here" in told(find(tmp_path))


def test_nothing_below_four_levels_is_looked_at(tmp_path: Path) -> None:
    model(tmp_path / "/".join("abcde"[: MAX_DEPTH + 1]))
    assert names(find(tmp_path)) == []


def test_a_model_is_a_leaf_even_a_broken_one(tmp_path: Path) -> None:
    truss(tmp_path / "good")
    broken = truss(tmp_path / "broken", "runtime: 3")
    model(broken / "inner")

    found = find(tmp_path)

    assert names(found) == ["good"]
    assert told(found) == f"{tmp_path}/broken/config.yaml:1: runtime must be a mapping"
    assert found.problems[0].model == "broken"


@hookimpl
def find_model(path: Path) -> ModelSpec | None:
    """A format that claims by files alone: .dot files, one of them."""
    dots = sorted(path.glob("*.dot"))
    if len(dots) > 1:
        raise ConfigError(f"{path}: several files")
    return ModelSpec(name=path.name, root=path, target="dots:Model", format="dots") if dots else None


def with_dots(root: Path) -> Discovery:
    plugins = Plugins()
    plugins.register(SimpleNamespace(find_model=find_model), "dots", source="test")
    for name in ("truss", "python"):
        plugins.register(importlib.import_module(BUILTINS[name]), name, source="built-in")
    return discover([root], plugins)


def test_a_file_dropped_beside_models_hides_none_of_them_silently(tmp_path: Path) -> None:
    model(tmp_path / "shop" / "shout")
    model(tmp_path / "shop" / "team" / "echo")
    (tmp_path / "shop" / "loose.dot").touch()

    found = with_dots(tmp_path / "shop")

    assert names(found) == ["shop"]
    assert re.search(r"shop: .*ignored: shout, team/echo \(move the files", told(found))


def test_a_config_that_chooses_a_file_hides_no_model_silently(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    model(shop / "shout")
    (shop / "parts").mkdir(parents=True)
    for file in ("parts/weights.dot", "one.dot"):
        (shop / file).touch()
    (shop / "config.yaml").write_text("weights:\n- source: file://parts/weights.dot\n")

    found = with_dots(shop)

    assert names(found) == ["shop"]
    assert re.search(r"config\.yaml makes it one model, .*ignored: shout \(move config\.yaml", told(found))


def test_what_a_config_names_in_its_own_directories_is_passed_over_by_nobody(tmp_path: Path) -> None:
    (tmp_path / "shop" / "parts").mkdir(parents=True)
    for file in ("parts/weights.dot", "one.dot"):
        (tmp_path / "shop" / file).touch()
    (tmp_path / "shop" / "config.yaml").write_text("weights:\n- source: file://parts/weights.dot\n")

    assert (names(with_dots(tmp_path / "shop")), told(with_dots(tmp_path / "shop"))) == (["shop"], "")


def test_files_that_make_no_model_hide_none(tmp_path: Path) -> None:
    model(tmp_path / "shop" / "shout")
    (tmp_path / "shop" / "one.dot").touch()
    (tmp_path / "shop" / "two.dot").touch()

    found = with_dots(tmp_path / "shop")

    assert names(found) == ["shout"]
    assert "shop: several files" in told(found)


def test_what_lies_below_a_model_with_a_config_is_its_own(tmp_path: Path) -> None:
    truss(tmp_path / "echo")
    model(tmp_path / "echo" / "data" / "shout")

    assert (names(find(tmp_path)), told(find(tmp_path))) == (["echo"], "")


def dropped(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_bytes(b"PK\x03\x04")


def far(root: Path) -> None:
    """What may be a model, deeper than is searched."""
    model(root / "a" / "b" / "c" / "d" / "e")


def test_a_file_beside_directories_takes_no_line_of_theirs_away(tmp_path: Path) -> None:
    far(tmp_path / "team")
    far(tmp_path / "crew")
    dropped(tmp_path, "yolo11n.pt", "README.md", "train.npz")

    problems = find(tmp_path).problems

    assert [each.code for each in problems] == ["too_deep", "too_deep", "unserved"]
    assert "yolo11n.pt" in problems[-1].what
    (tmp_path / "yolo11n.pt").unlink()
    assert [each.code for each in find(tmp_path).problems] == ["too_deep", "too_deep"]


def test_weights_beside_directories_of_models_have_a_line_and_other_files_none(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    model(shop / "shop")  # the root is called as the model: neither hides the other
    dropped(shop, "yolo11n.pt", "notes.txt", "table.npz", "run.py", "tokenizer.json", "data.bin")

    found = find(shop)

    assert names(found) == ["shop"]
    (problem,) = found.problems
    assert re.search(
        r"yolo11n\.pt\), and 2 others that may hold weights: data\.bin, table\.npz, next to other", problem.what
    )
    assert problem.fix.startswith("to serve it, move it into its own directory, and write a model.py")
    assert (problem.level, problem.model) == ("warning", None)


def test_empty_directories_and_loose_classes_below_a_root_have_one_note_each(tmp_path: Path) -> None:
    model(tmp_path / "echo")
    for empty in ("new", "team/later", "kept"):
        (tmp_path / empty).mkdir(parents=True)
    (tmp_path / "kept" / ".gitkeep").touch()
    (tmp_path / "shout.py").write_text(MODEL)
    (tmp_path / "script.py").write_text("print('hello')\n")

    found = find(tmp_path)

    assert names(found) == ["echo"]
    empty, loose = found.problems
    assert (empty.level, empty.code, empty.what) == (
        "note",
        "empty_directory",
        "3 empty directories: kept, new, team/later",
    )
    assert empty.fix == f"gateway new {tmp_path}/kept creates a model there"
    assert (loose.level, loose.code, loose.where) == ("note", "loose_file", str(tmp_path))
    assert loose.what == "a class Model in a file next to directories of models: shout.py"
    moved = f"mkdir -p {tmp_path}/shout && mv {tmp_path}/shout.py {tmp_path}/shout/model.py"
    assert loose.fix == f"a model is a directory: {moved}"
    subprocess.run(moved, shell=True, check=True)
    assert names(find(tmp_path)) == ["echo", "shout"]


def test_weights_that_a_model_beside_them_names_are_its_own(tmp_path: Path) -> None:
    model(tmp_path / "one", f"WEIGHTS = '../yolo11n.pt'\n{MODEL}")
    truss(tmp_path / "two", "model_metadata:\n  file: ../face.onnx\n")
    dropped(tmp_path, "yolo11n.pt", "face.onnx")
    assert (names(find(tmp_path)), told(find(tmp_path))) == (["one", "two"], "")
    dropped(tmp_path, "voice.onnx")
    assert "(voice.onnx)" in told(find(tmp_path))


def test_the_lines_of_others_are_kept_where_a_root_is_a_model_that_nobody_serves(tmp_path: Path) -> None:
    shop = tmp_path / "good"
    model(shop / "good")
    (shop / "saved_model.pb").touch()
    (shop / "bad").mkdir()
    dropped(shop / "bad", "face.onnx")

    found = find(shop)

    assert names(found) == ["good"]
    assert "saved_model.pb" in told(found) and "face.onnx" in told(found)


def test_a_link_to_nothing_is_told(tmp_path: Path) -> None:
    model(tmp_path / "shout")
    (tmp_path / "gone").symlink_to(tmp_path / "elsewhere")

    found = find(tmp_path)

    assert names(found) == ["shout"]
    assert re.search(r"gone: a link to .*elsewhere, which does not exist", told(found))


@pytest.mark.parametrize(
    ("place", "sign"),
    [("venv", "pyvenv.cfg"), ("env", "conda-meta/history"), ("node_modules", "a/package.json"), ("site-packages", "x")],
)
def test_packages_that_are_installed_beside_models_are_no_models(place: str, sign: str, tmp_path: Path) -> None:
    model(tmp_path / "echo")
    model(tmp_path / place / "cffi")
    (tmp_path / place / "lib" / "site-packages").mkdir(parents=True)
    (tmp_path / place / "lib" / "site-packages" / "distutils-precedence.pth").touch()
    (tmp_path / place / sign).parent.mkdir(exist_ok=True)
    (tmp_path / place / sign).touch()
    found = find(tmp_path)
    assert (names(found), told(found)) == (["echo"], "")


def test_hidden_directories_are_skipped(tmp_path: Path) -> None:
    model(tmp_path / ".hidden")
    model(tmp_path / "__pycache__")
    model(tmp_path / "seen")
    assert names(find(tmp_path)) == ["seen"]


def test_one_bad_directory_never_stops_the_others(tmp_path: Path) -> None:
    model(tmp_path / "syntax", "class Model")
    model(tmp_path / "class", "class Modl: ...")
    model(tmp_path / "bytes", "\0")
    (tmp_path / "file.txt").touch()
    truss(tmp_path / "yaml", "a: [")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    model(tmp_path / "good")

    found = find(tmp_path)

    assert names(found) == ["good"]
    assert {problem.model for problem in found.problems} == {"syntax", "class", "bytes", "yaml", None}
    assert "dangling: a link to" in told(found)


def test_a_root_may_be_a_model_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "echo")
    monkeypatch.chdir(tmp_path / "echo")

    for root in (tmp_path / "echo", Path()):
        (spec,) = find(root).specs
        assert (spec.name, spec.root) == ("echo", tmp_path / "echo")


def test_relative_roots_keep_messages_short_and_specs_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truss(tmp_path / "models" / "good", "zebra: 1")
    truss(tmp_path / "models" / "bad", "runtime: 3")
    monkeypatch.chdir(tmp_path)

    found = find(Path("models"))

    assert told(found).startswith("models/bad/config.yaml:1: ")
    assert found.specs[0].root == tmp_path / "models" / "good"
    assert found.specs[0].notes[0].startswith("models/good/config.yaml:1: ")


@pytest.mark.parametrize(
    ("name", "what"),
    [("my model", "is not a model name"), ("-x", "is not a model name"), ("v1", "is part of a route")],
)
def test_a_directory_whose_name_cannot_be_an_id_is_a_problem(tmp_path: Path, name: str, what: str) -> None:
    model(tmp_path / name)
    model(tmp_path / "good")

    found = find(tmp_path)

    assert names(found) == ["good"]
    assert what in told(found)
    assert "rename the directory" in told(found)


def test_of_two_models_with_one_id_the_first_is_served_and_both_are_named(tmp_path: Path) -> None:
    model(tmp_path / "one" / "echo")
    model(tmp_path / "two" / "echo")

    found = find(tmp_path / "one", tmp_path / "two")

    assert [spec.root for spec in found.specs] == [tmp_path / "one" / "echo"]
    assert f"{tmp_path}/two/echo: " in told(found)
    assert f"served from {tmp_path}/one/echo" in told(found)


def test_a_missing_root_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model(tmp_path / "models" / "good")

    found = find(tmp_path / "gone", tmp_path / "file", tmp_path / "models")

    assert names(found) == ["good"]
    assert f"{tmp_path}/gone: this model root does not exist" in told(found)
    assert f"{tmp_path}/file: this model root is not a directory" in told(found)


def test_an_empty_root_says_what_to_do_next(tmp_path: Path) -> None:
    (problem,) = find(tmp_path).problems
    assert "no models here" in problem.what
    assert "gateway new" in problem.fix
    assert problem.level == "warning"


def test_links_are_followed_but_never_round_in_circles(tmp_path: Path) -> None:
    model(tmp_path / "elsewhere" / "echo")
    (tmp_path / "models" / "group").mkdir(parents=True)
    (tmp_path / "models" / "linked").symlink_to(tmp_path / "elsewhere" / "echo")
    (tmp_path / "models" / "again").symlink_to(tmp_path / "elsewhere" / "echo")
    (tmp_path / "models" / "group" / "loop").symlink_to(tmp_path / "models")
    (tmp_path / "models" / "self").symlink_to(tmp_path / "models" / "self")

    assert names(find(tmp_path / "models")) == ["again", "linked"]


def test_an_unreadable_directory_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "a").touch()
    model(tmp_path / "open")
    real = Path.iterdir

    def refuse(self: Path) -> object:
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    found = find(tmp_path)

    assert names(found) == ["open"]
    assert "cannot be read: Permission denied" in told(found)


def test_a_name_that_is_no_text_breaks_no_line(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/bad\xff\nname")
    (tmp_path / os.fsdecode(b"bad\xff\nname") / "model.py").write_text(MODEL)

    (problem,) = find(tmp_path).problems

    assert str(problem).encode("ascii")
    assert "bad\\udcff\\nname" in problem.where


def test_a_description_that_makes_no_sense_stops_nobody(tmp_path: Path) -> None:
    model(tmp_path / "good")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "model.odd").touch()
    plugins = Plugins()
    odd: Any = ModelSpec(name="odd", target="a:B", root=tmp_path / "odd", limits=None)  # type: ignore[arg-type]
    plugin = ModuleType("plugin")
    plugin.find_model = hookimpl(lambda path: odd if path.name == "odd" else None)  # type: ignore[attr-defined]
    plugins.register(plugin, "plugin", source="test")
    plugins.register(importlib.import_module(BUILTINS["python"]), "python", source="built-in")

    found = discover([tmp_path], plugins)

    assert names(found) == ["good"]
    assert "its description cannot be used: " in told(found)


def test_a_missing_extra_is_told_with_the_directory_and_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "iris").mkdir(parents=True)
    (tmp_path / "models" / "iris" / "model.odd").touch()
    monkeypatch.chdir(tmp_path)
    plugins = Plugins()
    plugin = ModuleType("plugin")
    install = "pip install 'model-gateway[sklearn]'"
    needs = ("sklearn", "no_such_module_here")
    found = ModelSpec(name="iris", target="a:B", root=Path("models/iris"), needs=needs, install=install)
    plugin.find_model = hookimpl(lambda path: found if path.name == "iris" else None)  # type: ignore[attr-defined]
    plugins.register(plugin, "plugin", source="test")

    (problem,) = discover(["models"], plugins).problems

    assert str(problem) == "models/iris: looks like scikit-learn; run: pip install 'model-gateway[sklearn]'"


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────


def settings(path: Path, text: str) -> Settings:
    (path / "gateway.toml").write_text(text)
    return load_settings(path / "gateway.toml", environ={})


def test_a_models_table_applies_to_the_model_of_that_id(tmp_path: Path) -> None:
    model(tmp_path / "models" / "team" / "echo")
    text = '[gateway.limits]\nmax_queue = 3\n[models."team/echo"]\nslots = 4\nreplicas = 2\n'

    (spec,) = find(tmp_path / "models", settings=settings(tmp_path, text)).specs

    assert (spec.limits.slots, spec.limits.max_queue, spec.replicas) == (4, 3, 2)
    assert spec.config["runtime"]["predict_concurrency"] == 4


def test_a_table_for_no_model_is_told_with_its_line(tmp_path: Path) -> None:
    model(tmp_path / "models" / "echo")
    truss(tmp_path / "models" / "broken", "a: [")
    text = "[models.ecko]\nslots = 4\n[models.broken]\nslots = 1\n"

    found = find(tmp_path / "models", settings=settings(tmp_path, text))

    assert f"{tmp_path}/gateway.toml:1: [models.ecko]: no model named 'ecko' (have: echo, broken)" in told(found)
    assert len(found.problems) == 2


def test_a_broken_model_is_one_that_there_is(tmp_path: Path) -> None:
    truss(tmp_path / "models" / "broken", "a: [")
    found = find(tmp_path / "models", settings=settings(tmp_path, "[models.ecko]\nslots = 4\n"))
    assert "no model named 'ecko' (have: broken)" in told(found)


# ── ids ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["echo", "team/echo", "llama-3.1_x", "0", "a" * 128, "V1"])
def test_an_id_of_plain_segments_is_fine(name: str) -> None:
    assert id_problem(name) is None


@pytest.mark.parametrize("name", ["", "/", "a//b", "a/", "..", "a/..", ".a", "-a", "a b", "é", "a\n", "a:b", "a" * 129])
def test_an_id_that_could_mislead_is_refused(name: str) -> None:
    assert id_problem(name)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_parts_of_routes_are_no_ids(name: str) -> None:
    assert id_problem(name)
    assert id_problem(f"team/{name}")


@given(st.text(alphabet="ab./\\-_ :\0é\n", max_size=12))
def test_an_accepted_id_never_leaves_its_root(name: str) -> None:
    if id_problem(name) is None:
        assert Path("/models", name).resolve().is_relative_to("/models")
        assert Path(name).parts == tuple(name.split("/"))


# ── it only looks ────────────────────────────────────────────────────────────────────────────────────────────────

AUDIT = """
import sys
from pathlib import Path
from gateway.directories.discovery import discover
from gateway.plugins import Plugins

roots, seen = sys.argv[1:], []
plugins = Plugins.load()

def audit(event, arguments):
    if event == "exec" and any(arguments[0].co_filename.startswith(root) for root in roots):
        seen.append(f"ran {arguments[0].co_filename}")
    if event == "import" and arguments[0].partition(".")[0] in ("torch", "transformers", "sklearn", "model"):
        seen.append(f"imported {arguments[0]}")
    if event.startswith(("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "socket.")):
        seen.append(event)

sys.addaudithook(audit)
found = discover(roots, plugins)
print(len(found.specs), *seen, sep="\\n")
"""


def test_discovery_runs_no_code_of_a_model_and_no_framework(tmp_path: Path) -> None:
    model(tmp_path / "evil", f"open({str(tmp_path / 'ran')!r}, 'w')\n{MODEL}")
    shipped = Path(__file__).parents[2] / "models"

    count, *seen = subprocess.run(
        [sys.executable, "-c", AUDIT, str(tmp_path), str(shipped)],
        capture_output=True,
        text=True,
        check=True,
        cwd=shipped.parent,
    ).stdout.splitlines()

    assert int(count) >= 4
    assert seen == []
    assert not (tmp_path / "ran").exists()


class Asked:
    """A plugin that is asked for every directory, and has none."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @hookimpl
    def find_model(self, path: Path, overrides: dict[str, Any]) -> None:
        self.names.append(path.name)


def asked(root: Path) -> tuple[list[str], Discovery]:
    plugins, counting = Plugins(), Asked()
    plugins.register(counting, "counting", source="test")
    plugins.register(importlib.import_module(BUILTINS["python"]), "python", source="built-in")
    return counting.names, discover([root], plugins)


def test_nobody_is_asked_for_a_directory_in_which_nothing_is(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"empty{number}").mkdir()
    model(tmp_path / "echo")
    looked, found = asked(tmp_path)
    assert looked == [tmp_path.name, "echo"]
    assert "50 empty directories" in told(found)


def test_of_very_many_directories_that_are_no_models_the_others_of_a_root_have_their_own_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.directories.discovery.MAX_BELOW", 10)
    for top in ("a", "b"):
        for number in range(50):
            (tmp_path / top / f"{number:02}" / "in").mkdir(parents=True)
            (tmp_path / top / f"{number:02}" / "in" / "notes.txt").touch()
    model(tmp_path / "z" / "echo")

    looked, found = asked(tmp_path)

    assert len(looked) < 30
    assert names(found) == ["z/echo"]
    assert [(each.where, each.code, each.level) for each in found.problems] == [
        (str(tmp_path / top), "not_searched", "warning") for top in ("a", "b")
    ]
    assert "more than 10 directories below it are not models: those from 04/in on are not searched" in told(found)


def test_models_are_found_however_many_of_them_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.directories.discovery.MAX_BELOW", 10)
    for number in range(30):
        model(tmp_path / "team" / f"m{number}")
    assert len(names(find(tmp_path))) == 30
