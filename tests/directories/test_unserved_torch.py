from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
from counting import calls_in

from gateway.directories.unserved.torch import MOST_STEPS

from .unserved_cases import told

STATE = b"\x80\x02ccollections\nOrderedDict\nq\0)Rq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02ctorch\nFloatStorage\n."


def archive(file: Path, **parts: bytes | str) -> Path:
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in parts.items():
            opened.writestr(f"archive/{name.replace('__', '/').replace('_pkl', '.pkl')}", content)
    return file


@pytest.mark.parametrize("name", ["traced.pt", "traced.pth", "traced"])
def test_a_program_of_torchscript_is_served_under_its_name(name: str, tmp_path: Path) -> None:
    archive(tmp_path / name, data_pkl=b"\x80\x02c__torch__\nM\n", code__M="class M: ...")
    line = told(tmp_path)
    assert line.startswith(f"a program of TorchScript ({name})") and "as model.pt" in line
    assert "weights_only" not in line


def test_a_program_of_torch_export_is_served_under_its_name(tmp_path: Path) -> None:
    archive(tmp_path / "net.pt", archive_format="pt2", data__weights="")
    assert "as model.pt2" in told(tmp_path)


@pytest.mark.parametrize(
    ("pickled", "name"),
    [
        (b"\x80\x02}q\0(c__main__\nNet\nq\x01)\x81q\x02.", "__main__.Net"),
        (b"\x80\x02cultralytics.nn.tasks\nDetectionModel\n)\x81.", "ultralytics.nn.tasks.DetectionModel"),
        (b"\x80\x02ctorch.nn.modules.container\nSequential\nq\0)\x81cmy.net\nBlock\n)\x81.", "my.net.Block"),
        (b"\x80\x02ctorch.nn.modules.container\nSequential\nq\0)\x81.", "torch.nn.modules.container.Sequential"),
    ],
)
def test_a_pickled_module_is_told_with_the_class_that_it_needs(pickled: bytes, name: str, tmp_path: Path) -> None:
    archive(tmp_path / "best.pt", data_pkl=pickled)
    old = tmp_path / "old"
    old.mkdir()
    (old / "best.pt").write_bytes(b"\x80\x02\x8a\nl\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03." + pickled)
    for place in (tmp_path, old):
        line = told(place)
        assert f"with objects of {name}, not only weights, which runs code when it is opened (best.pt)" in line
        assert "state_dict" in line and "weights_only=True" not in line


def test_weights_alone_are_loaded_as_weights(tmp_path: Path) -> None:
    archive(tmp_path / "best.pt", data_pkl=STATE)
    assert "torch.load(…, weights_only=True)" in told(tmp_path)


@pytest.mark.parametrize("index", range(256))
def test_no_index_in_a_pickle_is_taken_for_the_name_of_a_class(index: int, tmp_path: Path) -> None:
    put = b"q" + bytes([index])  # an index of 10 is the end of a line
    archive(tmp_path / "best.pt", data_pkl=STATE[:-1] + b"ccollections\nOrderedDict\n" + put + b")R" + put + b".")
    assert "torch.load(…, weights_only=True)" in told(tmp_path)


@pytest.mark.parametrize("protocol", range(6))
def test_a_class_is_named_whatever_the_protocol_of_its_pickle(protocol: int, tmp_path: Path) -> None:
    archive(tmp_path / "best.pt", data_pkl=pickle.dumps([Path, Path, zipfile.ZipFile], protocol))
    assert "with objects of pathlib.Path, not only weights" in told(tmp_path)


def test_a_pickle_of_very_many_steps_costs_little(tmp_path: Path) -> None:
    archive(tmp_path / "best.pt", data_pkl=b"\x80\x02" + b"N0" * 500_000 + b"c__main__\nNet\n.")
    assert "weights_only=True" in told(tmp_path)
    assert calls_in(lambda: told(tmp_path)) < 20 * MOST_STEPS  # 8 for a step; all of them take 80 * MOST_STEPS


def test_of_files_of_pytorch_the_others_are_counted(tmp_path: Path) -> None:
    archive(tmp_path / "a.pt", data_pkl=STATE)
    archive(tmp_path / "b.pt", data_pkl=b"", code__M="")
    archive(tmp_path / "c.pt", data_pkl=b"", code__M="")
    assert "a program of TorchScript (b.pt, c.pt), and 1 other that may hold weights: a.pt" in told(tmp_path)
