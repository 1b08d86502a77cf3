"""Models of Keras: answers as the library gives them, and what is refused before the library reads a file."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras")
import gateway_keras
import h5py
import numpy as np
from closeness import assert_near
from fakes import PATIENT
from gateway_keras.structure import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_models import forged, images, inputs, loaded, network, problems, refusal, rewritten, saved
from tensor_cases import ANYTHING, CELLS, answers_or_refuses, nested

from gateway import ConfigError
from gateway.examples.values import example
from gateway.testing import Gateway


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("keras") / "whole")


@pytest.fixture(scope="module")
def model(whole: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        return loaded(whole, patch)


def copy(whole: Path, place: Path) -> Path:
    place.mkdir()
    (place / "model.keras").write_bytes((whole / "model.keras").read_bytes())
    return place


# ── answers ──


def test_answers_are_those_of_the_library_for_random_inputs(whole: Path, model: Any) -> None:
    import keras

    library = keras.models.load_model(whole / "model.keras")
    for seed in range(200):
        rows = inputs(seed % 5 + 1, seed)
        found = model.predict({name: each.tolist() for name, each in rows.items()})
        wanted = library(rows, training=False)
        for name in ("kind", "score"):
            assert (found[name] == wanted[name].detach().numpy()).all()
    for count in (1, 10_000):
        rows = inputs(count)
        found, wanted = model.predict(rows), library.predict(rows, batch_size=count, verbose=0)
        assert_near(found["kind"], wanted["kind"])
    missing = {"x": [[1, None, 2, 3]], "words": [[0, 1, 2]]}
    assert np.isnan(model.predict(missing)["score"]).all()


def test_a_sequential_model_of_images_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = images()
    model = loaded(saved(tmp_path, made), monkeypatch)
    pictures = np.random.default_rng(0).uniform(0, 16, (3, 8, 8, 1)).astype("float32")
    (name,) = model.inputs.values
    found = model.predict({name: pictures.tolist()})
    assert list(found) == ["digit"]
    assert (found["digit"] == made(pictures, training=False).detach().numpy()).all()
    assert model.predict(example(model.input_schema))["digit"].shape == (1, 10)


WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([1], "send an object with the inputs of the model: words: int32 [?, 3], x: float32 [?, 4]"),
    "nothing": ({}, "the input words is missing: it is a int32 [?, 3]"),
    "another input": ({"x": [[1, 2, 3, 4]], "words": [[1, 2, 3]], "z": 1}, "the model has no input 'z'"),
    "another length": ({"x": [[1, 2, 3]], "words": [[1, 2, 3]]}, "x has the shape [1, 3], but the model takes [?, 4]"),
    "unequal rows": ({"x": [[1, 2, 3, 4]] * 2, "words": [[1, 2, 3]] * 3}, "the model refused these inputs"),
    "a text": ({"x": [[1, 2, 3, "4"]], "words": [[1, 2, 3]]}, "x[0][3] has to be a number; it is '4'"),
    "a fraction": ({"x": [[1, 2, 3, 4]], "words": [[1, 2, 0.5]]}, "words[0][2] has to be a whole number; it is 0.5"),
    "no such word": ({"x": [[1, 2, 3, 4]], "words": [[1, 2, 7]]}, "the model refused these inputs: index out of range"),
}


def test_a_wrong_input_is_named_with_what_is_expected(model: Any) -> None:
    for body, told in WRONG.values():
        assert told in refusal(model, body)


def test_the_schema_has_a_request_that_works(model: Any) -> None:
    found = model.predict(example(model.input_schema))
    assert set(found) == set(model.output_schema["properties"]) == {"kind", "score"}
    assert model.output_schema["properties"]["kind"]["items"]["minItems"] == 3


def test_settings_of_the_user_are_neither_read_nor_written(whole: Path, tmp_path: Path) -> None:
    """Keras writes ~/.keras when it is imported, and reads from it which library computes."""
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"backend": "jax"}')
    program = (
        "from gateway_keras.model import KerasModel\nmodel = KerasModel({})\nmodel.load()\n"
        "import keras\nprint(keras.backend.backend())"
    )
    env = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    env.pop("KERAS_BACKEND"), env.pop("KERAS_HOME")
    plugins = Path(gateway_keras.__file__).parents[1]
    env["PYTHONPATH"] = str(plugins)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=whole, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "torch\n", done.stderr
    assert [each.name for each in (tmp_path / ".keras").iterdir()] == ["keras.json"]


# ── any body ──

RIGHT = {
    "x": st.lists(st.lists(st.floats(width=32) | st.none(), min_size=4, max_size=4), max_size=3),
    "words": st.lists(st.lists(st.integers(0, 7), min_size=3, max_size=3), max_size=3),
}
BODIES = st.one_of(
    st.fixed_dictionaries(RIGHT),
    *(st.fixed_dictionaries({**RIGHT, name: nested(CELLS) | ANYTHING}) for name in RIGHT),
    st.dictionaries(st.sampled_from(["x", "words", "l"]), ANYTHING, max_size=3),
    ANYTHING,
)


@settings(PATIENT, max_examples=200)
@given(body=BODIES)
def test_a_body_is_answered_or_refused(model: Any, body: Any) -> None:
    answers_or_refuses(model, body)


@pytest.mark.slow
@settings(PATIENT, max_examples=2000)
@given(body=BODIES)
def test_two_thousand_bodies_are_answered_or_refused(model: Any, body: Any) -> None:
    answers_or_refuses(model, body)


# ── what is refused ──


def layer(found: Any, name: str = "dense") -> Any:
    return next(each for each in found["config"]["layers"] if each["name"] == name)


def hidden(found: Any) -> None:
    """Code in place of a value, where a layer would have it made to an object."""
    code = {"class_name": "__lambda__", "config": {"value": "4wAAAAA=", "defaults": None, "closure": None}}
    layer(found)["config"]["activation"] = code


def function(module: str, name: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


FORGED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a lambda": (lambda it: layer(it).update(class_name="Lambda"), "its layer 'dense' (Lambda) has code"),
    "a function as code": (hidden, "(__lambda__) has code"),
    "a pickle": (lambda it: layer(it).update(class_name="TorchModuleWrapper"), "has code, or opens files"),
    "a list of words in a file": (lambda it: layer(it).update(class_name="StringLookup"), "has code, or opens files"),
    "what these are made of": (
        lambda it: layer(it).update(class_name="IndexLookup", module="keras.src.layers.preprocessing.index_lookup"),
        "has code, or opens files",
    ),
    "a class of its own": (lambda it: layer(it).update(registered_name="Custom>Mine"), "is a class of its own"),
    "a class of a module": (lambda it: layer(it).update(module="os"), "is not one of Keras, so it is code"),
    "a class of a part of keras": (lambda it: layer(it).update(module="keras.src.utils.file_utils"), "is not one of"),
    "no module": (lambda it: layer(it).update(module=None), "is not one of Keras, so it is code"),
    "a function": (
        lambda it: layer(it)["config"].update(activation=function("builtins", "eval")), "calls the function 'eval'"
    ),
    "a function of keras": (
        lambda it: layer(it)["config"].update(activation=function("keras.utils", "get_file")), "the function 'get_file'"
    ),
    "settings of keras": (
        lambda it: layer(it)["config"].update(activation=function("keras.config", "enable_unsafe_deserialization")),
        "calls the function 'enable_unsafe_deserialization' of 'keras.config'",
    ),
    "a model of its own": (lambda it: it.update(class_name="Mine"), "is of the class 'Mine', and that is code"),
    "a model of another module": (lambda it: it.update(module="mine"), "is not one of Keras, so it is code"),
    "no model": (lambda it: it.clear(), "the model is of the class 'None'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_code_is_refused_by_check_and_load(
    name: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, told = FORGED[name]
    place = forged(copy(whole, tmp_path / "it"), change)
    (what,) = problems(place)
    assert told in what
    with pytest.raises(ConfigError) as error:
        loaded(place, monkeypatch)
    assert told in str(error.value)


def test_a_layer_with_code_that_the_library_saved_is_refused(tmp_path: Path) -> None:
    import keras

    made = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda it: it * 2, name="twice")])
    assert "its layer 'twice' (Lambda) has code, or opens files" in problems(saved(tmp_path, made))[0]


def with_weights(whole: Path, place: Path, change: Callable[[Any], Any]) -> Path:
    def changed(name: str, content: bytes) -> bytes:
        if name != "model.weights.h5":
            return content
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "r+") as file:
            change(file)
        return buffer.getvalue()

    return rewritten(copy(whole, place), changed)


def external(file: Any) -> None:
    file.create_dataset("more", (4,), "f4", external=[("secret.bin", 0, 16)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (4,))
    file.create_virtual_dataset("more", layout)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda file: file.__setitem__("more", np.dtype("f4")),
            "its weights are damaged",
        ),
        (
            lambda file: file.__setitem__("more", h5py.ExternalLink("secret.h5", "/x")),
            "refer to another place \\('more'",
        ),
        (lambda file: file.__setitem__("more", h5py.SoftLink("/layers")), "refer to another place \\('more'"),
        (external, "its weights are in another file \\('more'"),
        (virtual, "its weights are in another file \\('more'"),
    ],
)
def test_weights_in_other_files_are_refused(
    change: Any, told: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = with_weights(whole, tmp_path / "it", change)
    with pytest.raises(ConfigError, match=told):
        loaded(place, monkeypatch)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("model.weights.h5", lambda _: None, "it has no model.weights.h5"),
        ("config.json", lambda _: None, "there is no config.json in it"),
        ("config.json", lambda content: content[:99], "cannot be served"),
        ("config.json", lambda _: b"[" * 100_000, "nested too deeply"),
        (
            "assets/words.txt",
            lambda _: b"",
            "it has 'assets/words.txt', a file of a layer that reads more than weights",
        ),
    ],
)
def test_a_damaged_file_is_told(name: str, change: Any, told: str, whole: Path, tmp_path: Path) -> None:
    place = copy(whole, tmp_path / "it")
    added = {} if name in ("model.weights.h5", "config.json") else {name: b""}
    rewritten(place, lambda each, content: change(content) if each == name else content, **added)
    assert told in problems(place)[0]


def test_a_file_that_is_cut_and_damaged_weights_are_told(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = copy(whole, tmp_path / "a")
    (place / "model.keras").write_bytes((place / "model.keras").read_bytes()[:2000])
    assert "cannot be served" in problems(place)[0]
    place = rewritten(
        copy(whole, tmp_path / "b"), lambda name, content: content[:999] if name.endswith("h5") else content
    )
    with pytest.raises(ConfigError, match="its weights are damaged"):
        loaded(place, monkeypatch)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.keras")
    (tmp_path / "config.yaml").write_text("framework: keras\n")
    assert problems(tmp_path) != []


def test_nothing_of_the_library_is_imported_to_find_and_check(whole: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import gateway_keras\n"
        "from gateway.directories.discovery import discover\n"
        "from gateway.plugins import Plugins\n"
        "(spec,) = discover([Path(sys.argv[1])], Plugins.load()).specs\n"
        "print(spec.format, spec.served_by, list(gateway_keras.check_model(spec)))\n"
        "assert not {'keras', 'torch', 'h5py', 'numpy'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", program, whole.parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "keras keras []\n", done.stderr


def test_all_layers_of_the_library_were_looked_at() -> None:
    """A newer Keras with another layer that has functions or files shows here."""
    import keras
    from gateway_keras.structure import REFUSED

    layers = {name for name, each in vars(keras.layers).items() if isinstance(each, type)}
    assert REFUSED - {"MelSpectrogram", "Pipeline", "FeatureSpace", "IndexLookup"} <= layers
    assert set(vars(keras)) | {"Functional"} >= MODELS
    suspicious = {
        name for name in layers if any(word in name for word in ("Lambda", "Wrapper", "Lookup", "Text", "SM"))
    }
    assert suspicious - REFUSED == {"Wrapper"}


# ── served ──


@pytest.fixture(scope="module")
def served(whole: Path) -> Iterator[Gateway]:
    with Gateway(whole.parent, timeout=200) as gateway:
        yield gateway


def post(gateway: Gateway, path: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(f"{gateway.url}{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_both_routes_answer(served: Gateway) -> None:
    rows = inputs(2)
    wanted = network()(rows, training=False)["kind"].detach().numpy()
    body = {name: each.tolist() for name, each in rows.items()}
    status, answer = post(served, "/v1/models/whole:predict", body)
    assert status == 200
    assert_near(answer["kind"], wanted)
    tensors = [
        {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": rows["x"].ravel().tolist()},
        {"name": "words", "datatype": "INT32", "shape": [2, 3], "data": rows["words"].ravel().tolist()},
    ]
    status, answer = post(served, "/v2/models/whole/infer", {"inputs": tensors})
    assert status == 200
    assert_near(np.reshape(answer["outputs"][0]["data"], (2, 3)), wanted)
    status, answer = post(served, "/v1/models/whole:predict", {"x": [[1]], "words": [[1, 2, 3]]})
    assert status == 400 and "x has the shape [1, 1]" in answer["error"]


def test_a_copy_of_the_library_is_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w"):
        pass
    assert gateway_keras.find_model(tmp_path, {}) is None
