"""Which paths there are, which model they mean, and what they say of its readiness and health."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import msgpack
import pytest

from .trusses import BINARY, JSON, Trusses

# Says what stands in a file, and counts how often it was asked.
HEALTH = """
import pathlib
SHARED = pathlib.Path("../../shared")

class Model:
    asked = 0

    def is_healthy(self):
        self.asked += 1
        text = (SHARED / "health").read_text() if (SHARED / "health").exists() else "True"
        if text == "raise":
            raise RuntimeError("sick")
        return eval(text)

    def predict(self, x):
        return ["main", x, self.asked]
"""
ASYNC_HEALTH = HEALTH.replace("def is_healthy", "async def is_healthy")
OTHER = "class Model:\n    def predict(self, x):\n        return ['other', x]\n"
# Healthy only when it is loaded, which the check must not be asked before.
EARLY = """
class Model:
    early = False
    loaded = False

    def is_healthy(self):
        self.early = self.early or not self.loaded
        return self.loaded

    def load(self):
        self.loaded = True

    def predict(self, x):
        return self.early
"""
TRUSSES = {
    "main": {"config.yaml": "", "model/model.py": HEALTH},
    "async-main": {"config.yaml": "", "model/model.py": ASYNC_HEALTH},
    "other": {"config.yaml": "model_name: The Other\n", "model/model.py": OTHER},
    "early": {"config.yaml": "", "model/model.py": EARLY},
    "org/nested": {"config.yaml": "", "model/model.py": OTHER},
}
SETTINGS = '[gateway]\ndefault_model = "main"\n[gateway.aliases]\nnick = "other"\n'


@pytest.fixture
def says(truss: Trusses) -> Iterator[Callable[[str], int]]:
    """A function that sets what `is_healthy` returns; it is healthy again after the test."""
    yield truss.file("health").write_text
    truss.file("health").unlink(missing_ok=True)


# ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/other:predict",
        "/v1/models/other:predict_binary",
        "/v1/models/other%3Apredict",
        "/models/other/predict",
        "/models/other/invocations",
        "/models/other/v1/models/model:predict",
        "/v1/models/nick:predict",
        "/v1/models/org/nested:predict",
        "/v1/models/org%2Fnested:predict",
        "/models/org/nested/predict",
    ],
)
def test_every_spelling_of_predict_reaches_the_model_that_the_url_names(truss: Trusses, path: str) -> None:
    assert truss.ask("POST", path, b'{"model": "main"}').short == (200, JSON, b'["other", {"model": "main"}]')


@pytest.mark.parametrize("name", ["other", "org/nested"])
def test_a_base_url_of_one_model_has_its_ping(truss: Trusses, name: str) -> None:
    assert truss.get(f"/models/{name}/ping").short == (200, JSON, b"{}")
    assert truss.get("/models/none/ping").error[:2] == (404, "600")


@pytest.mark.parametrize("path", ["/v1/models/model:predict", "/v1/models/model:predict_binary", "/invocations"])
def test_the_name_model_and_invocations_mean_the_default_model(truss: Trusses, path: str) -> None:
    answer = truss.ask("POST", path, b"1")
    assert (answer.status, json.loads(answer.body)[:2]) == (200, ["main", 1])
    binary = truss.ask("POST", path, msgpack.packb(1), {"content-type": BINARY})
    assert (binary.content_type, msgpack.unpackb(binary.body)[:2]) == (BINARY, ["main", 1])


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/invocations", "POST"),
        ("GET", "/models/other/predict", "POST"),
        ("PUT", "/v1/models/other:predict", "POST"),
        ("POST", "/v1/models/other/loaded", "GET, HEAD"),
        ("POST", "/v1/models/other", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_is_right(truss: Trusses, method: str, path: str, allow: str) -> None:
    answer = truss.ask(method, path, b"1" if method != "GET" else None)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/nothing", "/models/other/nothing", "/predict", "/async_predict"])
def test_a_path_that_truss_has_not_either_is_404(truss: Trusses, path: str) -> None:
    answer = truss.ask("POST", path, b"1")
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "unknown_url")


def test_metrics_are_at_trusss_address_too(truss: Trusses) -> None:
    answer = truss.get("/metrics/")
    assert (answer.status, answer.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"gateway_build_info" in answer.body


# ── liveness, readiness, health ──────────────────────────────────────────────────────────────────────────────────────


def test_the_root_is_true_whatever_the_models_are(truss: Trusses) -> None:
    assert truss.get("/").short == (200, JSON, b"true")


@pytest.mark.parametrize("name", ["main", "other", "model", "nick", "org/nested"])
def test_a_ready_model_is_loaded(truss: Trusses, name: str) -> None:
    assert truss.get(f"/v1/models/{name}/loaded").short == (200, JSON, b"{}")


@pytest.mark.parametrize("name", ["other", "nick", "main", "model"])
def test_readiness_of_a_ready_model_is_200_with_the_model_object(truss: Trusses, name: str) -> None:
    answer = truss.get(f"/v1/models/{name}")
    assert (answer.status, answer.content_type) == (200, JSON)
    found = json.loads(answer.body)
    assert found["id"] == {"nick": "other", "model": "main"}.get(name, name)
    assert (found["object"], found["status"]) == ("model", "ready")
    if found["id"] == "other":
        assert found["display_name"] == "The Other"


@pytest.mark.parametrize("model", ["main", "async-main"])
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("True", 200),
        ("'yes'", 200),
        ("34", 200),
        ("None", 200),
        ("False", 503),
        ("''", 503),
        ("0", 503),
        ("{}", 503),
        ("raise", 503),
    ],
)
def test_readiness_is_what_is_healthy_says(
    truss: Trusses, says: Callable[[str], int], model: str, answer: str, status: int
) -> None:
    says(answer)
    found = truss.get(f"/v1/models/{model}")
    assert found.status == status
    if status == 503:
        assert json.loads(found.body)["error"]["code"] == "model_unavailable"
        assert found.headers["x-baseten-error-source"] == "04"
        assert found.headers["x-baseten-error-code"] == "600"


def test_an_unhealthy_model_is_loaded_and_serves(truss: Trusses, says: Callable[[str], int]) -> None:
    says("False")
    assert truss.get("/v1/models/main").status == 503
    assert truss.get("/v1/models/main/loaded").short == (200, JSON, b"{}")
    assert truss.call("main", 1)[:2] == ["main", 1]
    truss.gateway.wait_for(r"main \| Health check failed\.")


def test_ping_is_loaded_of_the_default_model_and_asks_no_health_check(
    truss: Trusses, says: Callable[[str], int]
) -> None:
    says("False")
    asked = truss.call("main", 1)[2]
    assert truss.get("/ping").short == (200, JSON, b"{}")
    assert truss.get("/v1/models/main/loaded").status == 200
    assert truss.call("main", 1)[2] == asked


def test_is_healthy_is_not_called_before_the_model_is_loaded(truss: Trusses) -> None:
    assert truss.get("/v1/models/early").status == 200
    assert truss.call("early", None) is False
