"""A program of TorchScript may only compute: operators that open files, and those of libraries, are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from programs import loaded, problems, rewritten, scripted
from torch import Tensor, nn

from gateway import ConfigError

CODE = "code/__torch__/programs.py"


def with_code(place: Path, line: str) -> Path:
    """A program whose forward begins with another line."""
    first = re.compile(rb"\n( +)(layers = )")
    rewritten(
        scripted(place) / "model.pt",
        lambda name, content: first.sub(rb"\n\1" + line.encode() + rb"\n\1\2", content) if name == CODE else content,
    )
    return place


def test_a_program_with_another_line_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests below change what they mean to."""
    place = with_code(tmp_path, "_0 = torch.add(x, x)")
    assert problems(place) == []
    assert len(loaded(place, monkeypatch).predict({"x": [[1, 2, 3, 4]], "words": [0]})["kind"]) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('torch.save(x, "ran")', "has the word save, the name of an operator that opens files"),
        ('_0 = torch.from_file("ran", True, 4)', "has the word from_file"),
        ('_0 = ops.aten.from_file("ran", True, 4)', "has the word from_file"),
        ('_0 = ops . aten . save(x, "ran")', "has the word save"),
        ("_0 = ops.mine.op(x)", "uses mine::op, an operator of a library, and that is code"),
        ("_0 = ops . mine . op(x)", "uses mine::op, an operator of a library, and that is code"),
        ("_0 = __torch__.torch.classes.mine.Thing()", "objects of mine, a class of a library"),
        ('getattr(torch, "sa\\\\166e")(x, "ran")', "uses torch otherwise than to call one of PyTorch's operators"),
        ('_0 = getattr(ops.aten, "from\\\\137file")("ran", True, 4)', "uses ops otherwise than to call"),
        ("_0 = ops", "uses ops otherwise than to call"),
        ("_0 = (ops).aten.add(x, x)", "uses ops otherwise than to call"),
        ("_0 = (ops # it\n.mine.op)(x)", "has comments, or lines that go on"),
        ("_0 = ops.\\\\\nmine.op(x)", "has comments, or lines that go on"),
    ],
)
def test_what_is_more_than_a_computation_is_refused_by_check_and_load(
    line: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = with_code(tmp_path, line)
    (what,) = problems(place)
    assert told in what
    with pytest.raises(ConfigError, match=re.escape(told)):
        loaded(place, monkeypatch)
    assert not (place / "ran").exists()


def test_operators_with_a_text_were_looked_at_for_what_they_open() -> None:
    """A newer PyTorch with another operator that takes the name of a file shows here."""
    schemas = torch._C._jit_get_all_schemas()
    taking = {each.name for each in schemas for it in each.arguments if "file" in it.name or "path" in it.name}
    ours = {name for name in taking if name.startswith(("aten::", "prim::", "prims::", "quantized::", "sparse::"))}
    assert ours == {"aten::save", "aten::from_file", "aten::einsum"}  # the last has a path of its own kind


def test_an_object_of_a_library_is_refused(tmp_path: Path) -> None:
    place = scripted(tmp_path)
    rewritten(
        place / "model.pt",
        lambda name, content: content + b"c__torch__.torch.classes.mine\nThing\n" if name == "data.pkl" else content,
    )
    assert "data.pkl in it has objects of mine, a class of a library" in problems(place)[0]


@pytest.mark.parametrize("file", ["data.pkl", "constants.pkl"])
def test_an_object_of_a_library_is_refused_however_its_name_is_divided(file: str, tmp_path: Path) -> None:
    place = scripted(tmp_path)
    rewritten(
        place / "model.pt",
        lambda name, content: content + b"c__torch__.torch\nclasses.mine.Thing\n" if name == file else content,
    )
    assert f"{file} in it has objects of mine, a class of a library" in problems(place)[0]


class Words(nn.Module):
    """Names and texts that PyTorch writes into its code, though they are those of what has its operators."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = nn.ModuleList([nn.Linear(2, 2)])

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 3:
            raise ValueError("torch 'and' # ops \\ \"others\" are 'right")
        ops = x.to(torch.device("cpu"), dtype=torch.float32)
        for each in self.ops:
            ops = each(ops)
        return ops


def test_words_in_texts_and_names_are_no_code(tmp_path: Path) -> None:
    torch.jit.script(Words()).save(tmp_path / "model.pt")
    assert problems(tmp_path) == []


def test_an_old_format_names_its_code_elsewhere_and_is_refused(tmp_path: Path) -> None:
    place = scripted(tmp_path)
    rewritten(place / "model.pt", lambda _, content: content, **{"model.json": b"{}"})
    assert "the format of PyTorch before 1.4" in problems(place)[0]


def test_a_damaged_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = scripted(tmp_path / "a")
    rewritten(place / "model.pt", lambda name, content: None if name == "data.pkl" else content)
    assert "it has no data.pkl, or no code" in problems(place)[0]
    place = scripted(tmp_path / "b")
    rewritten(place / "model.pt", lambda name, content: content[:99] if name == CODE else content)
    with pytest.raises(ConfigError, match="cannot be loaded by PyTorch"):
        loaded(place, monkeypatch)


class Divides(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.div(a, b, rounding_mode="trunc")


def test_a_division_that_would_end_the_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from programs import exported, refusal

    places = [scripted(tmp_path / "a", Divides(), options='options: {inputs: {a: "int64", b: "int64"}}\n')]
    places.append(exported(tmp_path / "b", Divides(), torch.tensor([1, 2]), torch.tensor([1, 2])))
    for place in places:
        model = loaded(place, monkeypatch)
        assert "int64 is from -9223372036854775807" in refusal(model, {"a": [-(2**63), 1], "b": [1, 1]})
        assert "ZeroDivisionError" in refusal(model, {"a": [1, 1], "b": [0, 1]})
        assert model.predict({"a": [-7, 7], "b": [2, 2]})["output"].tolist() == [-3, 3]


class Arguments(nn.Module):
    def forward(
        self, x: Tensor, scale: float, times: int = 2, flag: bool = True, mode: str = "a", y: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        found = x * scale * times
        if y is not None and flag:
            found = found + y
        return found, [found, found.sum()] if mode == "a" else [found]


class Lists(nn.Module):
    def forward(self, rows: list[Tensor], counts: list[int]) -> Tensor:
        return torch.cat(rows) + sum(counts)


def test_arguments_have_their_types_and_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from programs import plain, refusal

    place = scripted(tmp_path / "a", Arguments(), options="options: {outputs: [scaled, parts]}\n")
    model = loaded(place, monkeypatch)
    assert plain(model.predict({"x": [1, 2], "scale": 0.5})) == {"scaled": [1, 2], "parts": [[1, 2], 3]}
    body = {"x": [1], "scale": 1, "times": 3, "mode": "b", "y": [5]}
    assert plain(model.predict(body)) == {"scaled": [8], "parts": [[8]]}
    assert plain(model.predict({**body, "flag": False, "y": None})) == {"scaled": [3], "parts": [[3]]}
    assert model.input_schema["required"] == ["x", "scale"]
    assert "times has to be a whole number" in refusal(model, {"x": [1], "scale": 1, "times": 1.5})
    assert "scale has the shape [1], but the model takes []" in refusal(model, {"x": [1], "scale": [1]})
    model = loaded(scripted(tmp_path / "b", Lists(), options='options: {inputs: {rows: "int64 [n]"}}\n'), monkeypatch)
    assert plain(model.predict({"rows": [[1], [2, 3]], "counts": [1, 1]})) == {"output": [3, 4, 5]}


class Odd(nn.Module):
    def forward(self, table: dict[str, Tensor]) -> Tensor:
        return table["x"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("{inputs: {z: float32}}", r"inputs: the program has no 'z' \(have: \['x', 'words'\]\)"),
        ("{inputs: {x: text}}", "inputs: x is 'text'; write a type and a shape"),
        ("{inputs: {x: [1, 2]}}", r"inputs: x is \[1, 2\]; write a type and a shape"),
        ("{inputs: [x]}", "inputs has to map names to types"),
        ("{outputs: [a, a]}", "outputs has to be a list of different names"),
        ("{outputs: a}", "outputs has to be a list of different names"),
    ],
)
def test_wrong_options_are_told(options: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=told):
        loaded(scripted(tmp_path, options=f"options: {options}\n"), monkeypatch)


def test_an_argument_that_json_cannot_have_fails_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"its argument table is a Dict\[str, Tensor\], which JSON cannot have"):
        loaded(scripted(tmp_path, Odd()), monkeypatch)
