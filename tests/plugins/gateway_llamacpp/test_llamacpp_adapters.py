"""LoRA files: what they change, and which are refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp")
np = pytest.importorskip("numpy")

from gateway_language.sampling import Sampling  # noqa: E402
from gguf_models import loaded, words_of_tiny_chat, write, write_adapter  # noqa: E402

from gateway import ConfigError  # noqa: E402

WEIGHT, RANK = "blk.1.ffn_up.weight", 4
RANDOM = np.random.default_rng(3)
A = RANDOM.normal(size=(RANK, 128)).astype("f")
B = RANDOM.normal(size=(352, RANK)).astype("f") * 0.5
TENSORS = {f"{WEIGHT}.lora_a": A, f"{WEIGHT}.lora_b": B}


def answers(place: Path, **options: Any) -> list[list[int]]:
    """Greedy answers to some prompts."""

    async def run(model: Any) -> list[list[int]]:
        settings = Sampling(logit_bias=((2, -1000.0), (0, -1000.0)))
        prompts = [[number, number + 1, number] for number in range(20, 40)]
        return [
            [token async for found in model.engine.generate(prompt, 12, frozenset(), settings) for token in found]
            for prompt in prompts
        ]

    with words_of_tiny_chat(), loaded(place, "llamacpp", options=options) as model:
        return asyncio.run(run(model))


def test_an_adapter_changes_the_weights_as_if_it_were_merged(tmp_path: Path) -> None:
    for name, added in (("plain", 0), ("merged", 0.5 * 8.0 / RANK * B @ A)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.gguf", added={WEIGHT: added})
    write_adapter(tmp_path / "plain" / "style.gguf", TENSORS, alpha=8.0)
    plain, merged = answers(tmp_path / "plain"), answers(tmp_path / "merged")
    assert plain != merged
    assert answers(tmp_path / "plain", lora=[{"path": "style.gguf", "scale": 0.5}]) == merged
    assert answers(tmp_path / "plain", lora=[{"path": "style.gguf", "scale": 0}]) == plain


FAULTS: dict[str, tuple[Callable[[Path], Any], Any, str]] = {
    "no list": (lambda _: None, "a.gguf", "options.lora must be a list"),
    "no object": (lambda _: None, ["a.gguf"], "options.lora must be a list"),
    "another key": (lambda _: None, [{"file": "a.gguf"}], r"lora\[0\] has no key 'file' \(have: path, scale\)"),
    "no path": (lambda _: None, [{"scale": 1}], r"lora\[0\]\.path must name a file"),
    "a scale": (lambda _: None, [{"path": "x.gguf", "scale": "much"}], r"lora\[0\]\.scale must be a number"),
    "not there": (lambda _: None, [{"path": "x.gguf"}], r"lora\[0\]\.path: there is no file x\.gguf"),
    "elsewhere": (lambda _: None, [{"path": "../x.gguf"}], "is outside the model directory"),
    "no adapter": (lambda _: None, [{"path": "model.gguf"}], "it is no LoRA adapter"),
    "another kind": (lambda path: write_adapter(path, TENSORS, 8.0, adapter_type="x"), None, "it is no LoRA adapter"),
    "another model": (
        lambda path: write_adapter(path, TENSORS, 8.0, architecture="qwen2"),
        None,
        "for the architecture 'qwen2', the model's is 'llama'",
    ),
    "another layer": (
        lambda path: write_adapter(path, {"blk.9.ffn_up.weight.lora_a": A, "blk.9.ffn_up.weight.lora_b": B}, 8.0),
        None,
        r"it changes blk\.9\.ffn_up\.weight\.lora_a, which the model does not have",
    ),
    "another size": (
        lambda path: write_adapter(path, {**TENSORS, f"{WEIGHT}.lora_b": B[:100]}, 8.0),
        None,
        "has another size than the model's",
    ),
    "half of a pair": (
        lambda path: write_adapter(path, {f"{WEIGHT}.lora_a": A}, 8.0),
        None,
        r"blk\.1\.ffn_up\.weight has only one of \.lora_a, \.lora_b",
    ),
    "cut": (
        lambda path: path.write_bytes(write_adapter(path, TENSORS, 8.0).read_bytes()[:-50]),
        None,
        r"x\.gguf breaks off",
    ),
    "no GGUF": (lambda path: path.write_bytes(b"PK\x03\x04" * 99), None, "not a GGUF file"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_adapter_of_this_model_is_told_before_llama_cpp_reads_it(name: str, tmp_path: Path) -> None:
    make, given, why = FAULTS[name]
    place = tmp_path / "model"  # whose name says which of several files is the model
    place.mkdir()
    write(place / "model.gguf")
    make(place / "x.gguf")
    given = [{"path": "x.gguf"}] if given is None else given
    with (
        pytest.MonkeyPatch.context() as patch,
        words_of_tiny_chat(),
        pytest.raises(ConfigError, match=why),
    ):
        patch.setattr("gateway_llamacpp.model.open_server", lambda *_: pytest.fail("it was opened"))
        with loaded(place, "llamacpp", options={"lora": given, "engine": "llamacpp"}):
            pass
