"""Metrics that models register themselves come out of the gateway's scrape, labelled by model."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from gateway.testing import Gateway

COUNTING = """
from prometheus_client import Counter
CALLS = Counter("my_calls", "How often.", ["kind"])
class Model:
    def predict(self, x):
        CALLS.labels("good").inc()
        return x
"""


def test_what_models_register_is_scraped_with_their_names(serve: Callable[..., Gateway]) -> None:
    plain = "class Model:\n    def predict(self, x):\n        return x\n"
    gateway = serve({"a": {"model.py": COUNTING}, "b": {"model.py": COUNTING}, "plain": {"model.py": plain}})
    for name in ("a", "a", "b", "plain"):
        request = urllib.request.Request(f"{gateway.url}/models/{name}/predict", data=b"1", method="POST")
        urllib.request.urlopen(request, timeout=20).close()
    with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=20) as response:
        families = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    counts = {
        sample.labels["model"]: sample.value
        for sample in families["my_calls"].samples
        if sample.name == "my_calls_total" and sample.labels["kind"] == "good"
    }
    assert counts == {"a": 2.0, "b": 1.0}
    assert not [name for name in families if name.startswith(("python_", "process_"))]
    memory = {sample.labels["model"]: sample.value for sample in families["gateway_model_memory_bytes"].samples}
    assert all(memory[name] > 1e6 for name in ("a", "b", "plain"))
    assert {sample.labels["result"] for sample in families["gateway_model_loads"].samples} == {"ok"}
