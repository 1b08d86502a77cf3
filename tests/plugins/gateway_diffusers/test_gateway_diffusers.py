"""Pipelines of diffusers: images as the library paints them, the fields of a request, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")
import gateway_diffusers
import numpy as np
import torch
from fakes import PATIENT
from gateway_diffusers.fields import Ask
from gateway_diffusers.model import Gone
from gateway_diffusers.structure import PIPELINES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_pipelines import Request, loaded, problems, save

from gateway import BadRequest, ConfigError
from gateway.testing import Gateway


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("pipelines") / "tiny")


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        return loaded(tiny, patch, options={"steps": 2, "max_steps": 9, "max_pixels": 4096, "max_images": 4})


def pixels(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file)))


def painted(model: Any, **body: Any) -> list[bytes]:
    found: list[bytes] = model.images_generations({"prompt": "a cat", **body}, Request())
    return found


# ── answers ──


def test_images_are_those_of_the_library_for_random_requests(tiny: Path, model: Any) -> None:
    from diffusers import DiffusionPipeline

    library = DiffusionPipeline.from_pretrained(tiny)
    library.set_progress_bar_config(disable=True)
    chance = random.Random(0)
    for _ in range(200):
        text = "".join(chance.choices("abcdef gh,.!?", k=chance.randrange(12)))
        body: dict[str, Any] = {
            "prompt": text,
            "seed": chance.randrange(1 << 40),
            "steps": chance.choice([1, 1, 1, 1, 2]),
        }
        more: dict[str, Any] = {}
        if chance.random() < 0.3:
            body["negative_prompt"] = more["negative_prompt"] = "a dog"
        if chance.random() < 0.3:
            body["guidance"] = more["guidance_scale"] = chance.choice([0, 1, 7.5, 20])
        if chance.random() < 0.3:
            body["size"], more["width"], more["height"] = "24x40", 24, 40
        generator = torch.Generator().manual_seed(body["seed"])
        (wanted,) = library(text, num_inference_steps=body["steps"], generator=generator, **more).images
        (found,) = painted(model, **body)
        assert (pixels(found) == np.asarray(wanted)).all()


def test_a_seed_gives_the_same_image_however_many_are_painted(model: Any) -> None:
    several = [pixels(each) for each in painted(model, seed=7, n=3)]
    for number, each in enumerate(several):
        (alone,) = painted(model, seed=7 + number)
        assert np.abs(pixels(alone).astype(int) - each).max() <= 1  # a batch is computed with another rounding
    assert (several[0] != several[1]).any()
    assert painted(model, seed=7) == painted(model, seed=7, n=1)
    assert painted(model) != painted(model)
    assert len(painted(model, seed=(1 << 63) - 1, n=2)) == 2


def test_images_painted_together_have_no_more_pixels_than_one_may_have(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    inner = model.inner

    class Counted:
        unet, vae_scale_factor = inner.unet, inner.vae_scale_factor

        def __call__(self, *args: Any, **more: Any) -> Any:
            counts.append(more["num_images_per_prompt"])
            return inner(*args, **more)

    monkeypatch.setattr(model, "inner", Counted())
    large = painted(model, seed=7, n=3, size="64x64")  # of at most 4096 pixels
    assert counts == [1, 1, 1] and len(large) == 3
    assert len(painted(model, n=3, size="32x64")) == 3 and counts[3:] == [2, 1]
    assert len(painted(model, n=4)) == 4 and counts[5:] == [4]  # of 16 × 16
    monkeypatch.setattr(Counted, "unet", None)
    assert len(painted(model, n=2)) == 2 and counts[6:] == [1, 1]


def test_size_and_form_are_those_of_the_request(model: Any) -> None:
    assert pixels(painted(model)[0]).shape == pixels(painted(model, size="auto")[0]).shape == (16, 16, 3)
    assert pixels(painted(model, size="48x24")[0]).shape == (24, 48, 3)
    for form in ("png", "jpeg", "webp"):
        image = Image.open(io.BytesIO(painted(model, output_format=form)[0]))
        assert image.format == form.upper()
    small, large = (painted(model, seed=1, output_format="jpeg", output_compression=each)[0] for each in (5, 95))
    assert len(small) < len(large)


WRONG: dict[str, tuple[Any, str]] = {
    "no steps": ({"steps": 0}, "steps has to be a whole number from 1 to 9"),
    "many steps": ({"steps": 10}, "steps has to be a whole number from 1 to 9"),
    "a truth value": ({"steps": True}, "steps has to be a whole number"),
    "two names": ({"steps": 1, "num_inference_steps": 2}, "steps and num_inference_steps are two names of one field"),
    "many images": ({"n": 5}, "n has to be a whole number from 1 to 4"),
    "a word": ({"size": "large"}, 'size has to be WIDTHxHEIGHT, such as "512x512", or "auto"'),
    "no pixels": ({"size": "0x8"}, "both sides of size have to be multiples of 8"),
    "an odd size": ({"size": "33x32"}, "both sides of size have to be multiples of 8"),
    "a large size": ({"size": "128x64"}, "size has 8192 pixels, and this model paints up to 4096"),
    "guidance": ({"guidance": -1}, "guidance has to be a number from 0 to 100"),
    "a NaN": ({"guidance": float("nan")}, "guidance has to be a number from 0 to 100"),
    "a seed": ({"seed": -1}, "seed has to be a whole number from 0 to"),
    "a text as a seed": ({"seed": "7"}, "seed has to be a whole number"),
    "quality": ({"quality": "hd"}, "does not support quality: send steps"),
    "background": ({"background": "transparent"}, "does not support background"),
    "style": ({"style": "vivid"}, "does not support style"),
    "an image": ({"image": "x"}, "does not support image"),
    "width": ({"width": 32}, "does not support width"),
    "compression": ({"output_compression": 5}, "a png is not compressed"),
    "another field": ({"tiling": True}, "there is no field 'tiling' (have: prompt, negative_prompt, n, size"),
    "another spelling": ({"negativePrompt": "x"}, "did you mean negative_prompt?"),
    "half a character": ({"prompt": "\ud800"}, "prompt has half a character"),
    "no text": ({"negative_prompt": 5}, "negative_prompt must be a string"),
}


def test_a_field_is_honoured_or_refused(model: Any) -> None:
    for body, told in WRONG.values():
        with pytest.raises(BadRequest) as error:
            painted(model, **body)
        assert told in error.value.message, body
    assert len(painted(model, quality="auto", background="opaque", user="me", moderation="auto", style=None)) == 1


def test_a_client_that_leaves_ends_the_painting(model: Any) -> None:
    request = Request(leaves_after=2)
    with pytest.raises(Gone):
        model.images_generations({"prompt": "a cat", "steps": 9}, request)
    assert request.asked == 2


def test_what_the_safety_checker_refuses_is_no_image(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        images, nsfw_content_detected = (None, None), (False, True)

    monkeypatch.setattr(model, "inner", lambda *_, **__: Found)
    with pytest.raises(BadRequest, match="the safety checker of the model refused an image") as error:
        painted(model, n=2)
    assert error.value.code == "content_policy_violation"


def test_a_field_that_a_pipeline_lacks_is_named(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def paint(prompt: str, *, num_images_per_prompt: int, generator: Any, callback_on_step_end: Any) -> None: ...

    monkeypatch.setattr(model, "inner", paint)
    with pytest.raises(BadRequest, match="this pipeline has no negative_prompt"):
        model.paint(Ask("a", "b", 1, None, None, None, 0, "png", None))


@pytest.mark.parametrize("options", [{"steps": 0}, {"max_pixels": "many"}, {"max_images": True}])
def test_wrong_options_are_told(options: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"options: {next(iter(options))} has to be a whole number"):
        loaded(tiny, monkeypatch, options=options)


# ── any body ──

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.lists(st.integers(), max_size=2)
)
RIGHT: dict[str, Any] = {
    "prompt": st.text(max_size=30),
    "negative_prompt": st.text(max_size=9),
    "n": st.just(1),
    "steps": st.just(1),
    "size": st.sampled_from(["auto", "8x8", "16x24", "16x16"]),
    "seed": st.integers(0, (1 << 63) - 1),
    "guidance": st.floats(0, 100),
    "output_format": st.sampled_from(["png", "jpeg", "webp"]),
    "output_compression": st.integers(0, 100),
}
NAMES = [*RIGHT, "quality", "style", "background", "user", "cfg_scale", "x"]
BODIES = st.fixed_dictionaries(
    {"prompt": RIGHT["prompt"]}, optional={name: each for name, each in RIGHT.items() if name != "prompt"}
) | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4).map(
    lambda body: {"output_format": "png", **{k: v for k, v in body.items() if k != "output_format"}, "prompt": "a"}
)


def answers_or_refuses(model: Any, body: Any) -> None:
    try:
        found = model.images_generations(body, Request())
    except BadRequest as error:
        assert 0 < len(error.message) < 2000
        error.message.encode()
    else:
        assert all(pixels(each).ndim == 3 for each in found)


@settings(PATIENT, max_examples=100)
@given(body=BODIES)
def test_a_body_is_answered_or_refused(model: Any, body: Any) -> None:
    answers_or_refuses(model, body)


@pytest.mark.slow
@settings(PATIENT, max_examples=2000)
@given(body=BODIES)
def test_two_thousand_bodies_are_answered_or_refused(model: Any, body: Any) -> None:
    answers_or_refuses(model, body)


# ── what is refused ──


def changed(tiny: Path, place: Path, change: Callable[[Path], Any]) -> Path:
    shutil.copytree(tiny, place)
    change(place)
    return place


def index(**values: Any) -> Callable[[Path], Any]:
    def change(place: Path) -> None:
        file = place / "model_index.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


def pickled(place: Path) -> None:
    (place / "unet" / "diffusion_pytorch_model.safetensors").rename(place / "unet" / "diffusion_pytorch_model.bin")


def shards(name: str) -> Callable[[Path], Any]:
    """Weights in several files, one of which has this name."""
    index = json.dumps({"weight_map": {"a": "model-00001.safetensors", "b": name}})
    return lambda place: (place / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(index)


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a module": (index(unet=["mine", "Net"]), "its part 'unet' is 'Net' of 'mine', which is code"),
    "a path": (index(unet=["diffusers", "../../Net"]), "which is code"),
    "a path as a part": (index(**{"../unet": ["diffusers", "Net"]}), "which is code"),
    "a part of three": (index(unet=["diffusers", "Net", "x"]), "does not say what its part 'unet' is"),
    "another pipeline": (index(_class_name="DDPMPipeline"), "has the pipeline 'DDPMPipeline', which is not served"),
    "a pipeline as a part": (index(unet=["diffusers", "DiffusionPipeline"]), "which is code, or has more parts"),
    "a part of ONNX": (index(unet=["diffusers", "OnnxRuntimeModel"]), "which is code, or has more parts"),
    "parts of a part": (lambda place: (place / "unet" / "model_index.json").write_text("{}"), "unet is a pipeline"),
    "weights elsewhere": (shards("../../x.safetensors"), "names '../../x.safetensors' as weights"),
    "weights in a pickle": (shards("x.bin"), "names 'x.bin' as weights, which is no *.safetensors beside it"),
    "a pipeline in a file": (index(_class_name=["pipeline.py", "Mine"]), "which is not served"),
    "a missing part": (lambda place: shutil.rmtree(place / "vae"), "its part vae is missing: get the"),
    "no weights": (
        lambda place: (place / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "its part vae has no weights"
    ),
    "a pickle": (pickled, "its part unet has only diffusion_pytorch_model.bin, which is a pickle"),
    "no settings": (lambda place: (place / "unet" / "config.json").unlink(), "its part unet has no config.json"),
    "damaged settings": (lambda place: (place / "unet" / "config.json").write_text("{"), "is not a JSON object"),
    "a list": (lambda place: (place / "unet" / "config.json").write_text("[]"), "is not a JSON object"),
    "code of a part": (
        lambda place: (place / "unet" / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}'), "names code"
    ),
    "a file elsewhere": (
        lambda place: (place / "tokenizer" / "tokenizer_config.json").write_text('{"vocab_file": "/etc/passwd"}'),
        "leads out of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_code_and_what_is_missing_is_refused_by_check_and_load(
    name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, told = FAULTS[name]
    place = changed(tiny, tmp_path / "it", change)
    (place / "config.yaml").write_text("framework: diffusers\n")
    (what,) = problems(place)
    assert told in what
    with pytest.raises(ConfigError) as error:
        loaded(place, monkeypatch)
    assert told in str(error.value)


def test_weights_that_are_cut_are_told(tiny: Path, tmp_path: Path) -> None:
    def cut(place: Path) -> None:
        file = place / "vae" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:5000])

    (told,) = problems(changed(tiny, tmp_path / "it", cut))
    assert "vae/diffusion_pytorch_model.safetensors has 5,000 bytes of 13,032" in told


def test_wrong_weights_are_told_by_the_load(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(place: Path) -> None:
        file = place / "vae" / "diffusion_pytorch_model.safetensors"
        save_file({name: torch.zeros(7, 7) for name in load_file(file)}, file)

    with pytest.raises(ConfigError, match="cannot be loaded by diffusers"):
        loaded(changed(tiny, tmp_path / "it", other), monkeypatch)


def test_a_pipeline_that_is_not_served_is_left_to_be_told(tiny: Path, tmp_path: Path) -> None:
    place = changed(tiny, tmp_path / "it", index(_class_name="DDPMPipeline"))
    assert gateway_diffusers.find_model(place, {}) is None


def test_every_pipeline_that_is_served_is_of_the_library_and_takes_what_a_request_has() -> None:
    import inspect

    import diffusers

    for name in PIPELINES:
        takes = inspect.signature(getattr(diffusers, name).__call__).parameters
        needed = {"prompt", "generator", "num_images_per_prompt", "width", "height", "num_inference_steps"}
        assert needed | {"guidance_scale", "callback_on_step_end"} <= set(takes), name


def test_a_pipe_is_not_waited_for(tiny: Path, tmp_path: Path) -> None:
    place = changed(tiny, tmp_path / "it", lambda place: os.mkfifo(place / "vae" / "more"))
    assert "is not a regular file" in problems(place)[0]


def test_nothing_of_the_library_is_imported_to_find_and_check(tiny: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import gateway_diffusers\n"
        "from gateway.directories.discovery import discover\n"
        "from gateway.plugins import Plugins\n"
        "(spec,) = discover([Path(sys.argv[1])], Plugins.load()).specs\n"
        "print(spec.format, spec.served_by, spec.limits.slots, list(gateway_diffusers.check_model(spec)))\n"
        "assert not {'diffusers', 'torch', 'transformers', 'PIL', 'numpy'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", program, tiny.parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "diffusers diffusers 1 []\n", done.stderr


# ── served ──


@pytest.fixture(scope="module")
def served(tiny: Path) -> Iterator[Gateway]:
    with Gateway(tiny.parent, timeout=200) as gateway:
        yield gateway


def test_parts_of_a_pipeline_are_no_other_models(served: Gateway) -> None:
    assert "are ignored" not in served.log


def test_the_sdk_of_openai_gets_images(served: Gateway, model: Any) -> None:
    from openai import BadRequestError, OpenAI

    client = OpenAI(base_url=f"{served.url}/v1", api_key="unused")
    extra = {"seed": 3, "steps": 2}
    answer = client.images.generate(model="tiny", prompt="a cat", n=2, size="16x16", extra_body=extra)  # type: ignore[call-overload]
    found = [base64.b64decode(each.b64_json or "") for each in answer.data or []]
    wanted = painted(model, n=2, size="16x16", **extra)
    assert [pixels(each).tolist() for each in found] == [pixels(each).tolist() for each in wanted]
    url = client.images.generate(model="tiny", prompt="a", size="8x8", response_format="url", extra_body=extra)  # type: ignore[call-overload]
    assert str(url.data[0].url).startswith("data:image/png;base64,")
    with pytest.raises(BadRequestError, match="both sides of size have to be multiples of 8"):
        client.images.generate(model="tiny", prompt="a", size="9x9")  # type: ignore[call-overload]
