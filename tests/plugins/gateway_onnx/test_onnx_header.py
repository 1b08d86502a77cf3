"""What is read of an ONNX file before the runtime gets it, and what keeps it from being loaded."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gateway_onnx import faults
from gateway_onnx.faults import check_file, installed
from gateway_onnx.header import ELEMENTS, read_header
from graphs import FLOAT, INT64, ML, OPSET, doubled, external, model_of, node, problems, same, save, value
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from gateway import ConfigError

HERE = Path(__file__).parents[3]
WEIGHTS = np.array([2, 2], np.float32).tobytes()


def fault(place: Path, name: str = "model.onnx") -> str:
    with pytest.raises(ConfigError) as raised:
        check_file(place / name)
    return str(raised.value)


def test_a_header_says_what_the_library_says(tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    for file in (HERE / "models/digits-cnn/model.onnx", save(doubled(), tmp_path) / "model.onnx"):
        header, session = read_header(file), InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for ours, theirs in ((header.inputs, session.get_inputs()), (header.outputs, session.get_outputs())):
            assert [each.name for each in ours] == [each.name for each in theirs]
            assert [list(each.type.dims or ()) for each in ours] == [each.shape for each in theirs]
    assert header.opsets == {"": 17} and header.ir == 8 and header.operators == {("", "Mul")}


def test_the_numbers_of_types_are_those_of_the_format() -> None:
    known = {each.number: each.name.lower() for each in TensorProto.DataType.DESCRIPTOR.values}
    names = {"float32": "float", "float64": "double"}
    for number, (name, _) in ELEMENTS.items():
        assert known[number] == names.get(name, name)


def test_shapes_are_known_unknown_or_named(tmp_path: Path) -> None:
    inputs = [value("a", FLOAT, ["n", 2, None]), value("b", FLOAT, None), value("c", FLOAT, [])]
    model = model_of([node("Identity", [x.name], [f"{x.name}_"]) for x in inputs], inputs, [value("a_", FLOAT, None)])
    header = read_header(save(model, tmp_path) / "model.onnx")
    assert [each.type.dims for each in header.inputs] == [("n", 2, None), None, ()]
    assert [str(each.type) for each in header.inputs] == ["float32 [n, 2, ?]", "float32", "float32 []"]


@pytest.mark.parametrize(("ir", "names"), [(3, ["x"]), (4, ["x", "w"]), (8, ["x", "w"])])
def test_weights_among_the_inputs_are_constants_in_old_files_and_defaults_in_others(
    ir: int, names: list[str], tmp_path: Path
) -> None:
    model = doubled(ir=ir, opsets=[helper.make_opsetid("", 9)])
    model.graph.input.append(value("w", FLOAT, [2]))
    header = read_header(save(model, tmp_path) / "model.onnx")
    assert [each.name for each in header.inputs] == names
    assert [each.has_default for each in header.inputs] == [False, True][: len(names)]


def test_large_weights_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = doubled()
    model.graph.initializer.append(helper.make_tensor("big", FLOAT, [10, 10], [0.0] * 100))
    model.graph.input.append(value("big", FLOAT, [10, 10]))
    assert [each.name for each in read_header(save(model, tmp_path) / "model.onnx").inputs] == ["x"]


def test_types_that_json_cannot_have_are_told(tmp_path: Path) -> None:
    assert "its input x is a bfloat16 [n], which JSON cannot have" in fault(save(same(TensorProto.BFLOAT16), tmp_path))
    kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(FLOAT, []))
    vectorizer = node("DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a"])
    model = model_of([vectorizer], [helper.make_value_info("x", kind)], [value("y", FLOAT, None)], opsets=[OPSET, ML])
    assert "its input x is a map" in fault(save(model, tmp_path))


# ── damaged files ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("content", [b"", b"\x08", b"hello", b"\x08\x08", b"\x08\x08:\x00", b"\xff" * 40, b"PK\3\4"])
def test_what_is_no_model_is_told(content: bytes, tmp_path: Path) -> None:
    (told,) = problems(save(content, tmp_path))
    assert "model.onnx" in told and len(told) < 500


def test_every_cut_of_a_file_is_told(tmp_path: Path) -> None:
    whole = doubled().SerializeToString()
    for end in range(len(whole)):
        told = fault(save(whole[:end], tmp_path))
        assert "not an ONNX model, or damaged" in told or not end


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_change_of_a_file_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    whole = bytearray(external(offset=0, length=8).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    place = save(bytes(whole), tmp_path_factory.mktemp("changed"))
    (place / "weights.bin").write_bytes(WEIGHTS)
    try:
        check_file(place / "model.onnx")
    except ConfigError as error:
        assert len(str(error)) < 1000


def test_lengths_and_depths_in_a_file_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "longer than what it is part of" in fault(save(b"\x08\x08\x3a\xff\xff\xff\xff\x07", tmp_path))
    inner = b""
    for _ in range(100):  # a graph in an attribute of a node of a graph, and so on
        for number in (b"\x32", b"\x2a", b"\x0a"):
            inner = number + _length(len(inner)) + inner
    assert "nested too deeply" in fault(save(b"\x08\x08\x3a" + _length(len(inner)) + inner, tmp_path))
    monkeypatch.setattr("gateway_onnx.protobuf.MOST_FIELDS", 5)
    assert "more than 5 fields" in fault(save(doubled(), tmp_path))


def _length(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def test_names_are_no_longer_than_any_name(tmp_path: Path) -> None:
    model = doubled()
    model.graph.input[0].name = "x" * 100_000
    assert "a text of it is missing, or too long" in fault(save(model, tmp_path))


def test_a_pipe_is_told_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    (told,) = problems(tmp_path)
    assert "not a regular file" in told


def test_a_pointer_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in problems(tmp_path)[0]


# ── versions and operators ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("domain", ["", "ai.onnx.ml"])
def test_operators_newer_than_the_runtime_are_told_as_the_runtime_would(domain: str, tmp_path: Path) -> None:
    import onnxruntime

    def model(version: int) -> Any:
        sets = {"": 17, domain: version}
        return doubled(opsets=[helper.make_opsetid(*each) for each in sets.items()])

    newest = faults.SUPPORTED[".".join((installed() or "").split(".")[:2])][1][domain]
    session = onnxruntime.InferenceSession
    place = save(model(newest), tmp_path)
    assert problems(place) == []
    session(str(place / "model.onnx"), providers=["CPUExecutionProvider"])
    (told,) = problems(save(model(newest + 1), tmp_path))
    assert f"operator set {newest + 1}" in told and f"(up to {newest})" in told and "install a newer runtime" in told
    if domain == "":  # it accepts the next one of others without a word
        with pytest.raises(Exception, match=f"till opset {newest}"):
            session(str(place / "model.onnx"), providers=["CPUExecutionProvider"])


def test_a_newer_version_of_the_format_is_told_as_the_runtime_would(tmp_path: Path) -> None:
    import onnxruntime

    newest = faults.SUPPORTED[".".join((installed() or "").split(".")[:2])][0]
    assert problems(save(doubled(ir=newest), tmp_path)) == []
    (told,) = problems(save(doubled(ir=newest + 1), tmp_path))
    assert f"version {newest + 1} of the format" in told
    with pytest.raises(Exception, match=f"max supported IR version: {newest}"):
        onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])


def test_another_version_of_the_runtime_is_asked_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "installed", lambda: "1.99.0")
    assert problems(save(doubled(opsets=[helper.make_opsetid("", 99)]), tmp_path)) == []


STRANGE = node("Foo", ["x"], ["y"], domain="my.ops")
SETS = [OPSET, helper.make_opsetid("my.ops", 1)]
ROWS = [value("x", FLOAT, ["n"])], [value("y", FLOAT, ["n"])]


def test_operators_of_others_are_code_which_the_operator_allows(tmp_path: Path) -> None:
    place = save(model_of([STRANGE], *ROWS, opsets=SETS), tmp_path)
    (told,) = problems(place)
    assert "(my.ops.Foo), which come as a library, and that is code" in told and "[models.NAME.options]" in told
    assert problems(place, options={"custom_ops": ["/lib.so"]}) == []
    (place / "config.yaml").write_text("options:\n  custom_ops: [/lib.so]\n")  # not in the hands of the directory
    assert len(problems(place)) == 1


def test_operators_in_a_branch_or_a_function_are_found(tmp_path: Path) -> None:
    branch = helper.make_graph([node("Foo", ["x"], ["z"], domain="my.ops")], "b", [], [value("z", FLOAT, ["n"])])
    chosen = node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    inputs = [value("c", TensorProto.BOOL, []), ROWS[0][0]]
    assert "my.ops.Foo" in problems(save(model_of([chosen], inputs, ROWS[1], opsets=SETS), tmp_path))[0]
    function = helper.make_function("its.own", "Bar", ["x"], ["y"], [STRANGE], SETS)
    own = [*SETS, helper.make_opsetid("its.own", 1)]
    model = model_of([node("Bar", ["x"], ["y"], domain="its.own")], *ROWS, opsets=own, functions=[function])
    (told,) = problems(save(model, tmp_path))
    assert "(my.ops.Foo)" in told  # and not what the file defines itself


# ── weights in other files ───────────────────────────────────────────────────────────────────────────────────────────


def test_weights_beside_a_model_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphs import loaded

    place = save(external(offset=4, length=8), tmp_path)
    (place / "weights.bin").write_bytes(bytes(4) + WEIGHTS)
    assert loaded(place, monkeypatch).predict({"x": [[1, 2]]})["y"].tolist() == [[2, 4]]


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin", "a/../../secret.bin", "C:\\x.bin"])
def test_weights_are_in_the_directory(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHTS)
    place = save(external(location), tmp_path / "it")
    (place / "link.bin").symlink_to("../secret.bin")
    from gateway.files import ordinary

    with ordinary.within(place, allow_links=False):
        assert "leads out of the directory" in fault(place)


@pytest.mark.parametrize(
    ("entries", "size", "told"),
    [
        ({}, None, "its weights are in 'weights.bin', which is missing: get that file too"),
        ({}, 7, "weights.bin has 7 bytes, but the tensor w ends at 8: get that file again"),
        ({"offset": 4}, 8, "weights.bin has 8 bytes, but the tensor w ends at 12"),
        ({"length": 4}, 8, "has 4 bytes in 'weights.bin', but needs 8"),
        ({"length": 80}, 80, "has 80 bytes in 'weights.bin', but needs 8"),
        ({"offset": -4}, 8, "has no place in 'weights.bin'"),
        ({"offset": "4x"}, 8, "has no place in 'weights.bin'"),
        ({"offset": 1 << 70}, 8, "has no place in 'weights.bin'"),
        ({"location": ""}, 8, "is in a file without a name"),
        ({"location": "*/_ORT_MEM_ADDR_/*", "offset": 4096}, 8, "is missing: get that file too"),
    ],
)
def test_weights_that_are_missing_or_of_another_size_are_told(
    entries: dict[str, Any], size: int | None, told: str, tmp_path: Path
) -> None:
    place = save(external(**entries), tmp_path)
    if size is not None:
        (place / "weights.bin").write_bytes(bytes(size))
    assert told in fault(place)


def test_a_tensor_in_an_attribute_is_looked_for_as_well(tmp_path: Path) -> None:
    inner = external("elsewhere.bin").graph.initializer[0]
    model = model_of([node("Constant", [], ["y"], value=inner)], [], [value("y", FLOAT, [2])])
    assert "'elsewhere.bin', which is missing" in fault(save(model, tmp_path))


def test_a_tensor_of_any_size_is_only_counted(tmp_path: Path) -> None:
    model = external()
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]
    (tmp_path / "weights.bin").write_bytes(WEIGHTS)
    assert f"ends at {4 << 80}" in fault(save(model, tmp_path))


def test_a_large_file_is_read_without_its_weights(tmp_path: Path) -> None:
    size = 1 << 30
    graph = model_of([node("Identity", ["w"], ["y"])], [], [value("y", INT64, None)]).graph.SerializeToString()
    weight = TensorProto(name="w", data_type=INT64, dims=[size // 8])
    raw = weight.SerializeToString() + b"\x4a" + _length(size)
    tensor = b"\x2a" + _length(len(raw) + size) + raw
    with (tmp_path / "model.onnx").open("wb") as file:  # with a hole of a gigabyte
        file.write(b"\x08\x08\x42\x04\x0a\x00\x10\x11\x3a" + _length(len(graph) + len(tensor) + size) + graph + tensor)
        file.truncate(file.tell() + size)
    header = check_file(tmp_path / "model.onnx")
    assert header.constants == {"w": size // 8} and header.nodes == 1


def test_random_bytes_are_told(tmp_path: Path) -> None:
    dice = random.Random(3)
    for _ in range(200):
        assert "model.onnx" in fault(save(b"\x08\x08:" + dice.randbytes(60), tmp_path))


@pytest.mark.parametrize("where", [".hidden/w", "../w"])
def test_the_weights_of_an_attribute_that_a_function_defines_are_in_the_folder_too(where: str, tmp_path: Path) -> None:
    """A node of the function refers to it where a call does not give it: the runtime reads its file then."""
    (tmp_path / "m" / ".hidden").mkdir(parents=True)
    for name in ("m/.hidden/w", "w"):
        (tmp_path / name).write_bytes(WEIGHTS)
    inputs, outputs = [value("x", FLOAT, [2])], [value("y", FLOAT, [2])]
    model = model_of([helper.make_node("Given", ["x"], ["y"], domain="own")], inputs, outputs)
    function = model.functions.add(name="Given", domain="own", input=["x"], output=["y"])
    function.node.append(node("Identity", ["x"], ["y"]))
    weights = external(where, length=len(WEIGHTS)).graph.initializer[0]
    function.attribute_proto.append(helper.make_attribute("v", weights))
    told = fault(save(model, tmp_path / "m"))
    assert "names" in told and ("which is hidden" in told or "which leads out of the directory" in told)


def test_a_tensor_of_very_many_lengths_is_not_multiplied_out(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[1 << 62] * 5000)
    model = doubled()
    model.graph.initializer.append(tensor)
    assert read_header(save(model, tmp_path) / "model.onnx").constants["w"] == 1 << 128
