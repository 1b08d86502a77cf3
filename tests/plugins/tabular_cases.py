"""What the tests of all plugins of models on tables share: how a model is served, and bodies of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fakes import PATIENT
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import BadRequest
from gateway.worker.loading.descriptor import describe as inspected

RANDOM = np.random.default_rng(7)
ROWS, WIDTH = 200, 5
TABLE = RANDOM.normal(size=(ROWS, WIDTH)).astype(np.float32)
ODD = TABLE.copy()
ODD[RANDOM.random(ODD.shape) < 0.2] = np.nan
ODD[:4] = [[np.nan] * WIDTH, [0.0, -0.0, 0, 0, 0], [3e38] * WIDTH, [-3e38, 1e-40, 16777217, -1, 1]]
NUMBERS = TABLE[:, 0] + TABLE[:, 1] ** 2
KINDS = RANDOM.integers(0, 3, ROWS)


COLOURS = ["red", "green", "blue"]
FRAME = pd.DataFrame(
    {
        "size": TABLE[:, 0],
        "colour": pd.Categorical(RANDOM.choice([*COLOURS, None], ROWS)),
        "grade": pd.Categorical(RANDOM.choice([10, 20, 30], ROWS)),
        "is new": RANDOM.random(ROWS) < 0.5,
        "count": RANDOM.integers(0, 9, ROWS),
    }
)
LABEL = FRAME["colour"].cat.codes + FRAME["grade"].cat.codes * 2.0 + FRAME["size"]


Serve = Callable[..., Any]


def serving(plugin: Any, model_class: Any, monkeypatch: Any) -> Serve:
    """Return a function that finds a directory as discovery does, checks it, and loads it as a worker does."""

    def serve(directory: Path, **overrides: Any) -> Any:
        spec = plugin.find_model(directory, overrides)
        assert spec is not None, f"{directory} is not recognised"
        assert list(plugin.check_model(spec)) == []
        monkeypatch.chdir(directory)
        model = model_class(spec.config)
        model.load()
        return model

    return serve


def records(frame: Any) -> list[dict[str, Any]]:
    return frame.astype(object).where(frame.notna(), None).to_dict(orient="records")  # type: ignore[no-any-return]


def plain(table: Any) -> list[list[Any]]:
    """A table as JSON has it."""
    return [[None if value != value else value for value in row] for row in table.tolist()]


def as_csv(model: Any, body: bytes, content_type: str = "text/csv") -> Any:
    """Return the answer to a body of CSV, read as the worker reads it."""
    method = inspected(model, frozenset()).methods["predict"]
    return method.function(method.readers[content_type.partition(";")[0]](body, content_type))


def refusal(model: Any, body: Any) -> str:
    """Return the words with which a body is refused."""
    try:
        model.predict(body)
    except BadRequest as error:
        return error.message
    raise AssertionError(f"{body} was answered")


ANY_NUMBER = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.sampled_from([0, -0.0, 1e38, 1e39, 5e-324, 2**24 + 1, 2**63, -1]),
)


def bodies(columns: Any) -> st.SearchStrategy[Any]:
    """Bodies that are nearly right, and any JSON."""
    known = [value for _, column in columns.coded for value in column.codes or (0, 1, "a")]
    cells = st.one_of(ANY_NUMBER, st.sampled_from([*known, "", "violet", "1", "nan"]), st.text(max_size=5))
    names = st.sampled_from([*columns.names[:40], "inputs", "data", "columns", "other", ""])
    anything = st.recursive(
        cells, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4)
    )
    rows = st.lists(cells, min_size=columns.width, max_size=columns.width)
    records = st.fixed_dictionaries(dict.fromkeys(columns.names, cells))
    many = st.lists(rows, max_size=3) | st.lists(records, max_size=3) | rows | records | anything
    split = st.fixed_dictionaries({"columns": st.permutations(columns.names) | anything, "data": many})
    words = ("inputs", "instances", "dataframe_records", "records", "dataframe_split")
    flags = st.booleans() | st.none() | anything
    return st.one_of(
        many,
        st.dictionaries(st.sampled_from(words), many | split, min_size=1, max_size=2),
        st.builds(
            lambda word, value, more: {word: value, **more},
            st.sampled_from(words),
            many | split,
            st.fixed_dictionaries({}, optional={"explain": flags, "by_name": flags}),
        ),
        split,
        st.dictionaries(st.sampled_from(columns.names), st.lists(cells, min_size=2, max_size=2)),
        anything,
    )


def answers_or_refuses(model: Any, body: Any) -> None:
    """Whatever a body is, it is answered in JSON or refused as a bad request: no other exception, and no end."""
    try:
        answer = model.predict(body)
    except BadRequest as error:
        assert 0 < len(error.message) < 2000
    else:
        assert len(answer["predictions"]) > 0
        json.dumps(answer)


def answers_or_refuses_all(model: Any, count: int) -> None:
    """So it is with so many bodies."""

    @settings(PATIENT, max_examples=count)
    @given(bodies(model.columns))
    def all_are(body: Any) -> None:
        answers_or_refuses(model, body)

    all_are()
