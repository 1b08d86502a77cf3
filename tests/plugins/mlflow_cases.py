"""Directories as MLflow 3.17 writes them, and what its clients send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tabular_cases import TABLE, plain

NAMES = ["a", "b", "c", "d", "e"]
FRAME = pd.DataFrame(TABLE, columns=NAMES)


def mlmodel(place: Path, flavor: str, about: dict[str, Any], *, signature: bool = True) -> Path:
    """Write the MLmodel and the files beside a model as MLflow 3.17 does."""
    columns = [{"type": "double", "name": name, "required": True} for name in NAMES]
    document: dict[str, Any] = {
        "artifact_path": "model",
        "flavors": {
            "python_function": {
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": f"mlflow.{flavor}",
                "python_version": "3.11.7",
            },
            flavor: {"code": None, **about},
        },
        "mlflow_version": "3.17.2",
        "model_uuid": "0a1b",
        "utc_time_created": "2026-11-28 12:00:00.000000",
    }
    if signature:
        document["signature"] = {"inputs": json.dumps(columns), "outputs": None, "params": None}
    (place / "MLmodel").write_text(yaml.safe_dump(document))
    for name in ("conda.yaml", "python_env.yaml", "requirements.txt"):
        (place / name).write_text("mlflow\n")
    return place


def bodies() -> list[Any]:
    """The forms that clients of MLflow send."""
    rows = plain(TABLE)
    split = {"columns": NAMES[::-1], "data": [row[::-1] for row in rows]}
    named = [dict(zip(NAMES, row, strict=True)) for row in rows]
    return [{"dataframe_split": split}, {"dataframe_records": named}, {"instances": rows}, {"inputs": rows}]
