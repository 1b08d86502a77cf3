from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tokenizers")
gguf = pytest.importorskip("gguf")

from gateway_language.gguf import faults as it  # noqa: E402
from gateway_language.gguf.header import Header, TensorInfo  # noqa: E402
from gateway_language.gguf.kinds import ARCHITECTURES  # noqa: E402
from gateway_transformers.gguf import conversion  # noqa: E402

from gateway import ConfigError  # noqa: E402
from gateway.inspection.check import check  # noqa: E402
from gateway.inspection.inventory import Inventory, take_inventory  # noqa: E402
from gateway.settings.load import load_settings  # noqa: E402

TOKENS = ["a", "b", "ab", "<|im_start|>", "<|im_end|>"]
KINDS = [1, 1, 1, 3, 3]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"


def write(path: Path, architecture: str = "llama", said: Mapping[str, Any] | None = None, **options: Any) -> Path:
    """A small file with two tensors; `said` is added, or taken away where it is None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys: dict[str, Any] = {
        "model": "gpt2",
        "pre": "default",
        "tokens": TOKENS,
        "token_type": KINDS,
        "merges": ["a b"],
        "eos_token_id": 4,
        "chat_template": TEMPLATE,
    }
    out = gguf.GGUFWriter(path, architecture, **options)
    for name, value in (keys | dict(said or {})).items():
        if value is not None:
            add = {str: out.add_string, int: out.add_uint32, list: out.add_array}[type(value)]
            add(f"tokenizer.ggml.{name}" if name != "chat_template" else f"tokenizer.{name}", value)
    import numpy

    out.add_tensor("token_embd.weight", numpy.zeros((len(TOKENS), 32), "float32"))
    out.add_tensor("output.weight", numpy.zeros((len(TOKENS), 32), "float32"))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def findings(root: Path) -> list[tuple[str, str, str]]:
    return [(each.level, each.code, each.what) for each in check(inventory(root)) if "gguf" in each.code]


def inventory(root: Path) -> Inventory:
    return take_inventory(load_settings(environ={}), roots=[root], with_devices=False)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[16:24] = b"\xff" * 8  # how many keys there are
    path.write_bytes(data)


def turn(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack(">I", 3) + data[8:])


def patch(path: Path, at: int, value: int) -> None:
    """Write a number behind the second tensor's name, where its dimensions, their number, its kind and offset are."""
    data = bytearray(path.read_bytes())
    place = data.index(b"output.weight") + len(b"output.weight") + at
    struct.pack_into("<Q", data, place, value)
    path.write_bytes(data)


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: cut(path, 0), "is empty"),
    "cut in its head": (lambda path: cut(path, 100), "breaks off or is damaged"),
    "cut in its weights": (lambda path: cut(path, path.stat().st_size - 40), "breaks off: it has .* output"),
    "damaged": (damage, "breaks off or is damaged"),
    "two tensors in one place": (lambda path: patch(path, 24, 0), "output.weight and token_embd.weight share bytes"),
    "two tensors that overlap": (lambda path: patch(path, 24, 608), "token_embd.weight and output.weight share bytes"),
    "a tensor of nothing": (lambda path: patch(path, 12, 0), "output.weight has the shape 0 x 32"),
    "a tensor beyond all files": (lambda path: patch(path, 12, 2**40), "breaks off: it has .* output"),
    "no GGUF": (lambda path: path.write_bytes(b"PK\x03\x04" * 99), "not a GGUF file"),
    "big-endian": (turn, "big-endian"),
    "unknown architecture": (lambda path: write(path, "rwkv7"), "'rwkv7' is not supported"),
    "unknown vocabulary": (lambda path: write(path, said={"model": "rwkv"}), "'rwkv'"),
    "unknown cuts": (lambda path: write(path, said={"pre": "no-such"}), "'no-such'"),
    "no merges": (lambda path: write(path, said={"merges": None}), "no merges"),
}


UNREAD = {"torch": conversion.say_unread, "llamacpp": None}  # what an engine cannot read


@pytest.mark.parametrize("engine", UNREAD)
@pytest.mark.parametrize("name", FAULTS)
def test_check_says_what_the_load_of_a_gguf_would_say(name: str, engine: str, tmp_path: Path) -> None:
    change, why = FAULTS[name]
    if engine == "llamacpp" and name == "unknown architecture":
        change, why = FAULTS["damaged"]  # it is llama.cpp that knows which it reads
    path = write(tmp_path / "models" / "m" / "model.gguf")
    path.with_name("config.yaml").write_text(f"engine: {engine}\n")
    assert findings(tmp_path / "models") == []

    change(path)

    ((level, code, what),) = findings(tmp_path / "models")
    assert (level, code) == ("error", "invalid_gguf")
    with pytest.raises(ConfigError, match=why) as said:
        it.say_faults(path, UNREAD[engine])
    assert what == str(said.value)


SPANS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(1, 4)), max_size=8)


@given(SPANS)
def test_tensors_that_share_a_byte_are_refused_and_no_others(spans: list[tuple[int, int, int]]) -> None:
    """Each is (part, start, numbers) of 4 bytes; whoever asks byte by byte sees the same."""
    infos = [TensorInfo(f"t{i}", (size,), 0, 4 * start, part) for i, (part, start, size) in enumerate(spans)]
    taken = [(part, start + i) for part, start, size in spans for i in range(size)]
    sizes, names = [4 * 16, 4 * 16], ["a.gguf", "b.gguf"]
    if len(set(taken)) == len(taken):
        it.check_tensors(Header({}, tuple(infos)), sizes, names)
        return
    with pytest.raises(ConfigError, match=r"(a|b)\.gguf is damaged: t\d and t\d share bytes"):
        it.check_tensors(Header({}, tuple(infos)), sizes, names)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_gguf_that_holds_no_language_model_is_named(architecture: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", architecture, {"model": None})
    with pytest.raises(ConfigError, match=rf"it is {ARCHITECTURES[architecture].what}.*{architecture}"):
        it.say_faults(path, conversion.say_unread)


@pytest.mark.parametrize("name", ["qwen2moe", "qwen3moe", "minimax-m2", "gpt-oss", "gemma3", "phi3"])
def test_what_transformers_reads_by_another_name_is_no_fault(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    assert it.say_faults(write(tmp_path / "model.gguf", name), conversion.say_unread) == []


def test_a_damaged_byte_is_a_fault_that_is_told_or_none(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf")
    whole, source = path.read_bytes(), random.Random(9)
    told = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] = source.choice((0, 1, 9, 64, 255))
        path.write_bytes(data)
        try:
            it.say_faults(path, conversion.say_unread)
        except ConfigError:
            told += 1
    assert told


@pytest.mark.parametrize("kinds", [None, [1, 1, 1, 1, 3]], ids=["no kinds", "a wrong kind"])
def test_a_marker_that_is_cut_into_pieces_is_told(kinds: list[int] | None, tmp_path: Path) -> None:
    write(tmp_path / "models" / "m" / "model.gguf", said={"token_type": kinds})
    ((level, code, what),) = findings(tmp_path / "models")
    assert (level, code) == ("warning", "odd_gguf")
    assert "<|im_start|>" in what
    assert "<|im_end|>" not in what  # which is known by its name, to llama.cpp and to us
    assert "token_type" in what


def test_a_gguf_beside_a_checkpoint_says_which_is_served(tmp_path: Path) -> None:
    place = tmp_path / "models" / "m"
    write(place / "model.gguf")
    assert [spec.notes for spec in inventory(place.parent).specs] == [()]
    (place / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (place / "model.safetensors").touch()

    (spec,) = inventory(place.parent).specs
    (note,) = spec.notes
    assert note.startswith("model.gguf is served, not the checkpoint next to it")

    (place / "config.yaml").write_text("framework: transformers\nweights:\n- source: file://model.gguf\n")
    assert [spec.notes for spec in inventory(place.parent).specs] == [()]


def test_a_modelfile_beside_a_gguf_is_said_to_be_unread(tmp_path: Path) -> None:
    write(tmp_path / "models" / "m" / "model.gguf")
    (tmp_path / "models" / "m" / "Modelfile").write_text("FROM ./model.gguf\nSYSTEM hi\n")
    (spec,) = inventory(tmp_path / "models").specs
    assert "Modelfile" in spec.asides[0]


@pytest.mark.parametrize("name", ["blk.2.attn_q.weight", "blk.7.ffn_up.weight"])
def test_layers_beyond_those_of_the_metadata_are_not_left_out_without_a_word(name: str) -> None:
    tensors = tuple(TensorInfo(each, (32,), 0, 0) for each in ("blk.0.attn_q.weight", "blk.1.attn_q.weight", name))
    metadata = {"general.architecture": "llama", "llama.block_count": 2}
    with pytest.raises(ConfigError, match=r"the weights of [38] layers, and its block_count says 2: convert"):
        it.say_left_over(Header(metadata, tensors))
    it.say_left_over(Header(metadata, tensors[:2]))
    it.say_left_over(Header({"general.architecture": "llama"}, tensors))
