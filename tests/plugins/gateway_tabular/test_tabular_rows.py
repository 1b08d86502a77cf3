"""The one input of all models on tables, with a model that answers with the numbers that it is given."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import PATIENT
from gateway_tabular.columns import Column, Columns
from gateway_tabular.model import Contributions, Scores, TabularModel
from hypothesis import given
from hypothesis import strategies as st
from tabular_cases import answers_or_refuses, as_csv, bodies, refusal

from gateway import BadRequest, ConfigError

COLOURS = {"blue": 0.0, "green": 1.0, "red": 2.0}
COLUMNS = Columns([Column("width"), Column("colour", "known", COLOURS), Column("kind", "code")])
UNNAMED = Columns([Column("0"), Column("1")], has_names=False)
NAN = math.nan


class Echo(TabularModel):
    def __init__(self, columns: Columns, **options: Any) -> None:
        super().__init__({"options": options})
        self.given = columns

    def open(self, root: Path) -> None:
        self.columns, self.classes = self.given, self.labels(2)

    def compute(self, table: Any) -> Scores:
        return Scores([list(row) for row in table.tolist()], [[0.25, 0.75] for _ in table])

    def contributions(self, table: Any) -> Contributions:
        return Contributions(table.tolist(), [0.5] * len(table))


def echo(columns: Columns = COLUMNS, **options: Any) -> Echo:
    model = Echo(columns, **options)
    model.load()
    return model


def rows(answer: Any) -> list[list[Any]]:
    return [[None if value != value else value for value in row] for row in answer["predictions"]]


ONE, TWO = [1.5, 2.0, 4.0], [2.0, None, 5.0]
RECORDS = [{"width": 1.5, "colour": "red", "kind": 4}, {"kind": 5, "width": 2, "colour": None}]
LISTS = [[1.5, "red", 4], [2, None, 5]]
SPLIT = {"columns": ["kind", "width", "colour"], "data": [[4, 1.5, "red"], [5, 2, None]], "index": [7, 8]}
TABLE = {"colour": ["red", None], "width": [1.5, 2], "kind": [4, 5]}


@pytest.mark.parametrize("word", ["inputs", "instances", "records", "dataframe_records", ""])
@pytest.mark.parametrize(
    "form", [RECORDS, LISTS, TABLE, [RECORDS[0], RECORDS[1]]], ids=["records", "rows", "columns", "list"]
)
def test_every_form_gives_the_same_rows(form: Any, word: str) -> None:
    assert rows(echo().predict({word: form} if word else form)) == [ONE, TWO]


@pytest.mark.parametrize("word", ["inputs", "dataframe_split", ""])
def test_a_split_of_pandas_is_read_by_its_names(word: str) -> None:
    assert rows(echo().predict({word: SPLIT} if word else SPLIT)) == [ONE, TWO]
    ordered = {"data": LISTS}
    assert rows(echo().predict({word: ordered} if word else ordered)) == [ONE, TWO]


@pytest.mark.parametrize("one", [RECORDS[0], LISTS[0]])
def test_one_row_may_stand_alone(one: Any) -> None:
    assert rows(echo().predict({"inputs": one})) == rows(echo().predict(one)) == [ONE]


def test_pandas_writes_what_is_read() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"kind": [4, 5], "colour": pandas.Categorical(["red", None]), "width": [1.5, 2.0]})
    for orient, word in (("split", "dataframe_split"), ("records", "dataframe_records"), ("list", "inputs")):
        found = frame.astype(object).where(frame.notna(), None).to_dict(orient=orient)
        assert rows(echo().predict({word: found})) == [ONE, TWO], orient


@pytest.mark.parametrize(
    "body",
    [
        b"width,colour,kind\n1.5,red,4\n2,,5\n",
        b"\xef\xbb\xbfkind,colour,width\r\n4,red,1.5\r\n5,NA,2\r\n",
        b"1.5,red,4\n2,null,5",
        b'1.5,"red",4\n\n2, ,5\n',
    ],
)
def test_csv_is_read_with_and_without_names(body: bytes) -> None:
    assert rows(as_csv(echo(), body)) == [ONE, TWO]


def test_the_content_type_may_say_whether_the_first_line_holds_names() -> None:
    model = echo(UNNAMED)
    assert rows(as_csv(model, b"1,2\n3,4")) == [[1, 2], [3, 4]]
    assert rows(as_csv(model, b"a,b\n3,4")) == [[3, 4]]
    assert rows(as_csv(model, b"1,2\n3,4", "text/csv; charset=utf-8; header=present")) == [[3, 4]]
    with pytest.raises(BadRequest, match=r"rows\[0\]\[0\] is a text \('a'\): send a number"):
        as_csv(model, b"a,b\n3,4", "text/csv;header=absent")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body has no line"),
        (b"\xff\xfe", "not CSV in UTF-8"),
        (b'"1,2', "not CSV"),
        (b"1,red\n", r"line 1 of the body has 2 values, but this model takes 3: width, colour, kind"),
        (b"1,red,0\n1,red", "line 2 of the body has 2 values, the first has 3"),
        (b"width,colour\n1,red\n", "the first line of the body lacks kind"),
        (b"width,colour,kind,kind\n1,red,0,0\n", "the first line of the body has kind more than once"),
        (b"width,colour,kind\n", "rows is empty"),
        (b"1_0,red,0\n", r"rows\[0\]\['width'\] is a text \('1_0'\)"),
        (b"1,violet,0\n", r"rows\[0\]\['colour'\] is 'violet', an unknown category"),
    ],
)
def test_csv_that_is_wrong_is_told_where(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        as_csv(echo(), body)


def test_a_body_of_csv_has_no_more_values_than_one_of_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway_tabular.csv_rows.MOST_CELLS", 5)
    assert rows(as_csv(echo(), b"width,colour,kind\n1.5,red,4")) == [ONE]
    with pytest.raises(BadRequest, match="the body has more than 5 values: send several requests"):
        as_csv(echo(), b"width,colour,kind\n1.5,red,4\n1.5,red,4")


def test_a_category_of_csv_may_be_a_number_or_look_like_one() -> None:
    columns = Columns([Column("a", "known", {10: 0.0, 20: 1.0}), Column("b", "known", {"1": 0.0, "NA": 1.0})])
    assert rows(as_csv(echo(columns), b"20,1\n10.0,NA\n,\n")) == [[1, 0], [0, 1], [None, None]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, 'nothing to predict: send {"inputs": [{\'width\': …, …}]} with a value for each of width, colour, kind'),
        ({"input": LISTS}, "nothing to predict (it has input)"),
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": "text"}, "inputs is a text: send"),
        ("text", "the body is a text: send"),
        ({"inputs": LISTS, "instances": LISTS}, "inputs and instances both hold rows: send one of them"),
        ({"inputs": LISTS, "params": {}}, "the field 'params' is not known"),
        ({"inputs": LISTS, "explain": "yes"}, "explain is a text: send true or false"),
        ({"inputs": [LISTS[0], 7]}, "inputs[1] is a number, not a row"),
        ({"inputs": [LISTS[0], [1, "red"]]}, "inputs[1] has 2 values, this model takes 3: width, colour, kind"),
        ({"inputs": [RECORDS[0], {"width": 1}]}, "inputs[1] lacks colour, kind"),
        ({"inputs": [{**RECORDS[0], "depth": 1}]}, "inputs[0] has unknown depth (this model takes 3"),
        ({"inputs": [RECORDS[0], LISTS[0]]}, "inputs[1] is a list, but others are objects"),
        ({"inputs": {**TABLE, "kind": [1]}}, "inputs['kind'] has 1 values, 'colour' has 2"),
        ({"inputs": {**TABLE, "kind": 1}}, "inputs['kind'] is a number, but others are lists"),
        ({"dataframe_split": {"columns": ["width"], "data": [[1]]}}, "columns lacks colour, kind"),
        ({"dataframe_split": {"columns": ["width"] * 3, "data": [[1, 1, 1]]}}, "columns has width more than once"),
        ({"dataframe_split": {"columns": "abc", "data": [[1, 1, 1]]}}, "columns is not a list of names"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1]]}}, "data[0] is not a row of 2 values"),
        ({"inputs": [["x", "red", 0]]}, "inputs[0]['width'] is a text ('x'): send a number, or null"),
        ({"inputs": [[[1], "red", 0]]}, "inputs[0]['width'] is a list: send a number"),
        ({"inputs": [[1, "violet", 0]]}, "is 'violet', an unknown category (this model knows 'blue', 'green', 'red'"),
        ({"inputs": [[1, ["red"], 0]]}, "inputs[0]['colour'] is a list: send one of 'blue', 'green', 'red'"),
        ({"inputs": [[1, 3, 0]]}, "inputs[0]['colour'] is 3, an unknown category"),
        ({"inputs": [[1, "red", 1.5]]}, "inputs[0]['kind'] is a number: send the number of a category"),
        ({"inputs": [[1, "red", -1]]}, "inputs[0]['kind'] is a number: send the number of a category"),
        ({"inputs": [[1, "red", "a"]]}, "inputs[0]['kind'] is a text: send the number of a category"),
        ({"inputs": [[math.inf, "red", 0]]}, "inputs[0]['width'] is infinite"),
        ({"inputs": [[10**400, "red", 0]]}, "inputs[0]['width'] is too large"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_told_where_and_what_to_do(body: Any, message: str) -> None:
    assert message in refusal(echo(), body)


def test_names_are_refused_where_columns_have_none() -> None:
    assert "inputs[0] has names, but this model's columns have none" in refusal(echo(UNNAMED), {"inputs": [{"a": 1}]})


def test_a_message_names_few_of_many_and_repeats_little() -> None:
    columns = Columns([Column(f"column{place}") for place in range(5000)])
    for body in ({"inputs": [{}]}, {"inputs": [{"x" * 9999: 1}]}, {"inputs": [["y" * 9999] * 5000]}):
        assert len(refusal(echo(columns), body)) < 1000


@pytest.mark.parametrize("table", [np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]], dtype=np.float32)])
def test_arrays_are_tables(table: Any) -> None:
    for body in (table, {"inputs": table}, {"inputs": list(table)}, {"dataframe_split": {"data": table}}):
        assert rows(echo(UNNAMED).predict(body)) == [[1, 2], [3, 4]]
    assert rows(echo(UNNAMED).predict({"inputs": table[0]})) == [[1, 2]]
    assert "is an array of shape 2, 1, this model takes 2" in refusal(echo(UNNAMED), {"inputs": table[:, :1]})
    assert "is an array of shape 1, 2, 2" in refusal(echo(UNNAMED), {"inputs": table[None]})
    assert rows(echo().predict({"inputs": np.array([[1.5, "red", 4]], dtype=object)})) == [ONE]


def test_probabilities_and_contributions_have_names_if_asked() -> None:
    model = echo(classes=["no", True])
    plain = model.predict({"inputs": LISTS[:1], "explain": True})
    assert plain == {
        "predictions": [ONE],
        "probabilities": [[0.25, 0.75]],
        "classes": ["no", True],
        "contributions": [ONE],
        "bias": [0.5],
        "columns": ["width", "colour", "kind"],
    }
    assert model.predict({"inputs": LISTS[:1], "explain": True, "by_name": True}) == {
        "predictions": [ONE],
        "probabilities": [{"no": 0.25, "true": 0.75}],
        "contributions": [{"width": 1.5, "colour": 2.0, "kind": 4.0}],
        "bias": [0.5],
    }


def test_requests_of_a_batch_are_computed_together_and_each_has_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = echo(), []
    compute = model.compute
    monkeypatch.setattr(model, "compute", lambda table: sizes.append(len(table)) or compute(table))
    inputs = [{"inputs": LISTS}, {"inputs": []}, RECORDS[0], {"inputs": LISTS, "explain": True}, {"inputs": [["x"]]}]
    inputs.append(model.read_csv(b"width,colour,kind\n1.5,red,4\n", "text/csv"))
    found = model.predict_batch(inputs)
    assert sizes == [4, 2]  # those that ask for no explanation, and the one that does
    for body, answer in zip(inputs, found, strict=True):
        if isinstance(answer, BadRequest):
            with pytest.raises(BadRequest, match=re.escape(answer.message)):
                model.predict(body)
        else:
            alone = model.predict(body)
            assert rows(answer) == rows(alone)
            assert {**answer, "predictions": 0, "contributions": 0} == {**alone, "predictions": 0, "contributions": 0}
    assert [isinstance(each, BadRequest) for each in found] == [False, True, False, False, True, False]


def test_a_batch_of_one_that_the_library_refuses_has_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = echo()
    monkeypatch.setattr(model, "compute", lambda table: 1 / 0)
    (found,) = model.predict_batch([{"inputs": LISTS}])
    assert isinstance(found, BadRequest) and found.message == "the model refused these inputs: division by zero"


@pytest.mark.parametrize("classes", ["ab", ["a"], ["a", "a"], ["1", 1], {}])
def test_labels_are_as_many_as_classes_and_differ(classes: Any) -> None:
    with pytest.raises(ConfigError, match="classes has to be a list of 2 different labels"):
        echo(classes=classes)


@pytest.mark.parametrize("columns", [COLUMNS, UNNAMED], ids=["named", "unnamed"])
def test_the_example_of_the_schema_can_be_sent(columns: Columns) -> None:
    model = echo(columns)
    assert model.input_schema is not None
    assert len(model.predict(model.input_schema["examples"][0])["predictions"]) == 1


def test_a_column_may_be_called_as_a_field() -> None:
    model = echo(Columns([Column("inputs"), Column("data"), Column("explain")]))
    record = {"inputs": 1.0, "data": 2.0, "explain": 3.0}
    assert rows(model.predict(record)) == rows(model.predict({"instances": [record]})) == [[1, 2, 3]]


@pytest.mark.parametrize("columns", [COLUMNS, UNNAMED], ids=["named", "unnamed"])
def test_whatever_a_body_is_it_is_answered_or_refused(columns: Columns) -> None:
    model = echo(columns)

    @PATIENT
    @given(bodies(columns))
    def all_are(body: Any) -> None:
        answers_or_refuses(model, body)

    all_are()


@PATIENT
@given(st.binary(max_size=60) | st.text(alphabet='1a,"\n\r ;_wred.\0', max_size=60).map(str.encode))
def test_whatever_csv_is_it_is_answered_or_refused(body: bytes) -> None:
    for model in (MODEL, PLAIN):
        try:
            as_csv(model, body)
        except BadRequest as error:
            assert error.message


MODEL, PLAIN = echo(), echo(UNNAMED)
