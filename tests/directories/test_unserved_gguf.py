from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.directories.unserved.unserved import find_unserved

from .unserved_cases import architecture, make, told


@pytest.mark.parametrize(
    ("names", "command"),
    [
        (("b.Q6_K.gguf-split-a", "b.Q6_K.gguf-split-b"), r"cat b.Q6_K.gguf-split-\* > b.Q6_K.gguf$"),
        (("b.gguf.part1of2", "b.gguf.part2of2"), r"cat b.gguf.part\* > b.gguf$"),
        (("b.gguf.part1of2",), r"missing pieces \(there are 1 of 2\), then check again"),
        (
            tuple(f"b.gguf.part{number}of10" for number in range(1, 11)),
            r"cat b.gguf.part\?{5} b.gguf.part\?{6} > b.gguf$",
        ),
        (("b.gguf-part-a", "b.gguf-part-b"), r"cat b.gguf-part-\* > b.gguf$"),
        (("b.gguf.aa", "b.gguf.ab"), r"cat b.gguf.\* > b.gguf$"),
        (("b.gguf.aa", "b.gguf.ab", "b.gguf.asc"), r"cat b.gguf.\?\? > b.gguf$"),
        (("b.gguf.part2", "b.gguf.part1", "b.gguf.partz.md5"), r"cat b.gguf.part\? > b.gguf$"),
        (("my b.gguf.part1", "my b.gguf.part2"), r"cat 'my b.gguf.part'\* > 'my b.gguf'$"),
        (("b.gguf.001", "b.gguf.002"), r"cat b.gguf.\* > b.gguf$"),
        (("b.gguf.part1of1", "c.gguf.part1of1"), r"> b.gguf; the others likewise"),
    ],
)
@pytest.mark.parametrize("config", [None, {"model_type": "llama"}, architecture("Qwen3ForCausalLM")])
def test_pieces_of_a_gguf_file_are_told_first_with_the_command_that_joins_them(
    config: dict[str, Any] | None, names: tuple[str, ...], command: str, tmp_path: Path
) -> None:
    make(tmp_path / "it", "README.md", *names, **({} if config is None else {"config": config}))
    found = find_unserved(tmp_path / "it")
    assert found is not None and "cut by hand" in found.what
    assert re.search(command, found.fix), found.fix


@pytest.mark.parametrize("config", [None, {"model_type": "nomic_bert"}, architecture("NomicBertModel")])
@pytest.mark.parametrize("kind", [b"t5encoder"])
def test_an_encoder_as_a_gguf_file_is_told_whatever_config_lies_beside(
    kind: bytes, config: dict[str, Any] | None, tmp_path: Path
) -> None:
    make(tmp_path / "it", **({} if config is None else {"config": config}))
    key = b"general.architecture\x08\0\0\0" + len(kind).to_bytes(8, "little") + kind + (12).to_bytes(8, "little")
    (tmp_path / "it" / "m-Q8_0.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(16) + key + b"general.name")
    says = r"an encoder as a GGUF file; .* \(m-Q8_0.gguf\).*sentence-transformers"
    assert re.search(says, told(tmp_path / "it")), told(tmp_path / "it")
