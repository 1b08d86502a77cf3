"""Files with a damaged header are refused by name or load; none ends the process, and none makes it hang."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

from gguf_models import write

FILES = 300
# In a process of its own, which llama.cpp might end.
LOAD = """
import sys
from pathlib import Path

from gateway import ConfigError
from gateway_language.gguf.faults import mapped, read, say_faults
from gateway_llamacpp import sizes
from gateway_llamacpp.opening import check_words
from gateway_llamacpp.server import Shape, open_server

for name in sys.argv[1:]:
    try:
        say_faults(Path(name), check_words)
        with mapped(Path(name)) as data:
            header = read([data], [Path(name)])
        size = sizes.plan(header, slots=4, step_tokens=64, length=None, cells=None, memory=1 << 30)
        server = open_server(Path(name), Shape(4, size.cells, 68), 1)
        server.handle_completions({"prompt": [5, 6], "max_tokens": 2})
        del server
        print("loaded", flush=True)
    except ConfigError as error:
        print("refused" if str(error) else "without a word", flush=True)
"""


def damaged(whole: bytes, source: random.Random) -> bytes:
    """Change bytes, bits, sizes or counts of the header."""
    data = bytearray(whole)
    end = whole.find(b"output_norm.weight") + 60
    for _ in range(source.choice((1, 1, 2, 5))):
        at = source.randrange(8, end)
        match source.randrange(4):
            case 0:
                data[at] = source.randrange(256)
            case 1:
                data[at] ^= 1 << source.randrange(8)
            case 2:
                data[at : at + 4] = source.choice((b"\xff" * 4, b"\0" * 4, b"\1\0\0\0", b"\xff\xff\xff\x7f"))
            case _:
                data[at : at + 8] = source.choice((b"\xff" * 8, b"\0" * 8, (1 << 40).to_bytes(8, "little")))
    return bytes(data)


def test_a_damaged_header_is_refused_by_name_or_loads(tmp_path: Path) -> None:
    whole, source = write(tmp_path / "whole.gguf").read_bytes(), random.Random(5)
    files = [tmp_path / f"{number}.gguf" for number in range(FILES)]
    for file in files:
        file.write_bytes(damaged(whole, source))
    ran = subprocess.run([sys.executable, "-c", LOAD, *files], capture_output=True, text=True, timeout=300)
    said = Counter(ran.stdout.splitlines())
    assert ran.returncode == 0, f"{files[said.total()].name} ended it: {ran.stderr[-2000:]}"
    assert said.keys() <= {"refused", "loaded"} and said.total() == FILES
    assert said["refused"] > 100 and said["loaded"] > 10
