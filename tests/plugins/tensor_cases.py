"""Bodies for models that take tensors by name: what JSON may hold, and how each has to be answered."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from gateway import BadRequest
from gateway.worker.bodies.truss import document

CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.sampled_from(
        [0, -0.0, 1e38, 1e39, 2**31, 2**63, -(2**63), -(2**63) - 1, 2**64, 65504, "", "1", "nan", "\ud800"]
    ),
    st.text(max_size=4),
)
NAMES = ["f", "i", "u", "h", "b", "s", "l", "o"]


def nested(cells: Any) -> Any:
    lists = st.lists(cells, max_size=3)
    return cells | lists | st.lists(lists, max_size=3) | st.lists(st.lists(lists, max_size=2), max_size=2)


ANYTHING = st.recursive(
    CELLS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*NAMES, "x"]), inner, max_size=4),
)


def answers_or_refuses(model: Any, body: Any) -> None:
    try:
        answer = model.predict(body)
    except BadRequest as error:
        assert 0 < len(error.message) < 2000
        error.message.encode()
    else:
        document(answer)
