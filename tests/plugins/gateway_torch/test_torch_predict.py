"""Predict of programs, with answers compared with those of PyTorch, called directly; also over HTTP."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch
from fakes import PATIENT
from gateway_torch import detection
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import Network, exported, inputs, loaded, plain, refusal, scripted
from tensor_cases import ANYTHING, NAMES, answers_or_refuses, nested
from torch import Tensor, nn

from gateway import InvalidOutput
from gateway.examples.values import example
from gateway.testing import Gateway


def body_of(x: Tensor, words: Tensor) -> dict[str, Any]:
    return {"x": x.tolist(), "words": words.tolist()}


@pytest.mark.parametrize("make", [exported, scripted])
def test_answers_are_those_of_the_library_for_random_inputs(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make(tmp_path / "it")
    model = loaded(place, monkeypatch)
    library = torch.export.load("model.pt2").module() if make is exported else torch.jit.load("model.pt").eval()
    with torch.no_grad():
        for seed in range(200):
            rows = inputs(seed % 5 + 1, seed)
            assert plain(model.predict(body_of(*rows))) == plain(library(*rows))
        for count in (0, 1, 10_000):
            rows = inputs(count)
            assert plain(model.predict(body_of(*rows))) == plain(library(*rows))
    missing = torch.tensor([[1.0, float("nan"), 2.0, float("inf")]])
    found = model.predict({"x": [[1, None, 2, float("inf")]], "words": [1]})
    assert plain(found)["kind"] == plain(library(missing, torch.tensor([1])))["kind"]


WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([1], "send an object with the inputs of the model: x: float32"),
    "nothing": ({}, "the input x is missing: it is a float32"),
    "another input": ({"x": [[1, 2, 3, 4]], "words": [1], "z": 1}, "the model has no input 'z'"),
    "another length": ({"x": [[1, 2, 3]], "words": [1]}, "x has the shape [1, 3], but the model takes"),
    "unequal lengths": ({"x": [[1, 2, 3, 4]], "words": [1, 2]}, "words has the shape [2], but the model takes"),
    "a text": ({"x": [[1, 2, 3, "4"]], "words": [1]}, "x[0][3] has to be a number; it is '4'"),
    "a fraction": ({"x": [[1, 2, 3, 4]], "words": [1.5]}, "words[0] has to be a whole number; it is 1.5"),
    "too large": ({"x": [[1, 2, 3, 1e39]], "words": [1]}, "x has a number that is too large for float32"),
    "no such word": ({"x": [[1, 2, 3, 4]], "words": [8]}, "the model refused these inputs: index out of range"),
}


@pytest.mark.parametrize("make", [exported, scripted])
def test_a_wrong_input_is_named_with_what_is_expected(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(make(tmp_path), monkeypatch)
    for body, told in WRONG.values():
        assert told in refusal(model, body)


class Vast(nn.Module):
    def forward(self, n: Tensor) -> Tensor:
        return torch.zeros(int(n), dtype=torch.float64)


def test_memory_that_is_missing_is_no_fault_of_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(scripted(tmp_path, Vast(), options='options: {inputs: {n: "int64 []"}}\n'), monkeypatch)
    with pytest.raises(MemoryError):
        model.predict({"n": 1 << 50})


def test_the_schema_has_a_request_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (exported, scripted):
        model = loaded(make(tmp_path / make.__name__), monkeypatch)
        assert set(model.predict(example(model.input_schema))) == {"kind", "probabilities"}
        assert list(model.input_schema["properties"]) == ["x", "words"]
    model = loaded(tmp_path / "exported", monkeypatch)
    kind, probabilities = model.output_schema["properties"].values()
    assert (kind["items"], probabilities["items"]["minItems"]) == ({"type": "integer"}, 3)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.to(torch.bfloat16), x > 0


def test_results_have_names_and_types_that_json_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = exported(tmp_path / "it", Pair(), torch.zeros(2, dtype=torch.bfloat16))
    assert plain(loaded(place, monkeypatch).predict({"x": [1, -1]})) == {"output_0": [1, -1], "output_1": [True, False]}
    named = loaded(place, monkeypatch, options={"outputs": ["copy", "positive"]})
    assert plain(named.predict({"x": [0.5, None]}))["positive"] == [True, False]
    assert list(named.output_schema["properties"]) == ["copy", "positive"]
    with pytest.raises(Exception, match="outputs has to have 2 names"):
        loaded(place, monkeypatch, options={"outputs": ["copy"]})
    place = scripted(tmp_path / "script", Pair(), options="options: {outputs: [copy]}\n")
    with pytest.raises(InvalidOutput, match="outputs has 1 names"):
        loaded(place, monkeypatch).predict({"x": [1]})


def test_the_library_counts_lengths_as_it_was_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Linear(2, 1)
    rows = torch.export.Dim("rows", min=2, max=3)
    place = exported(tmp_path, network, torch.zeros(2, 2), dynamic_shapes=[{0: rows}])
    model = loaded(place, monkeypatch)
    assert "to be <= 3, but got 4" in refusal(model, {"input": [[1, 2]] * 4})
    assert "examples" in model.input_schema


# ── discovery ──


def test_nothing_of_the_library_is_imported_to_find_and_check(tmp_path: Path) -> None:
    exported(tmp_path / "exported")
    scripted(tmp_path / "scripted")
    program = (
        "import sys; from pathlib import Path; import gateway_torch\n"
        "from gateway.directories.discovery import discover\n"
        "from gateway.plugins import Plugins\n"
        "for spec in discover([Path(sys.argv[1])], Plugins.load()).specs:\n"
        "    print(spec.name, spec.format, spec.served_by, [str(it) for it in gateway_torch.check_model(spec)])\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=100)
    assert done.stdout.split("\n")[:2] == ["exported torch torch []", "scripted torch torch []"], done.stderr


def test_weights_alone_are_no_program(tmp_path: Path) -> None:
    import gateway_torch

    torch.save({"w": torch.zeros(2)}, tmp_path / "model.pt")
    assert gateway_torch.find_model(tmp_path, {}) is None
    (tmp_path / "config.yaml").write_text("framework: torch\n")
    with pytest.raises(Exception, match=r"model\.pt"):
        gateway_torch.find_model(tmp_path, {})


def test_tables_of_contents_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["it/version", "it/data.pkl", "it/code/a.py", *(f"it/data/{number}" for number in range(300))]
    for each in ("a.pt", "b.pt", "c.pt"):
        with zipfile.ZipFile(tmp_path / each, "w") as file:
            for name in names:
                file.writestr(name, "3")
    files = sorted(tmp_path.glob("*.pt"))
    assert list(detection._kinds(files)) == files
    table = sum(46 + len(name) for name in names)
    for count in (1, 2):
        monkeypatch.setattr(detection, "MOST_LISTED", count * table + 100)
        assert list(detection._kinds(files)) == files[:count]


def test_the_file_is_the_only_one_or_called_model_or_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from programs import problems

    exported(tmp_path, name="a.pt2")
    assert problems(tmp_path) == []
    exported(tmp_path, nn.ReLU(), torch.zeros(1), name="b.pt2")
    assert "several models (a.pt2, b.pt2)" in problems(tmp_path)[0]
    model = loaded(tmp_path, monkeypatch, options={"file": "b.pt2"})
    assert plain(model.predict({"input": [-1]})) == {"output": [0]}
    assert "is no program of PyTorch here (have: a.pt2, b.pt2)" in problems(tmp_path, options={"file": "../a.pt2"})[0]
    exported(tmp_path)
    assert problems(tmp_path) == []


@pytest.mark.parametrize("beside", ["m.skops", "m.safetensors", "m.onnx", "config.json", "MLmodel", "model.py"])
def test_a_copy_beside_a_model_of_another_kind_is_left_to_it(beside: str, tmp_path: Path) -> None:
    import gateway_torch

    (exported(tmp_path) / beside).write_text("class Model: ...\n" if beside == "model.py" else "{}")
    assert gateway_torch.find_model(tmp_path, {}) is None
    (tmp_path / "config.yaml").write_text("framework: torch\n")
    assert gateway_torch.find_model(tmp_path, {}) is not None


def test_a_pipe_is_no_program_that_is_waited_for(tmp_path: Path) -> None:
    from programs import problems

    os.mkfifo(tmp_path / "model.pt2")
    assert "is not a regular file" in problems(tmp_path)[0]


# ── served ──


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("models")
    exported(root / "exported")
    scripted(root / "scripted")
    with Gateway(root, timeout=200) as gateway:
        yield gateway


def post(gateway: Gateway, path: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(f"{gateway.url}{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("name", ["exported", "scripted"])
def test_both_routes_answer(name: str, served: Gateway) -> None:
    rows = inputs(3)
    with torch.no_grad():
        wanted = Network().eval()(*rows)
    status, answer = post(served, f"/v1/models/{name}:predict", body_of(*rows))
    assert (status, answer["kind"]) == (200, wanted["kind"].tolist())
    tensors = [
        {"name": "x", "datatype": "FP32", "shape": [3, 4], "data": rows[0].ravel().tolist()},
        {"name": "words", "datatype": "INT64", "shape": [3], "data": rows[1].tolist()},
    ]
    status, answer = post(served, f"/v2/models/{name}/infer", {"inputs": tensors})
    assert (status, answer["outputs"][0]["data"]) == (200, wanted["kind"].tolist())
    status, answer = post(served, f"/v1/models/{name}:predict", {"x": [[1]], "words": [1]})
    assert status == 400 and "x has the shape [1, 1]" in answer["error"]


# ── any body ──


class Wide(nn.Module):
    """Inputs of all kinds, and what may fail for some of their values."""

    def forward(self, f: Tensor, i: Tensor, u: Tensor, h: Tensor, b: Tensor, l: Tensor) -> Any:  # noqa: E741
        chosen = torch.index_select(f.reshape(-1), 0, i)
        return f.softmax(1), i // i, torch.div(i, i, rounding_mode="trunc"), chosen, u + 1, h * 2, ~b, l.sum()


RIGHT = {
    "f": st.lists(st.lists(st.floats(width=32) | st.none() | st.integers(-9, 9), min_size=2, max_size=2), max_size=3),
    "i": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    "u": st.integers(0, 255),
    "h": st.lists(st.floats(width=16), max_size=3),
    "b": st.lists(st.booleans(), max_size=3),
    "l": st.lists(st.integers(0, 9), min_size=1, max_size=3),
}
BODIES = st.one_of(
    st.fixed_dictionaries(RIGHT),
    *(
        st.fixed_dictionaries({**RIGHT, name: nested(st.none() | st.integers() | st.floats()) | ANYTHING})
        for name in RIGHT
    ),
    st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=9),
    ANYTHING,
)
KINDS = 'f: "float32 [n, 2]", i: "int64 [m]", u: "uint8 []", h: "float16", b: "bool [k]", l: "int64"'


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("wide")
    example = torch.zeros(2, 2), torch.ones(3, dtype=torch.int64), torch.tensor(1, dtype=torch.uint8)
    more = torch.zeros(2, dtype=torch.float16), torch.ones(2, dtype=torch.bool), torch.ones(3, dtype=torch.int64)
    lengths = [{0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC}, None, *[{0: torch.export.Dim.DYNAMIC}] * 3]
    exported(place / "exported", Wide(), *example, *more, dynamic_shapes=lengths)
    (place / "scripted").mkdir()
    torch.jit.trace(Wide(), (*example, *more), check_trace=False).save(place / "scripted" / "model.pt")
    (place / "scripted" / "config.yaml").write_text(f"options: {{inputs: {{{KINDS}}}}}\n")
    with pytest.MonkeyPatch.context() as patch:
        return [loaded(place / name, patch) for name in ("exported", "scripted")]


@settings(PATIENT, max_examples=200)
@given(body=BODIES)
def test_a_body_is_answered_or_refused(wide: Any, body: Any) -> None:
    for model in wide:
        answers_or_refuses(model, body)


@pytest.mark.slow
@settings(PATIENT, max_examples=2000)
@given(body=BODIES)
def test_two_thousand_bodies_are_answered_or_refused(wide: Any, body: Any) -> None:
    for model in wide:
        answers_or_refuses(model, body)


def test_the_extra_has_what_the_plugin_needs() -> None:
    from gateway_torch import FORMAT

    assert FORMAT.install == "pip install 'model-gateway[torch]'"
    assert all(importlib.util.find_spec(name) for name in FORMAT.needs)
