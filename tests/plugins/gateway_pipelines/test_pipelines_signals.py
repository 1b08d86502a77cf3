"""Classifiers of images and sounds, with answers compared with those of the pipelines of transformers."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("PIL")
pytest.importorskip("soundfile")
import soundfile
from PIL import Image
from pipeline_folders import ANIMALS, load, near, save_images, save_sounds

from gateway import BadRequest, ConfigError

RATE = 8000  # of the model of sounds


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("signals")
    return {"images": save_images(root / "images"), "sounds": save_sounds(root / "sounds")}


def library(task: Any, path: Path, **settings: Any) -> Any:
    from transformers import pipeline

    return pipeline(task, model=str(path), device="cpu", **settings)


def ask(model: Any, inputs: Any, **parameters: Any) -> Any:
    (found,) = model.predict_batch([{"inputs": inputs, "parameters": parameters}])
    return found


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def written(image: Any, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def recorded(samples: Any, rate: int = RATE, kind: str = "WAV", **how: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **how)
    return file.getvalue()


def images(count: int = 200) -> list[bytes]:
    """Images of all modes, sizes and formats, also as a camera turned them."""
    of, noise = random.Random(4), np.random.default_rng(4)
    found = []
    for number in range(count):
        width, height = of.choice([1, 7, 16, 40]), of.choice([1, 9, 16, 33])
        image = Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        mode = of.choice(["RGB", "L", "RGBA", "P", "LA", "1", "CMYK"])
        kind = "JPEG" if mode == "CMYK" else of.choice(["PNG", "GIF"] if mode in ("P", "1") else ["PNG", "WEBP"])
        image = image.convert("LA" if kind == "PNG" and mode == "LA" else mode if mode != "LA" else "RGBA")
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8  # how the camera was held
        found.append(written(image, kind, **({"exif": exif} if kind in ("JPEG", "WEBP") else {})))
    return found


def sounds(count: int = 200) -> list[Any]:
    noise = np.random.default_rng(5)
    lengths = [400, 801, 1600, 3000]
    return [noise.normal(0, 0.3, lengths[number % 4]).clip(-1, 1).astype(np.float32) for number in range(count)]


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_of_images_are_those_of_the_pipeline(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["images"], monkeypatch)
    files = images()
    found = [each for start in range(0, 200, 50) for each in ask(model, list(map(text_of, files[start : start + 50])))]
    wanted = library("image-classification", folders["images"])([Image.open(io.BytesIO(each)) for each in files])
    assert len(found) == 200 and near(found, wanted)
    assert len({round(each[0]["score"], 4) for each in found}) > 100
    assert set(ANIMALS.values()) >= {each[0]["label"] for each in found}
    url = f"data:image/png;base64,{text_of(files[0])}"
    assert near(ask(model, url), wanted[0]) and near(ask(model, url, top_k=1), wanted[0][:1])
    assert near(model.predict_batch([model.read_file(files[0], "image/png")])[0], wanted[0])
    for function in ("softmax", "sigmoid", "none"):
        other = library("image-classification", folders["images"], function_to_apply=function)
        assert near(ask(model, url, function_to_apply=function), other(Image.open(io.BytesIO(files[0]))))
    json.dumps(found)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_the_problem_type_decides_the_function(problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(save_images(tmp_path, problem_type=problem), monkeypatch)
    file = images(1)[0]
    wanted = library("image-classification", tmp_path)(Image.open(io.BytesIO(file)))
    assert near(ask(model, text_of(file)), wanted)


def test_classify_gives_the_probabilities_of_all_labels(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["images"], monkeypatch)
    url = f"data:image/png;base64,{text_of(images(1)[0])}"
    found, bad, raw, misspelt = model.classify_batch(
        [{"input": url}, {"input": "a text!"}, {"input": url, "raw_scores": True}, {"input": url, "Raw-Scores": True}]
    )
    assert [each["label"] for each in found] == list(ANIMALS.values())
    ranked = {each["label"]: each["score"] for each in ask(model, url)}
    assert near({each["label"]: each["score"] for each in found}, ranked)
    assert isinstance(bad, BadRequest) and "not valid base64" in str(bad)
    assert isinstance(raw, BadRequest) and isinstance(misspelt, BadRequest)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes with so many black pixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def runs(width: int, height: int) -> bytes:
    """A BMP of runs: two bytes are so many pixels of one colour."""
    import struct

    data = (bytes([width, 7]) + b"\0\0") * height + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + head + bytes(1024) + data


def scans(count: int) -> bytes:
    """A progressive JPEG whose last pass is there so many times."""
    data = written(Image.new("RGB", (16, 16)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GIF89a", "damaged|not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"not an image in a known format \(have: PNG, JPEG"),
        (bomb(8000, 8000), "8000 × 8000 pixels, and 40,000,000 are the most"),
        (bomb(30_000, 30_000), "more than 40,000,000 pixels"),
        (bomb(1, 101), "1 × 101 pixels: one side is more than 100 times the other"),
        (runs(40, 40), "a BMP whose pixels are compressed"),
        (scans(200), "more than 100 passes"),
        (images(1)[0][:-30], "damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 100, "damaged|not an image"),
    ],
    ids=["header", "postscript", "svg", "large", "larger", "narrow", "runs", "passes", "cut", "noise"],
)
def test_an_image_that_is_none_is_refused(
    data: bytes, says: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["images"], monkeypatch)
    refused = ask(model, text_of(data))
    assert isinstance(refused, BadRequest)
    with pytest.raises(BadRequest, match=says):
        raise refused


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ("http://127.0.0.1/a.png", "addresses are not fetched"),
        ("file:///etc/passwd", "addresses are not fetched"),
        ("/etc/passwd", "damaged|not an image|base64"),
        ("data:image/png,abc", "must be data:TYPE;base64,"),
        ("data:image/png;base64", "must be data:TYPE;base64,"),
        ("", "is empty"),
        (5, "must be an image as base64"),
        ([text_of(images(1)[0])] * 65, "65 entries, and 64 are the most"),
    ],
)
def test_an_image_comes_as_base64(
    inputs: Any, says: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ask(load(folders["images"], monkeypatch), inputs)
    assert isinstance(refused, BadRequest)
    with pytest.raises(BadRequest, match=says):
        raise refused


def test_usual_images_are_within_the_bounds() -> None:
    from gateway_media.pictures import picture

    assert picture(bomb(1, 100)).size == (1, 100) and picture(scans(50)).size == (16, 16)
    for mode in ("RGB", "RGBA", "L"):  # those with transparency say that their bits are in fields
        assert picture(written(Image.new(mode, (9, 9)), "BMP")).size == (9, 9)


def test_a_wrong_image_does_not_fail_others(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["images"], monkeypatch)
    good, bad = model.predict_batch([{"inputs": text_of(images(1)[0])}, {"inputs": text_of(b"no image")}])
    assert isinstance(good, list) and isinstance(bad, BadRequest)


# ── sounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_labels_of_sounds_are_those_of_the_pipeline(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["sounds"], monkeypatch)
    samples = sounds()
    files = [recorded(each, subtype="FLOAT") for each in samples]
    found = [each for start in range(0, 200, 50) for each in ask(model, list(map(text_of, files[start : start + 50])))]
    classify = library("audio-classification", folders["sounds"], top_k=3)
    assert near(found, [classify(each) for each in samples], 1e-4)
    assert len({round(each[0]["score"], 3) for each in found}) > 50
    assert near(model.predict_batch([model.read_file(files[0], "audio/wav")])[0], found[0])


@pytest.mark.parametrize(("kind", "within"), [("FLAC", 1e-3), ("OGG", 0.3), ("MP3", 0.3), ("AIFF", 1e-3)])
def test_other_formats_channels_and_rates_are_read(
    kind: str, within: float, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway_media.recordings import sound

    model = load(folders["sounds"], monkeypatch)
    times = np.arange(16000 * 2) / 16000
    tone = (0.5 * np.sin(2 * np.pi * 300 * times)).astype(np.float32)
    both = np.stack([tone * 1.5, tone * 0.5], axis=1)
    found = sound(recorded(both, 16000, kind), RATE, 60)
    assert abs(found.seconds - 2) < 0.1 and abs(len(found.samples) - 2 * RATE) < RATE * 0.1
    wanted = 0.5 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    middle = found.samples[4000:12000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(8000)))
    assert spectrum.argmax() == 300 and abs(np.abs(middle).max() - np.abs(wanted).max()) < max(within, 0.02)
    answer = ask(model, text_of(recorded(both, 16000, kind)))
    assert sum(each["score"] for each in answer) == pytest.approx(1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no recording at all", "not a recording in a known format"),
        (recorded(np.zeros(100, np.float32)), "has 0.013 seconds, and the model needs 0.03"),
        (recorded(np.zeros(0, np.float32)), "empty|not a recording"),
        (recorded(np.zeros(RATE * 61, np.float32), kind="FLAC"), "longer than 60 seconds"),
        (recorded(np.zeros(100_000 * 40, np.float32), 100_000, "FLAC"), "has more than 2,880,000 samples"),
        (recorded(np.zeros(100, np.float32), 383_987), "has 383987 samples a second: send one with 8000 or 48000"),
        (recorded(np.zeros((RATE, 17), np.float32)), "17 channels, and 16 are the most"),
        (recorded(np.zeros(RATE, np.float32), 500), "500 samples a second"),
        (recorded(np.full(RATE, np.nan, np.float32), subtype="FLOAT"), "NaN"),
    ],
    ids=["text", "short", "empty", "long", "fine", "odd", "channels", "slow", "nan"],
)
def test_a_recording_that_cannot_be_read_is_refused(
    data: bytes, says: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ask(load(folders["sounds"], monkeypatch), text_of(data))
    assert isinstance(refused, BadRequest)
    with pytest.raises(BadRequest, match=says):
        raise refused


def test_the_longest_recording_is_an_option(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders["sounds"], monkeypatch, options={"max_seconds": 0.5})
    refused = ask(model, text_of(recorded(np.zeros(RATE, np.float32))))
    assert isinstance(refused, BadRequest) and "longer than 0.5 seconds" in str(refused)
    with pytest.raises(ConfigError, match=r"options.max_seconds must be a number up to 3600, not 'long'"):
        load(folders["sounds"], monkeypatch, options={"max_seconds": "long"})


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["images", "sounds"])
def test_the_example_of_the_schema_is_answered(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders[name], monkeypatch)
    (example,) = model.input_schema["examples"]
    (answer,) = model.predict_batch([example])
    assert {each["label"] for each in answer} == set(ANIMALS.values())


@pytest.mark.parametrize("name", ["images", "sounds"])
def test_random_bytes_are_the_mistake_of_their_sender(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders[name], monkeypatch)
    of = random.Random(6)
    whole = [*images(8)] if name == "images" else [recorded(sounds(1)[0], kind=kind) for kind in ("WAV", "FLAC", "MP3")]
    for _ in range(400):
        data = bytearray(of.choice(whole))
        for _ in range(of.choice([1, 3, 30])):
            data[of.randrange(len(data))] = of.randrange(256)
        found = ask(model, text_of(bytes(data[: of.randrange(1, len(data) + 1)])))
        assert isinstance(found, (list, BadRequest)), found
