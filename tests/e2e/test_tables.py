"""Models of tables behind the real command: every content type, decisions by the official SDK, and MLflow's routes."""

from __future__ import annotations

import io
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import openai
import pytest
import yaml
from closeness import assert_near
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gateway.testing import Gateway

WINE = Path(__file__).parents[2] / "models" / "wine"
TABLE, KINDS = load_wine(return_X_y=True, as_frame=True)
NAMES = np.array(["Barolo", "Grignolino", "Barbera"])
COLUMNS = [str(name).replace("/", " or ") for name in TABLE]


@pytest.fixture(scope="module")
def estimator() -> Any:
    table = TABLE.set_axis(COLUMNS, axis=1)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(table, NAMES[KINDS])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, estimator: Any) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("tables")
    shutil.copytree(WINE, root / "models" / "boosted")
    run = root / "models" / "run"
    run.mkdir()
    joblib.dump(estimator, run / "model.pkl")
    flavors = {"python_function": {}, "sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}}
    signature = {"inputs": json.dumps([{"type": "double", "name": name} for name in COLUMNS])}
    (run / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, "signature": signature}))
    (root / "gateway.toml").write_text("[models.run]\nallow_pickle = true\n")
    with Gateway(root / "models", cwd=root) as gateway:
        yield gateway


def post(gateway: Gateway, path: str, body: Any, kind: str = "application/json") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(gateway.url + path, data, {"content-type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("path", ["/models/run/invocations", "/models/run/predict", "/v1/models/run:predict"])
def test_a_run_of_mlflow_answers_its_clients(path: str, gateway: Gateway, estimator: Any) -> None:
    table = TABLE.set_axis(COLUMNS, axis=1)
    wanted = estimator.predict(table).tolist()
    split = {"columns": COLUMNS, "data": table.to_numpy().tolist()}
    for body in (
        {"dataframe_split": split},
        {"dataframe_records": table.to_dict("records")},
        {"inputs": split["data"]},
    ):
        status, answer = post(gateway, path, body)
        assert (status, answer["predictions"]) == (200, wanted)
        assert_near(answer["probabilities"], estimator.predict_proba(table), 1e-9)
    status, answer = post(gateway, path, table.to_csv(index=False).encode(), "text/csv")
    assert (status, answer["predictions"]) == (200, wanted)


def test_arrow_is_one_more_content_type(gateway: Gateway, estimator: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    table = TABLE.set_axis(COLUMNS, axis=1)
    written = pa.Table.from_pandas(table)
    body = io.BytesIO()
    with pa.ipc.new_stream(body, written.schema) as writer:
        writer.write_table(written)
    kind = "application/vnd.apache.arrow.stream"
    status, answer = post(gateway, "/models/run/predict", body.getvalue(), kind)
    assert (status, answer["predictions"]) == (200, estimator.predict(table).tolist())
    status, answer = post(gateway, "/models/boosted/predict", body.getvalue()[:-9], kind)
    assert status == 400 and "Arrow IPC" in str(answer)


@pytest.mark.parametrize("model", ["run", "boosted"])
def test_the_official_client_asks_about_a_row(model: str, gateway: Gateway) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="unused")
    text = ",".join(map(str, TABLE.iloc[0].tolist()))
    decision = client.decisions.create(
        model=model,
        input=text,
        questions=[
            {"type": "choice", "instructions": "Which?", "choices": [{"value": str(name)} for name in NAMES]},
            {"type": "predicate", "instructions": "Barolo", "name": "is it"},
            {"type": "score", "instructions": "?", "levels": [{"label": "Grignolino"}, {"label": "barolo"}]},
        ],
    )
    choice, statement, score = (answer.to_dict() for answer in decision.answers)
    status, answer = post(gateway, f"/models/{model}/predict", {"inputs": TABLE.iloc[0].tolist()})
    known = dict(zip(answer["classes"], answer["probabilities"][0], strict=True))
    assert status == 200 and choice["choice"] == answer["predictions"][0] == "Barolo"
    assert_near([each["probability"] for each in choice["probabilities"]], [known[name] for name in NAMES], 1e-6)
    assert_near(choice["confidence"], known["Barolo"], 1e-6)
    assert statement["name"] == "is it" and score["score"] > 0.5
    assert_near(statement["probability"], known["Barolo"], 1e-6)


def test_a_question_about_another_class_is_the_clients_fault(gateway: Gateway) -> None:
    body = {"model": "boosted", "input": "1,2", "questions": [{"type": "predicate", "instructions": "x"}]}
    status, answer = post(gateway, "/v1/decisions", body)
    assert (status, answer["error"]["param"]) == (400, "input")
    body["input"] = ",".join(map(str, TABLE.iloc[0].tolist()))
    status, answer = post(gateway, "/v1/decisions", body)
    assert (status, answer["error"]["param"]) == (400, "questions[0].instructions")
    assert "have: Barolo, Grignolino, Barbera" in answer["error"]["message"]


def test_what_has_probabilities_is_listed_for_decisions(gateway: Gateway) -> None:
    with urllib.request.urlopen(f"{gateway.url}/v1/models/run", timeout=60) as answer:
        assert "decide" in json.dumps(json.load(answer))
