"""Text formats: parsing the rows of a text, and writing the text with predictions in the right places."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from runner.common.errors import HydromelError
from runner.text.formats.base import PassagePredictions, TextFormat
from runner.text.formats.columns import Columns, LineKinds
from runner.text.formats.conllu import ConlluColumns
from runner.text.formats.delimited import Delimited
from runner.text.formats.lines import JsonLines, Lines
from runner.text.formats.reader import Passage
from runner.text.formats.records import Records


def passage(text: str) -> Passage:
    return Passage("x", 11, text.split("\n"))


def answered(wanted: TextFormat, text: str, *columns: str, probable: bool = False, label: bool = False) -> list[str]:
    """Write the text with upper-case tokens as tags (or their number as label) and the probability 0.25."""
    parsed = wanted.parse(passage(text), ["tokens", *columns])
    rows = parsed.table["tokens"].to_pylist()
    strings = pa.array([str(len(row)) for row in rows] if label else [[token.upper() for token in row] for row in rows])
    number = pa.array([0.25] * len(rows) if label else [[0.25] * len(row) for row in rows])
    if not len(rows) and not label:
        strings, number = (pa.array([], pa.list_(kind)) for kind in (pa.string(), pa.float32()))
    return wanted.write(
        passage(text), parsed, PassagePredictions("label" if label else "tags", strings, number if probable else None)
    )


def test_lines() -> None:
    text = "a  b\u00a0c \n\n \n\tb"
    assert answered(Lines(), text) == ["A B C", "", "", "B"]
    assert answered(Lines(), text, label=True) == ["3", "", "", "1"]
    assert answered(Lines(), text, probable=True) == ["A B C\t0.2500 0.2500 0.2500", "", "", "B\t0.2500"]
    assert answered(Lines(), text, label=True, probable=True) == ["3\t0.2500", "", "", "1\t0.2500"]
    assert answered(Lines(), "\n") == ["", ""]
    with pytest.raises(HydromelError, match="'pos'"):
        Lines().check(["tokens", "pos"], "tags")


def test_labels_in_text_are_no_words() -> None:
    text = "__label__a __label__b x y\nx\u00a0__label__c\n__label__a\nx__label__y z"
    parsed = Lines(label_mark="__label__").parse(first(text), ["tokens"])
    assert parsed.table["tokens"].to_pylist() == [["x", "y"], ["x"], ["x__label__y", "z"]]
    assert parsed.places.tolist() == [0, 1, 3]


def test_white_space_in_predictions_breaks_no_line() -> None:
    labels = labelled(["a\nb", "c d\t\u2028\\"])
    assert Lines().write(first("x\ny"), Lines().parse(first("x\ny"), ["tokens"]), labels) == ["a\\nb", "c d\\t\u2028\\"]
    tags = PassagePredictions("tags", pa.array([["a b", "c\td"]]), None)
    assert Lines().write(first("x y"), Lines().parse(first("x y"), ["tokens"]), tags) == ["a\\x20b c\\td"]
    for separator, written in (("space", ["x a\\x20b", "y c\\td"]), ("tab", ["x\ta b", "y\tc\\td"])):
        wanted = Columns(separator, {"tokens": 0})
        assert wanted.write(first("x\ny"), wanted.parse(first("x\ny"), ["tokens"]), tags) == written


def test_columns() -> None:
    text = "# c d\n-DOCSTART- x\n\na  N\n#b N\nb N \n \nc N\n\n"
    wanted = Columns("space", {"tokens": 0, "pos": -1}, comment_prefix="#", docstart="-DOCSTART-")
    parsed = wanted.parse(passage(text), ["tokens", "pos"])
    assert parsed.table.to_pydict() == {"tokens": [["a", "#b", "b"], ["c"]], "pos": [["N", "N", "N"], ["N"]]}
    assert "\n".join(answered(wanted, text, "pos")) == ("# c d\n-DOCSTART- x\n\na  N A\n#b N #B\nb N  B\n \nc N C\n\n")
    assert answered(Columns("tab", {"tokens": 0}), "a", probable=True) == ["a\tA\t0.2500"]
    assert answered(Columns("tab", {"tokens": 0}), "\n\n") == ["", "", ""]
    lines = [" \t", "-DOCSTART- x", "# c", "a N", "\u00a0", "", "b N"]
    assert list(wanted.groups(lines, "x")) == [[" \t"], ["-DOCSTART- x"], ["# c", "a N", "\u00a0", ""], ["b N"]]


def first(text: str) -> Passage:
    return Passage("x", 1, text.split("\n"))


def labelled(labels: list[str], probability: float | None = None) -> PassagePredictions:
    numbers = None if probability is None else pa.array([probability] * len(labels))
    return PassagePredictions("label", pa.array(labels, pa.string()), numbers)


def test_delimited_records_may_span_lines_and_keep_their_form() -> None:
    text = 'id,"te""xt",more\n1,"a,\nb ""c""", d\n\n2,,"e"'
    wanted = Delimited(",", True, None, True, {"tokens": ['te"xt', 2]})
    assert list(wanted.groups(text.split("\n"), "x")) == [
        ['id,"te""xt",more'],
        ['1,"a,', 'b ""c""", d'],
        [""],
        ['2,,"e"'],
    ]
    parsed = wanted.parse(first(text), ["tokens"])
    assert parsed.table["tokens"].to_pylist() == [["a,", "b", '"c"', "d"], ["e"]]
    written = wanted.write(first(text), parsed, labelled(["x,y", 'two\nlines "'], 0.25))
    assert written[0] == 'id,"te""xt",more,label,label_probability'
    assert written[1:3] == ['1,"a,', 'b ""c""", d,"x,y",0.25']
    rows = list(csv.reader(f"{line}\n" for line in "\n".join(written).split("\n")))
    assert [row[3:] for row in rows] == [["label", "label_probability"], ["x,y", "0.25"], [], ['two\nlines "', "0.25"]]
    later = wanted.parse(passage("3,f,"), ["tokens"])  # a later passage has no header
    assert later.table["tokens"].to_pylist() == [["f"]]
    assert wanted.write(passage("3,f,"), later, labelled(["z"])) == ["3,f,,z"]


def test_delimited_text_without_header_or_quotes() -> None:
    wanted = Delimited("\t", False, None, False, {"tokens": [-1]})
    parsed = wanted.parse(first('1\t"a b\n2\t'), ["tokens"])
    assert parsed.table["tokens"].to_pylist() == [['"a', "b"], []]
    assert wanted.write(first('1\t"a b\n2\t'), parsed, labelled(["x", '"'])) == ['1\t"a b\tx', '2\t\t"']
    with pytest.raises(HydromelError, match=r"x:1: a prediction contains .* or a line end.*--to jsonl"):
        wanted.write(first("1\ta"), wanted.parse(first("1\ta"), ["tokens"]), labelled(["x\ty"]))
    escaped = Delimited(",", False, "\\", False, {"tokens": [0]})
    parsed = escaped.parse(first("a\\,b,c"), ["tokens"])
    assert parsed.table["tokens"].to_pylist() == [["a,b"]]
    assert escaped.write(first("a\\,b,c"), parsed, labelled(["x,y"])) == ["a\\,b,c,x\\,y"]


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        (
            "text,label\na",
            "text",
            "x:2: 1 columns; the first record has 2; for plain lines of text give --format lines",
        ),
        (
            "txt\na",
            "text",
            "x: the header, 'txt', has no column 'text'; --columns tokens=txt names that of the text;",
        ),
        ("so good\na", "text", "the header, 'so good', has no column .*; for plain lines of text give --format lines"),
        (
            "text,label,predicted_label\na,b,c",
            "text",
            "x:1: there is a column 'predicted_label' already; use --field NAME",
        ),
        ("a,b\nc,d", 2, "x:1: there is no column 2; records have 2 columns.*; for plain lines of text give --format"),
        ('text\na\n"b', "text", "x:3: unexpected end of data; close the quotes"),
        ('text\n"a"b', "text", "x:2: ',' expected after '\"'; close the quotes"),
    ],
)
def test_a_mistake_in_delimited_text(text: str, column: str | int, expected: str) -> None:
    wanted = Delimited(",", True, None, True, {"tokens": [column]})

    def answer() -> None:
        list(wanted.groups(text.split("\n"), "x"))
        parsed = wanted.parse(first(text), ["tokens"])
        wanted.write(first(text), parsed, labelled(["x"] * parsed.table.num_rows))

    with pytest.raises(HydromelError, match=expected):
        answer()


def test_files_with_labels_keep_them_beside_the_predictions() -> None:
    wanted = Delimited(",", True, None, True, {"tokens": ["text"]})
    parsed = wanted.parse(first("text,label\na,b"), ["tokens"])
    written = wanted.write(first("text,label\na,b"), parsed, labelled(["x"], 0.25))
    assert written == ["text,label,predicted_label,predicted_label_probability", "a,b,x,0.25"]
    objects = JsonLines("tokens", "text")
    for number in (1, 2):  # passages of one text
        line = f'{{"text": "a", "label": {number}}}'
        assert answered(objects, line, label=True) == [f'{line[:-1]}, "predicted_label": "1"}}']
    wanted = replace(wanted, added="label")
    with pytest.raises(HydromelError, match="there is a column 'label' already; use --field NAME"):
        wanted.write(first("text,label\na,b"), wanted.parse(first("text,label\na,b"), ["tokens"]), labelled(["x"]))


def test_one_record_per_row_whatever_the_input() -> None:
    text = "a\tO\nb\tO\n\nc,\tO\n"
    wanted = Columns("tab", {"tokens": 0})
    parsed = wanted.parse(first(text), ["tokens"])
    tags = pa.array([["B-X", "I-X"], ["O"]], pa.list_(pa.string()))
    predictions = PassagePredictions("tags", tags, pa.array([[0.5, 0.25], [1.0]]))
    objects = [json.loads(line) for line in Records("jsonl").write(parsed.table, predictions)]
    assert objects == [
        {"tokens": ["a", "b"], "tags": ["B-X", "I-X"], "tags_probability": [0.5, 0.25]},
        {"tokens": ["c,"], "tags": ["O"], "tags_probability": [1.0]},
    ]
    rows = list(csv.reader(Records("csv", "found").write(parsed.table, predictions)))
    assert rows == [
        ["text", "found", "found_probability"],
        ["a b", '["B-X", "I-X"]', "[0.5, 0.25]"],
        ["c,", '["O"]', "[1.0]"],
    ]
    records, array = Records("csv"), Records("json")
    assert [len(records.write(parsed.table, predictions)) for _ in range(2)] == [3, 2]  # no second header
    lines = [*array.write(parsed.table, predictions), *array.write(parsed.table, predictions), *array.end()]
    assert json.loads("\n".join(lines)) == objects * 2
    assert Records("json").end() == ["[]"]


def test_records_of_pairs_have_both_texts() -> None:
    text = "id,p,h\n1,a  b,c"
    wanted = Delimited(",", True, None, True, {"tokens": ["p"], "tokens_b": ["h"]})
    wanted.check(["tokens", "tokens_b"], "label")
    parsed = wanted.parse(first(text), ["tokens", "tokens_b"])
    assert parsed.table.to_pylist() == [{"tokens": ["a", "b"], "tokens_b": ["c"]}]
    assert Records("csv").write(parsed.table, labelled(["x"])) == ["text,text_b,label", "a b,c,x"]
    (line,) = Records("jsonl").write(parsed.table, labelled(["x"]))
    assert json.loads(line) == {"tokens": ["a", "b"], "tokens_b": ["c"], "label": "x"}


def test_sets_of_labels() -> None:
    sets = pa.array([["a\tb", "c"], []], pa.list_(pa.string()))
    number = pa.array([[0.75, 0.5], [0.25, 0.125]])
    predictions = PassagePredictions("labels", sets, number, ("a\tb", "c"))
    parsed = Lines().parse(first("x\ny"), ["tokens"])
    assert Lines().write(first("x\ny"), parsed, predictions) == ["a\\tb\t0.7500\tc\t0.5000", ""]
    rows = list(csv.reader(Records("csv").write(parsed.table, predictions)))
    assert [json.loads(row[1]) for row in rows[1:]] == [["a\tb", "c"], []]
    assert [json.loads(row[2]) for row in rows[1:]] == [{"a\tb": 0.75, "c": 0.5}, {"a\tb": 0.25, "c": 0.125}]


@pytest.mark.parametrize(
    ("lines", "separator", "tokens"),
    [
        (["# id 1", "a\tX", "#b\tY", "# c\tY", "", "#d\tX"], "tab", [1, 2, 3, 5]),
        (["#b\tY", "", "# id 1", "#c\tX"], "tab", [0, 3]),  # no other line says how many columns there are
        (["# id = 1", "a X", "#b Y", "", "#", "#c X"], "space", [1, 2, 5]),
        (["# a comment", "#b", "c", "", "# d e"], "tab", [1, 2]),  # a column of tokens only
        (["a\tX", "# within a sentence"], "tab", [0, 1]),  # refused, since it has not two columns
        (["# only", "#"], "tab", []),
    ],
)
def test_a_comment_never_takes_a_line_with_the_columns_of_a_token(
    lines: list[str], separator: Any, tokens: list[int]
) -> None:
    kinds = LineKinds.of(pa.array(lines), separator, "#", None, None)
    assert np.flatnonzero(kinds.tokens).tolist() == tokens


def test_the_columns_of_earlier_passages_tell_tokens_from_comments() -> None:
    wanted = Columns("space", {"tokens": 0}, comment_prefix="#")
    wanted.parse(passage("a b"), ["tokens"])
    assert wanted.parse(passage("#a b\n\n# c d"), ["tokens"]).table["tokens"].to_pylist() == [["#a"]]


def test_white_space_around_columns_and_line_ends_are_no_part_of_them() -> None:
    wanted = Columns("tab", {"tokens": 0, "pos": 1})
    parsed = wanted.parse(passage("a \tN \r\nb\t N"), ["tokens", "pos"])
    assert parsed.table.to_pydict() == {"tokens": [["a", "b"]], "pos": [["N", "N"]]}


def test_lines_that_hold_no_token_get_no_tag() -> None:
    wanted = Columns("tab", {"tokens": 1}, comment_prefix="#", other=r"[0-9]+[-.][0-9]+\t")
    text = "# text\n1-2\tab\n1\ta\n2\tb\n2.1\tc"
    assert answered(wanted, text) == ["# text", "1-2\tab\t_", "1\ta\tA", "2\tb\tB", "2.1\tc\t_"]
    assert answered(wanted, text, probable=True)[1] == "1-2\tab\t_\t_"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\tc\nd\te", "x:12: 2 tab-separated columns; earlier lines have 3"),
        ("a", "x:11: 1 tab-separated columns, but pos is column 1"),
        ("\na\tb\n\tc", r"x:13: column 0 \(tokens\) is empty"),
    ],
)
def test_malformed_columns(text: str, expected: str) -> None:
    with pytest.raises(HydromelError, match=expected):
        Columns("tab", {"tokens": 0, "pos": 1}).parse(passage(text), ["tokens", "pos"])


def test_lines_of_tokens_are_no_columns() -> None:
    """A single column is valid, even if a few tokens contain spaces."""
    for text in ("the cat sat\n\non mats", "cat NOUN\nsat VERB"):
        with pytest.raises(
            HydromelError, match=r"x:11: the line has spaces but no tab; use --format lines .* --separator space"
        ):
            Columns("tab", {"tokens": 0}).parse(passage(text), ["tokens"])
    parsed = Columns("tab", {"tokens": 0}).parse(passage("10 000\ncats\n\nsat "), ["tokens"])
    assert parsed.table["tokens"].to_pylist() == [["10 000", "cats"], ["sat"]]


def test_columns_are_as_many_in_every_passage() -> None:
    wanted = Columns("tab", {"tokens": 0})
    wanted.parse(passage("a\tb"), ["tokens"])
    with pytest.raises(HydromelError, match="earlier lines have 2"):
        wanted.parse(passage("a"), ["tokens"])


def test_columns_have_no_room_for_labels_nor_unnamed_columns() -> None:
    with pytest.raises(HydromelError, match="one label per row"):
        Columns("tab", {"tokens": 0}).check(["tokens"], "label")
    with pytest.raises(HydromelError, match="'pos'"):
        Columns("tab", {"tokens": 0}).check(["tokens", "pos"], "tags")


def test_json_objects_stay_as_they_stand() -> None:
    text = '{"id": 1.50, "tokens": ["a", "b\\u00e9"]} \n\n{"text":"a  b","z":[]}\n{"text": ""}\n {"tokens":[] }'
    lines = answered(JsonLines("tokens", "text"), text, probable=True)
    assert lines == [
        '{"id": 1.50, "tokens": ["a", "b\\u00e9"], "tags": ["A", "BÉ"], "tags_probability": [0.25, 0.25]}',
        "",
        '{"text":"a  b","z":[], "tags": ["A", "B"], "tags_probability": [0.25, 0.25]}',
        '{"text": "", "tags": [], "tags_probability": []}',
        ' {"tokens":[], "tags": [], "tags_probability": []}',
    ]
    assert all(json.loads(line) for line in lines if line)
    assert answered(JsonLines("tokens", "text", "said"), '{"text": "a"}', label=True) == ['{"text": "a", "said": "1"}']


def test_json_has_further_columns() -> None:
    parsed = JsonLines("tokens", None).parse(passage('{"tokens": ["a"], "pos": ["N"]}'), ["tokens", "pos"])
    assert parsed.table.to_pydict() == {"tokens": [["a"]], "pos": [["N"]]}
    with pytest.raises(HydromelError, match="x:11: no field pos; the object's fields: tokens"):
        JsonLines("tokens", None).parse(passage('{"tokens": ["a"]}'), ["tokens", "pos"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("so good", "not JSON (Expecting value at column 1); for plain lines of text give --format lines"),
        ("[1]", "got [1]; each line must hold one JSON object"),
        ("[" * 100_000, "nested too deep"),
        ('{"token": []}', "the object's fields: token; --columns tokens=token names that of the text"),
        ('{"a": 1, "b": "x"}', "no field tokens or text; the object's fields: a, b; --columns tokens=NAME names"),
        ('{"tokens": "a b"}', "field 'tokens' is 'a b'; expected a list of strings"),
        ('{"tokens": ["a", 1]}', "expected a list of strings"),
        ('{"text": 3}', "field 'text' is 3; expected a string"),
        ('{"text": "\\ud800"}', "an unpaired surrogate"),
        ('{"tokens": ["a"], "tags": 1}', "already has a field 'tags'; use --field NAME"),
    ],
)
def test_malformed_json(line: str, expected: str) -> None:
    with pytest.raises(HydromelError, match=r"^x:12: ") as error:
        answered(JsonLines("tokens", "text"), '{"text": "the \\"tags\\" of"}\n' + line)
    assert expected in str(error.value)
    with pytest.raises(HydromelError, match="field 'pos' has 2 values for 1 tokens"):
        JsonLines("tokens", None).parse(passage('{"tokens": ["a"], "pos": ["N", "V"]}'), ["tokens", "pos"])


def test_treebanks_name_their_columns() -> None:
    text = "# global.columns = ID DEPREL FORM\n# text = a b\n1-2\t_\tab\n1\tx\ta\n2\ty\tb\n"
    wanted = ConlluColumns.of({"tokens": "form", "deprel": "deprel", "tags": "ner"})
    assert wanted.columns == {"tokens": 1, "deprel": 7}
    parsed = wanted.parse(first(text), ["tokens", "deprel"])
    assert parsed.table.to_pydict() == {"tokens": [["a", "b"]], "deprel": [["x", "y"]]}
    assert wanted.parse(passage("1\tz\tc"), ["tokens"]).table["tokens"].to_pylist() == [["c"]]  # further below
    given = replace(ConlluColumns.of({"tokens": "form"}), columns={"tokens": 0})
    assert given.parse(first(text), ["tokens"]).table["tokens"].to_pylist() == [["1", "2"]]
    standard = "1\ta\ta\tX\tX\t_\t0\troot\t_\t_"
    assert answered(ConlluColumns.of({"tokens": "form"}), standard) == [f"{standard}\tA"]
