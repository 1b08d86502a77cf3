"""A program of torch.export is only a computation: what else a file could hold is refused before PyTorch reads it."""

from __future__ import annotations

import copy
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch
from gateway_torch.archives import ZipArchive
from gateway_torch.exported import read_program
from programs import exported, forged, loaded, places, plain, problems, rewritten
from torch import Tensor, nn
from torch.export import Dim

from gateway import ConfigError

RUN = "__import__('pathlib').Path('ran').touch()"


class Evil:
    def __reduce__(self) -> Any:
        return eval, (RUN,)


def node(found: Any, number: int = 0) -> Any:
    return found["graph_module"]["graph"]["nodes"][number]


def spec(found: Any) -> Any:
    return found["graph_module"]["module_call_graph"][0]["signature"]


def length(found: Any) -> Any:
    return found["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]


def hidden(found: Any) -> None:
    """A length where other parts may have any text."""
    values = found["graph_module"]["graph"]["sym_int_values"]
    values["as_string"] = {"as_expr": {"expr_str": RUN, "hint": None}}


FORGED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a function of another module": (lambda it: node(it).update(target="torch.os.system"), "is not one of PyTorch's"),
    "a private part of an operator": (lambda it: node(it).update(target="torch.ops.aten.add._op"), "is not one of"),
    "an attribute of all objects": (lambda it: node(it).update(target="torch.ops.aten.__class__.mro"), "is not one of"),
    "a library": (lambda it: node(it).update(target="torch.ops.load_library"), "is not one of PyTorch's"),
    "an operator of a library": (lambda it: node(it).update(target="torch.ops.mine.op.default"), "is not one of"),
    "an extension": (lambda it: node(it).update(target="#mine:op"), "is not one of PyTorch's"),
    "a file": (lambda it: node(it).update(target="torch.ops.aten.from_file.default"), "opens a file of this machine"),
    "a file to write": (lambda it: node(it).update(target="torch.ops.aten.save.default"), "opens a file of this mach"),
    "an operator as an argument": (
        lambda it: node(it)["inputs"][0].update(arg={"as_operator": "torch.os.system"}),
        "is not one of PyTorch's",
    ),
    "a length": (lambda it: length(it).update(expr_str=RUN), "an expression in it is"),
    "an attribute of a length": (lambda it: length(it).update(expr_str="s77.__class__"), "an expression in it is"),
    "an attribute of a number": (lambda it: length(it).update(expr_str="1.0.__class__"), "an expression in it is"),
    "a hidden length": (hidden, "its as_string is damaged"),
    "a name of a tensor": (lambda it: node(it)["outputs"][0]["as_tensor"].update(name=f"x={RUN}"), "a name in it is"),
    "a name of an argument": (lambda it: node(it)["inputs"][0].update(name=f"a={RUN}, b"), "a name in it is"),
    "a name of an input": (lambda it: spec(it).update(forward_arg_names=[f"x={RUN}"]), "a name of an argument in"),
    "a key of the arguments": (
        lambda it: spec(it).update(in_spec=json.dumps([1, tree("builtins.dict", json.dumps([f"x': {RUN}, 'y"]))])),
        "keys that are not plain texts",
    ),
    "an enumeration": (
        lambda it: spec(it).update(out_spec=json.dumps([1, tree("builtins.dict", '{"__enum__": 1, "fqn": "os:x"}')])),
        "keys that are not plain texts",
    ),
    "a function that makes values": (
        lambda it: spec(it).update(in_spec=json.dumps([1, tree("collections.defaultdict", "{}")])),
        "have objects of 'collections.defaultdict'",
    ),
}  # fmt: skip


def tree(kind: str, context: str) -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": []}


@pytest.mark.parametrize("name", FORGED)
def test_a_text_that_would_be_code_is_refused_by_check_and_load(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, told = FORGED[name]
    place = forged(tmp_path / "it", change)
    (what,) = problems(place)
    assert told in what and "model.pt2 cannot be served" in what
    with pytest.raises(ConfigError, match="cannot be served"):
        loaded(place, monkeypatch)
    assert not (place / "ran").exists()


def test_no_text_in_a_program_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text and each name is replaced by code in turn. What is accepted is loaded and computed."""
    archive = ZipArchive(exported(tmp_path / "it") / "model.pt2")
    found = json.loads(archive.read("models/model.json", 1 << 20))
    tried = dict[str, int]()
    for number, (key, _) in enumerate(places(found)):
        tried.setdefault(key, number)
    accepted = []
    for key, number in tried.items():
        for code in (RUN, f"a={RUN}"):

            def change(it: Any, number: int = number, code: str = code) -> None:
                list(places(it))[number][1](code)

            place = forged(tmp_path / f"{len(accepted)}", change)
            try:
                loaded(place, monkeypatch)
            except ConfigError:
                pass
            else:
                accepted.append(key)
            assert not (place / "ran").exists(), key
    # What PyTorch only keeps. A constant of another type than its operator takes fails with the first request.
    assert set(accepted) <= {
        *("stack_trace", "torch_fn", "nn_module_stack", "torch_version", "name in metadata", "guards_code")
    }
    assert {"stack_trace", "torch_version"} <= set(accepted)


def test_guards_of_a_program_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = forged(tmp_path / "it", lambda it: it.update(guards_code=[RUN, f"L['x'].size()[0] == {RUN}"]))
    model = loaded(place, monkeypatch)
    assert len(model.predict({"x": [[1, 2, 3, 4]], "words": [1]})["kind"]) == 1
    assert not (place / "ran").exists()


def pickled(kind: str) -> bytes:
    if kind == "pickle":
        return pickle.dumps(Evil())
    buffer = io.BytesIO()
    torch.save(Evil(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_in_place_of_the_example_is_not_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = exported(tmp_path / "it")
    sample = "data/sample_inputs/model.pt"
    rewritten(place / "model.pt2", lambda name, content: pickled(kind) if name == sample else content)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ConfigError, match="cannot be loaded by PyTorch"):
        loaded(place, monkeypatch)
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("data/aotinductor/model/x.so", "compiled code of AOTInductor"),
        ("data/constants/opaque_obj_0", "which may be a pickle or code"),
        ("data/constants/custom_obj_0", "which may be a pickle or code"),
        ("data/weights/model.pt", "which may be a pickle or code"),
        ("models/other.json", "which may be a pickle or code"),
    ],
)
def test_a_file_that_may_be_code_is_refused(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = exported(tmp_path / "it")
    rewritten(place / "model.pt2", lambda _, content: content, **{name: pickled("pickle")})
    assert told in problems(place)[0]
    with pytest.raises(ConfigError, match=told):
        loaded(place, monkeypatch)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda it: entry(it).update(use_pickle=True), "is in a pickle"),
        (lambda it: entry(it).update(use_pickle=1), "is in a pickle"),
        (lambda it: entry(it).pop("use_pickle"), "is in a pickle"),
        (lambda it: entry(it).update(path_name="opaque_obj_0"), "is an object, not a tensor"),
        (lambda it: entry(it).update(path_name="../weights/weight_0"), "is an object, not a tensor"),
        (lambda it: it["config"].update({'a"); b': entry(it)}), "a tensor is called"),
        (lambda it: it.update(config=[]), "its list of weights is damaged"),
    ],
)
def test_weights_in_a_pickle_are_refused(change: Callable[[Any], Any], told: str, tmp_path: Path) -> None:
    place = forged(tmp_path / "it", change, "data/weights/model_weights_config.json")
    assert told in problems(place)[0]


def entry(found: Any) -> Any:
    return next(iter(found["config"].values()))


def test_the_worker_checks_what_pytorch_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readers of zip files may see different files in a forged one."""
    place = forged(tmp_path / "it", FORGED["a length"][0])
    whole = ZipArchive(exported(tmp_path / "good") / "model.pt2")
    monkeypatch.setattr("gateway_torch.loadable.ZipArchive", lambda _: whole)
    assert problems(place) == []
    with pytest.raises(ConfigError, match="an expression in it is"):
        loaded(place, monkeypatch)
    assert not (place / "ran").exists()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("models/model.json", cut, "cannot be served"),
        ("models/model.json", lambda _: b"[" * 100_000, "nested too deeply"),
        ("models/model.json", lambda _: b"{}", "its graph is not as PyTorch 2.13 writes it"),
        ("models/model.json", lambda _: None, "it has no models/model.json: save it with torch.export.save"),
        ("data/weights/model_weights_config.json", lambda _: None, "cannot be served"),
        ("data/weights/model_weights_config.json", lambda _: b"[]", "its list of weights is damaged"),
    ],
)
def test_a_damaged_program_is_told(name: str, change: Any, told: str, tmp_path: Path) -> None:
    place = exported(tmp_path)
    rewritten(place / "model.pt2", lambda each, content: change(content) if each == name else content)
    assert told in problems(place)[0]


def test_a_file_that_is_cut_or_no_program_is_told(tmp_path: Path) -> None:
    file = exported(tmp_path) / "model.pt2"
    file.write_bytes(cut(file.read_bytes()))
    assert "model.pt2 cannot be served" in problems(tmp_path)[0]
    file.write_bytes(b"nothing")
    assert "model.pt2 cannot be served" in problems(tmp_path)[0]


def test_a_weight_that_is_shorter_than_its_tensor_fails_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = exported(tmp_path / "it")
    rewritten(place / "model.pt2", lambda name, content: content[:8] if name.endswith("weight_0") else content)
    with pytest.raises(ConfigError, match="cannot be loaded by PyTorch"):
        loaded(place, monkeypatch)


def test_an_older_format_says_what_to_do(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as old:
        old.writestr("it/version", "8.1")
        old.writestr("it/serialized_exported_program.json", "{}")
    assert "PyTorch older than 2.8 saved it: save it with torch.export.save of PyTorch 2.13" in problems(tmp_path)[0]


class Whole(nn.Module):
    """Operators with lengths that are computed, branches, and constants of each type."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.arange(4))
        self.shift = torch.ones(2)

    def forward(self, x: Tensor, y: Tensor, flag: Tensor, mode: str = "mean", scale: float = 2.0) -> Any:
        rows = torch.nn.functional.interpolate(x[None, None], scale_factor=2.0, mode="bilinear")[0, 0]
        with torch.no_grad():
            rows = rows * scale
        pairs = torch.einsum("ij,kj->ik", x, y).pad((1, 1)) if hasattr(x, "pad") else torch.einsum("ij,kj->ik", x, y)
        chosen = torch.cond(flag.sum() > 0, lambda each: each + 1, lambda each: each - 1, (x,))
        return rows, (pairs, [chosen, x.reshape(-1)]), x.shape[0] * y.shape[0] // 2, (self.counts + 1).float().mean()


def test_what_exports_have_is_accepted_and_computed_as_by_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = ({0: Dim("n")}, {0: Dim("m", min=2, max=9)}, None, None, None)
    args = torch.rand(3, 2), torch.rand(4, 2), torch.tensor([1]), "sum", 3.0
    place = exported(tmp_path / "it", Whole(), *args, dynamic_shapes=shapes)
    assert problems(place) == []
    model = loaded(place, monkeypatch)
    module = torch.export.load(place / "model.pt2").module()
    for rows in (2, 3, 5):
        x, y, flag = torch.rand(rows, 2), torch.rand(rows + 1, 2), torch.tensor([rows - 3])
        found = model.predict({"x": x.tolist(), "y": y.tolist(), "flag": flag.tolist()})
        assert plain(found) == {f"output_{n}": each for n, each in enumerate(plain(module(x, y, flag, "sum", 3.0)))}
    program = read_program(ZipArchive(place / "model.pt2"))
    assert [(each.name, str(each.type)) for each in program.values] == [
        ("x", "float32 [s77, 2]"), ("y", "float32 [s17, 2]"), ("flag", "int64 [1]")
    ]  # fmt: skip
    assert [str(each.type) for each in program.outputs] == [
        "float32 [?, 4]", "values", "int64 []", "float32 []"
    ]  # fmt: skip
    assert copy.deepcopy(program) == program
