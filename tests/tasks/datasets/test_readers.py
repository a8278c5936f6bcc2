"""Every reader on small files: the rows that it reads, and the line that it names if a file is malformed."""

import csv
import gzip
import inspect
import json
import logging
import random
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.common.errors import HydromelError
from runner.text.arrow import notes_of
from tasks.datasets import sst_trees, text_blocks
from tasks.datasets.delimited import Dialect
from tasks.datasets.files import read_text
from tasks.targets import place

UNCUT = {"valid_fraction": 0.0, "test_fraction": 0.0}
LOCAL = ("columns_file", "labelled", "conllu", "tsv", "csv", "jsonl", "text", "sst_trees")


@pytest.fixture
def read(corpus, tmp_path):
    """Return `read(config, text, **overrides)`, which reads the rows of a file that contains `text`."""

    def from_text(config, text, **overrides):
        (tmp_path / "file").write_text(text, encoding="utf-8", newline="")
        files = {"train": "file", "valid": None, "test": None}
        return corpus(config, tmp_path, **(UNCUT | files | overrides)).read()["train"]

    return from_text


@pytest.fixture
def fails(read, tmp_path):
    """Return `fails(config, text, **overrides)`, which gives the one-line message with the file's path as FILE."""

    def from_text(config, text, **overrides):
        with pytest.raises(HydromelError) as caught:
            read(config, text, **overrides)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(str(tmp_path / "file"), "FILE")

    return from_text


def rows(table):
    return table.drop_columns("line").to_pylist()


def lines(table):
    return table["line"].to_pylist()


# column files


def test_columns_blank_lines_documents_and_comments(read, tmp_path):
    text = "-DOCSTART- -X- O\n\n\n#c x\nA B  O\nC D I-X\n \t \n\n-DOCSTART- (1\n# x\nE F B-X\n#c y I-X\nG H I-X\n\n"
    table = read(
        "columns_file",
        text,
        separator="space",
        columns={"tokens": 0, "pos": 1, "tags": -1},
        skip_docstart=True,
        comment_prefix="#",
        span_scheme="IOB2",
        strict_tags=False,
    )
    assert rows(table) == [
        {"tokens": ["A", "C"], "pos": ["B", "D"], "tags": ["O", "I-X"]},
        {"tokens": ["E", "#c", "G"], "pos": ["F", "y", "H"], "tags": ["B-X", "I-X", "I-X"]},
    ]
    assert lines(table) == [5, 11]
    assert notes_of(table) == {
        "document marks (-DOCSTART-) left out": 2,
        "lines of tokens that start like comments, with #": 1,
    }
    assert table.schema.metadata[b"path"] == str(tmp_path / "file").encode()


def test_columns_without_options_are_read_as_they_stand(read):
    text = "-DOCSTART-\tX\n#tag\tY\n\na\xa0b\tZ\n-DOCSTART-s\tX"
    table = read("columns_file", text, skip_docstart=False)
    assert rows(table) == [
        {"tokens": ["-DOCSTART-", "#tag"], "tags": ["X", "Y"]},
        {"tokens": ["a\xa0b", "-DOCSTART-s"], "tags": ["Z", "X"]},
    ]
    assert lines(table) == [1, 4]
    table = read("columns_file", text)
    assert table["tokens"].to_pylist() == [["#tag"], ["a\xa0b", "-DOCSTART-s"]]
    assert notes_of(table) == {"document marks (-DOCSTART-) left out": 1}


@pytest.mark.parametrize("separator", ["tab", "space"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n", "\r", " \n", " \r\n"])
def test_white_space_and_line_ends_make_no_second_tag(read, separator, end):
    mark = {"tab": "\t", "space": " "}[separator]
    text = f"a{mark}O\nb {mark}B-X\n\nc{mark}O\n".replace("\n", end)
    table = read("columns_file", text, separator=separator, span_scheme="IOB2")
    assert rows(table) == [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}, {"tokens": ["c"], "tags": ["O"]}]


def test_tags_have_no_white_space_of_any_kind_around_them(read):
    assert read("columns_file", "a\tO\xa0\nb\t\u3000B-X\n", span_scheme="IOB2")["tags"].to_pylist() == [["O", "B-X"]]


def test_tokens_keep_white_space_that_is_not_around_columns(read):
    assert read("columns_file", "\xa0\tO\n10 000\tO\n")["tokens"].to_pylist() == [["\xa0", "10 000"]]


def test_wrong_line_ends_and_comments_name_their_line(fails):
    assert fails("columns_file", "a\tO\nb\tO\rc\n") == "FILE:2: column 1 has a carriage return in it"
    text, message = "a\tO\n# x\nb\tO", "FILE:2: 1 tab-separated columns; the file's other lines have 2; "
    within = "a comment stands before a sentence, not within it"
    assert fails("columns_file", text, comment_prefix="#") == message + within
    assert fails("columns_file", text) == message + "if it is a comment, set dataset.comment_prefix='#'"


def test_notes_are_counted_by_split(corpus, tmp_path):
    for name, text in (("a", "-DOCSTART-\n\nx\tO\n"), ("b", "-DOCSTART-\n\n-DOCSTART-\n\ny\tO\n"), ("c", "z\tO\n")):
        (tmp_path / name).write_text(text)
    tables = corpus("columns_file", tmp_path, train=["a", "b"], valid="c", test_fraction=0.0).read()
    assert notes_of(tables["train"]) == {"document marks (-DOCSTART-) left out": 3}
    assert notes_of(tables["valid"]) == {}


@given(
    sentences=st.lists(st.lists(st.tuples(st.sampled_from("ab\xa0é#"), st.sampled_from("XY")), min_size=1), min_size=1)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_columns_round_trip(read, sentences):
    gaps = random.Random(len(sentences))
    text, begins, line = "", [], 1
    for sentence in sentences:
        begins.append(line)
        blank = gaps.randint(1, 3)
        text += "".join(f"{token}\t{tag}\n" for token, tag in sentence) + "\n" * blank
        line += len(sentence) + blank
    table = read("columns_file", text)
    assert table["tokens"].to_pylist() == [[token for token, _ in sentence] for sentence in sentences]
    assert table["tags"].to_pylist() == [[tag for _, tag in sentence] for sentence in sentences]
    assert lines(table) == begins


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("a\tX\nb\tY\n\nc\nd\tX\n", {}, "FILE:4: 1 tab-separated columns; the file's other lines have 2"),
        ("a\tX\tY\nb\tY\n\nc\tX\n", {}, "FILE:1: 3 tab-separated columns; the file's other lines have 2"),
        ("a X\nb  Y Z\n c X \n", {"separator": "space"}, "FILE:2: 3 space-separated columns"),
        ("a\tX\n\n\tY\n", {}, "FILE:3: column 0 is empty"),
        ("a\tX\nb\t\n", {}, "FILE:2: column 1 is empty"),
        ("a\tX\n", {"columns": {"tokens": 0, "tags": 2}}, "FILE: there is no column 2; the file has 2 columns"),
        ("a\tX\n", {"columns": {"tokens": 0, "tags": -3}}, "FILE: there is no column -3"),
        ("# only\n#\n", {"comment_prefix": "#"}, "FILE: no examples in the file"),
        (
            "\na X\nb Y\n",
            {},
            "FILE:2: tokens and tags are the same column, 0 of 1; set different positions in dataset.columns",
        ),
        ("a\tX\n", {"columns": {"tokens": 1, "tags": -1}}, "FILE:1: tokens and tags are the same column, 1 of 2"),
        ("a\tX\n", {"columns": {"words": 0}}, "dataset.columns names words; it must name tokens"),
        ("a\tX\n", {"columns": {"tokens": 0, "line": 1}}, "dataset.columns names tokens, line; it must name tokens"),
    ],
)
def test_wrong_columns(fails, text, overrides, message):
    assert fails("columns_file", text, **overrides).startswith(message)


@pytest.mark.parametrize(
    ("tags", "line", "tag"),
    [
        ("O I-X", 2, "I-X"),
        ("B-X I-Y", 2, "I-Y"),
        ("B-X / I-X", 3, "I-X"),
        ("I-X", 1, "I-X"),
        ("O B-X E-X", 3, "E-X"),
        ("O / B-", 3, "B-"),
        ("O X", 2, "X"),
    ],
)
def test_illegal_tags_name_their_line(fails, tags, line, tag):
    text = "".join("\n" if tag == "/" else f"word\t{tag}\n" for tag in tags.split())
    message = fails("columns_file", text, span_scheme="IOB2")
    assert message.startswith(f"FILE:{line}: tag '{tag}' ")
    assert "is illegal in IOB2 (illegal tags in the file: 1)" in message


def test_illegal_tags_are_kept_and_counted_by_option(read, caplog):
    text = "a\tI-X\nb\tO\nc\tI-X\n"
    with caplog.at_level(logging.WARNING):
        table = read("columns_file", text, span_scheme="IOB2", strict_tags=False)
    assert table["tags"].to_pylist() == [["I-X", "O", "I-X"]]
    assert "2 illegal tags are kept" in caplog.text
    assert read("columns_file", text, span_scheme="IOB1").num_rows == 1, "the same tags are legal in IOB1"


# CoNLL-U

WORD = "{}\t{}\tlemma\tNOUN\tNN\t_\t0\troot\t_\t_\n"


def test_conllu_leaves_out_comments_ranges_and_empty_nodes(read):
    text = (
        "# newdoc\n# text = can't go\n"
        + WORD.format("1-2", "can't")
        + WORD.format("1", "ca")
        + WORD.format("2", "n't")
        + WORD.format("2.1", "ghost")
        + WORD.format("3", "#go")
        + "\n# next\n"
        + WORD.format("0.1", "ghost")
        + WORD.format("1", "a b")
        + "\n"
    )
    table = read("conllu", text)
    assert table["tokens"].to_pylist() == [["ca", "n't", "#go"], ["a b"]]
    assert table["tags"].to_pylist() == [["NOUN"] * 3, ["NOUN"]]
    assert table["xpos"].to_pylist() == [["NN"] * 3, ["NN"]]
    assert table["lemma"].to_pylist() == [["lemma"] * 3, ["lemma"]]
    assert lines(table) == [4, 11]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WORD.format(1, "a") + "2\tb\n" + WORD.format(3, "c"), "FILE:2: 2 tab-separated columns; the file's other"),
        ("# c\n1\ta\tNOUN\n2\tb\tNOUN\n", "FILE:2: 3 columns; CoNLL-U has 10"),
        (WORD.format(1, "a") + WORD.format("x", "b"), "FILE:2: id 'x'; CoNLL-U allows 8, 8-9"),
        ("# only comments\n\n", "FILE: no examples in the file"),
    ],
)
def test_wrong_conllu(fails, text, message):
    assert fails("conllu", text).startswith(message)


PLUS = (
    "# global.columns = ID FORM DEPREL NER\n# text = Ann Lee ran\n1-2\tAnnLee\t_\t_\n1\tAnn\tnsubj\tB-PER\n"
    "2\tLee\tflat\tI-PER\n3\tran\troot\tO\n\n1\t_\tpunct\t_\n2\tOslo\troot\tB-LOC\n"
)
MISC = (
    "1\tAnn\tann\tPROPN\tNNP\tNumber=Sing\t0\troot\t_\tSpaceAfter=No|NER=B-PER\n"
    "2\tran\trun\tVERB\t_\t_\t1\tdep\t_\tNER=O|X=NER=B-LOC\n3\t.\t.\tPUNCT\t.\t_\t1\tpunct\t_\t_\n"
)


@pytest.mark.parametrize(
    ("column", "tags"),
    [
        ("upos", ["PROPN", "VERB", "PUNCT"]),
        ("DEPREL", ["root", "dep", "punct"]),
        ("xpos", ["NNP", None, "."]),
        ("misc.NER", ["B-PER", "O", None]),
        ("feats.Number", ["Sing", None, None]),
    ],
)
def test_any_column_of_a_treebank_holds_the_tags(read, column, tags):
    table = read("conllu", MISC, columns={"tokens": "form", "tags": column})
    assert table["tags"].to_pylist() == [tags]
    missing = tags.count(None)
    assert notes_of(table) == ({"tags that are unspecified (_), which are no targets": missing} if missing else {})
    assert (table["lemma"].to_pylist(), table["xpos"].to_pylist()) == ([["ann", "run", "."]], [["NNP", "_", "."]])


def test_conllu_plus_names_its_columns(read):
    table = read("conllu", PLUS, columns={"tokens": "form", "tags": "ner", "head": "deprel"}, span_scheme="IOB2")
    assert rows(table) == [
        {"tokens": ["Ann", "Lee", "ran"], "tags": ["B-PER", "I-PER", "O"], "head": ["nsubj", "flat", "root"]},
        {"tokens": ["_", "Oslo"], "tags": [None, "B-LOC"], "head": ["punct", "root"]},
    ]
    assert lines(table) == [4, 8]


@pytest.mark.parametrize(
    ("text", "tags", "message"),
    [
        (MISC, "ner", "column 'ner' is unknown (dataset.columns.tags, FILE). Allowed: deprel, deps, feats, form,"),
        (
            MISC,
            "misc.NERR",
            "key 'NERR' is unknown (dataset.columns.tags, MISC in FILE); did you mean 'NER'? Allowed: NER, Sp",
        ),
        (MISC, "deps", "FILE: column deps has no tags, only _ (dataset.columns.tags)"),
        (PLUS, "upos", "column 'upos' is unknown (dataset.columns.tags, FILE)"),
        (PLUS.replace("FORM DEPREL", "FORM"), "ner", "FILE:3: 4 columns; the file's first line has 3"),
    ],
)
def test_wrong_columns_of_a_treebank(fails, text, tags, message):
    assert fails("conllu", text, columns={"tokens": "form", "tags": tags}).startswith(message)


# LABEL text


def test_labelled(read):
    table = read("labelled", "1 a  b \n0\n0\t\n1 \xa0c\td\n1\u2003x 2 y\n\n\n")
    assert rows(table) == [
        {"tokens": ["a", "b"], "label": "1"},
        {"tokens": [], "label": "0"},
        {"tokens": [], "label": "0"},
        {"tokens": ["c", "d"], "label": "1"},
        {"tokens": ["x", "2", "y"], "label": "1"},
    ]
    assert lines(table) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("part", "label"), [("whole", "NUM:d:e"), ("coarse", "NUM"), ("fine", "NUM:d:e")])
def test_label_parts(read, part, label):
    assert rows(read("labelled", "NUM:d:e How : far ?\n", label_part=part)) == [
        {"tokens": ["How", ":", "far", "?"], "label": label}
    ]


@pytest.mark.parametrize(
    ("text", "part", "message"),
    [
        ("1 a\n a\n", "whole", "FILE:2: no label at the start of the line"),
        ("1 a\n\n1 b\n", "whole", "FILE:2: no label at the start of the line"),
        ("A:b x\nA y\n", "coarse", "FILE:2: label 'A' is not COARSE:fine, which dataset.label_part=coarse needs"),
        ("A:b x\nA: y\n", "fine", "FILE:2: label 'A:' is not COARSE:fine"),
    ],
)
def test_wrong_labels(fails, text, part, message):
    assert fails("labelled", text, label_part=part).startswith(message)


# TSV and CSV


def test_marked_labels_are_never_words(read):
    text = "__label__a __label__b x y\nz\n x __label__a  y__label__ __label__c\n__label__\n"
    table = read("labelled", text)
    assert rows(table) == [
        {"tokens": ["x", "y"], "labels": ["__label__a", "__label__b"]},
        {"tokens": ["z"], "labels": []},
        {"tokens": ["x", "y__label__"], "labels": ["__label__a", "__label__c"]},
        {"tokens": [], "labels": ["__label__"]},
    ]
    assert lines(table) == [1, 2, 3, 4]
    # No line starts with one: the first word is the label.
    assert rows(read("labelled", "a __label__b\n")) == [{"tokens": ["__label__b"], "label": "a"}]


def test_parts_of_marked_labels(read, fails):
    text = "__label__N:x __label__M:y a\nb\n__label__N:z\n"
    assert read("labelled", text, label_part="coarse")["labels"].to_pylist() == [
        ["__label__N", "__label__M"],
        [],
        ["__label__N"],
    ]
    assert read("labelled", text, label_part="fine")["labels"].to_pylist()[0] == ["__label__N:x", "__label__M:y"]
    wrong = fails("labelled", text + "a __label__N:q __label__M\n", label_part="fine")
    assert wrong.startswith("FILE:4: label '__label__M' is not COARSE:fine")


def test_labels_that_a_row_has_twice_are_counted(read):
    twice = read("labelled", "__label__a __label__b __label__a x\n__label__a __label__a __label__a y\n__label__b z")
    assert notes_of(twice) == {"labels that a row has more than once, counted once": 3}
    assert notes_of(read("csv", "text,label\na,x;y\nb,x\n", label_separator=";")) == {}


def test_several_labels_in_a_column(read, tmp_path):
    text = "text,label\na,x; y ;\nb,\nc,z\nd, ; \n"
    assert [row["labels"] for row in rows(read("csv", text, label_separator=";"))] == [["x", "y"], [], ["z"], []]
    tsv = "text\tlabel\na\tx y||z\n"
    assert rows(read("tsv", tsv, label_separator="||")) == [{"tokens": ["a"], "labels": ["x y", "z"]}]


def test_tsv_takes_quotes_as_they_are(read):
    table = read("tsv", 'label\tid\ttext\npos\t1\t"a b\nneg\t2\t\n\n', text_columns=["text"])
    assert rows(table) == [{"tokens": ['"a', "b"], "label": "pos"}, {"tokens": [], "label": "neg"}]
    assert lines(table) == [2, 3]


def test_csv_quotes_hold_commas_quotes_and_lines(read):
    text = 'text,label\r\n"a, ""b""\r\nc  d",1\r\n"2020-01-01",true\r\nNA,\xa0null\r\n,"0"\r\n'
    table = read("csv", text)
    assert rows(table) == [
        {"tokens": ["a,", '"b"', "c", "d"], "label": "1"},
        {"tokens": ["2020-01-01"], "label": "true"},
        {"tokens": ["NA"], "label": "\xa0null"},
        {"tokens": [], "label": "0"},
    ]
    assert lines(table) == [2, 4, 5, 6]


def test_csv_by_place_joined_and_without_label(read):
    table = read("csv", '3,"Title","a b"\n1,T,c\n', header=False, text_columns=[1, -1], label_column=0)
    assert rows(table) == [{"tokens": ["Title", "a", "b"], "label": "3"}, {"tokens": ["T", "c"], "label": "1"}]
    assert rows(read("csv", "a b\n", header=False, text_columns=[0], label_column=None)) == [{"tokens": ["a", "b"]}]


def test_csv_with_an_escape_character(read):
    text = 'text,label\n"a \\"b\\" \\\\",1\nc\\, d,2\n"e ""f""",3\ng\\\nh,4\ni,5\n'
    table = read("csv", text, escape="\\", text_columns="text")
    expected = [["a", '"b"', "\\"], ["c,", "d"], ["e", '"f"'], ["g", "h"], ["i"]]
    assert table["tokens"].to_pylist() == expected
    assert lines(table) == [2, 3, 4, 5, 7]
    table = read("tsv", 'text\tlabel\n"a\\\tb\t1\n', escape="\\", text_columns=["text"])
    assert rows(table) == [{"tokens": ['"a', "b"], "label": "1"}]


@given(st.lists(st.tuples(st.text('ab ,"\\\n|', min_size=1), st.sampled_from("xy")), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_escaped_fields_are_those_that_were_written(tmp_path, fields):
    for quoting, style in ((True, csv.QUOTE_ALL), (False, csv.QUOTE_NONE)):
        with (tmp_path / "file").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=style, escapechar="\\", doublequote=False, lineterminator="\n")
            writer.writerows(fields)
        columns, _ = Dialect(",", quoting, "\\").rows(read_text(tmp_path / "file", "utf-8"), 2)
        assert [*zip(*(column.to_pylist() for column in columns), strict=True)] == fields


FIELD = st.text('ab ,"\n\\', max_size=6)
DIALECTS = [Dialect(",", True, None), Dialect(",", True, "\\"), Dialect(",", False, "\\")]


def read_rows(dialect, blocks):
    found, first = [], None
    for block in blocks:
        first = first or dialect.first_row(block)
        columns, line = dialect.rows(block, len(first))
        found += zip(*(column.to_pylist() for column in columns), line.tolist(), strict=True)
    return found


def written(field, style, dialect):
    """Return a field in quotes, with escapes, or as it is, as far as the dialect can."""
    if style == "quoted" and dialect.quoting:
        field = field if dialect.escape is None else field.replace("\\", "\\\\")
        return '"' + field.replace('"', '""') + '"'
    if style == "escaped" and dialect.escape is not None:
        return "".join("\\" + character if character in ',"\n\\' else character for character in field)
    return "a" + "".join(character for character in field if character in 'ab "')  # a quote within is plain


@given(
    st.lists(st.lists(st.tuples(FIELD, st.sampled_from(["quoted", "escaped", "plain"])), min_size=2, max_size=2)),
    st.sampled_from(DIALECTS),
    st.sampled_from([1, 5, 30]),
    st.sampled_from(["", "\n", "\n \n\n"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
def test_blocks_of_quoted_and_escaped_rows_are_the_file(tmp_path, rows, dialect, size, end):
    text = "\n".join(["first,row", *(",".join(written(*field, dialect) for field in row) for row in rows)]) + end
    (tmp_path / "file").write_text(text, encoding="utf-8", newline="")
    whole = read_rows(dialect, [read_text(tmp_path / "file", "utf-8")])
    assert len(whole) == 1 + len(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_blocks, "BLOCK_BYTES", size)
        blocks = [*text_blocks.text_blocks(tmp_path / "file", "utf-8", dialect.last_row)]
    assert "".join(block.text for block in blocks) == text
    assert read_rows(dialect, blocks) == whole


def test_csv_documents_of_any_length(read):
    words = ["word"] * 300_000
    table = read("csv", f'text,label\n"{" ".join(words)}",1\n')
    assert table["tokens"].to_pylist() == [words]


@pytest.mark.parametrize(
    ("config", "text", "overrides", "message"),
    [
        ("tsv", "text\tlabel\na\t1\nb\n", {}, "FILE:3: 1 columns; the file's first line has 2"),
        ("tsv", "text\tlabel\na\t1\n\nb\t1\n", {}, "FILE:3: 1 columns; the file's first line has 2"),
        ("csv", 'text,label\n"a\nb",1\nc\n', {}, "FILE:4: 1 columns; the file's first line has 2"),
        ("csv", 'text,label\na,1\n"b,1\nc,1\n', {}, "FILE:3: unexpected end of data"),
        ("csv", "text,label\na,1\n\nb,1\n", {}, "FILE:3: "),
        ("csv", "text,label\na,1\nb,\n", {}, "FILE:3: column label: the label is empty"),
        (
            "csv",
            "text\na\nb\rc\nd\n",
            {"label_column": None},
            "FILE: a CR outside quotes, in a file whose lines end in",
        ),
        ("csv", 'text,label\na,1\nb,"1', {}, "FILE:3: unexpected end of data"),
        ("csv", 'text,label\n"a,b\\",1\n', {"escape": "\\"}, "FILE:2: unexpected end of data"),
        ("csv", "text,label\n", {"escape": ","}, "dataset.escape=, is the delimiter; give another character, or null"),
        (
            "csv",
            "text,lable\na,1\n",
            {},
            "column 'label' is unknown (dataset.label_column; FILE:1); did you mean 'lable'",
        ),
        ("csv", "a,1\n", {"header": False}, "dataset.text_columns: 'text' is a name, but dataset.header=false"),
        (
            "tsv",
            "a\t1\n",
            {"header": False, "text_columns": [2]},
            "FILE:1: dataset.text_columns: there is no column 2; the",
        ),
        ("tsv", "text\tlabel\n", {}, "FILE: no examples in the file"),
        ("csv", "text,label\n", {}, "FILE: no examples in the file"),
    ],
)
def test_wrong_tables(fails, config, text, overrides, message):
    assert fails(config, text, **overrides).startswith(message)


# JSON Lines

TAGGED = {"text_field": None, "tokens_field": "tokens", "label_field": None, "tags_field": "tags"}


def test_jsonl_text_and_label(read):
    text = '{"text": "a  b \\u00e9\\n", "label": "x", "more": {"k": [1]}}\n{"label": "2020-01-01", "text": ""}\n\n'
    table = read("jsonl", text)
    assert rows(table) == [{"tokens": ["a", "b", "é"], "label": "x"}, {"tokens": [], "label": "2020-01-01"}]
    assert lines(table) == [1, 2]


@pytest.mark.parametrize(("values", "labels"), [((1, -2), ["1", "-2"]), ((True, False), ["true", "false"])])
def test_jsonl_labels_need_not_be_strings(read, values, labels):
    text = "".join(json.dumps({"text": "a", "label": value}) + "\n" for value in values)
    assert read("jsonl", text)["label"].to_pylist() == labels


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([[], ["b", "a"], ["b"]], [[], ["b", "a"], ["b"]]),
        ([[3], [], [-1, 2]], [["3"], [], ["-1", "2"]]),
        ([[True, False]], [["true", "false"]]),
        ([[], []], [[], []]),
    ],
)
def test_jsonl_lists_are_several_labels(read, values, labels):
    text = "".join(json.dumps({"text": "a", "label": value}) + "\n" for value in values)
    assert [row["labels"] for row in rows(read("jsonl", text))] == labels


@pytest.mark.parametrize("values", [(1.5, -2, 1e-3), (3, 2.25)])
def test_jsonl_numbers_are_values(read, values):
    text = "".join(json.dumps({"text": "a", "label": value}) + "\n" for value in values)
    table = read("jsonl", text)
    assert table["value"].to_pylist() == list(values)
    assert "label" not in table.column_names


def test_jsonl_tokens_and_tags(read):
    text = '{"tokens": ["a b", "c"], "tags": ["B-X", "I-X"]}\n{"tokens": [], "tags": []}\n'
    assert rows(read("jsonl", text, span_scheme="IOB2", **TAGGED)) == [
        {"tokens": ["a b", "c"], "tags": ["B-X", "I-X"]},
        {"tokens": [], "tags": []},
    ]


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ('{"text": "a", "label": 1}\n{"text": "a", "label": 1\n', {}, "FILE:2: not JSON ("),
        ('{"text": "a", "label": 1}\n[1]\n', {}, "FILE:2: got [1]; each line must hold one JSON object"),
        ('{"text": "a", "label": 1}\n\n{"text": "a", "label": 1}\n', {}, "FILE:2: not JSON ("),
        ('{"text": "a", "label": 1} {"text": "b", "label": 1}\n', {}, "FILE:1: not JSON (Extra data"),
        (
            '{"text": "a", "label": 1}\n{"txt": "a", "label": 1}\n',
            {},
            "FILE:2: no field 'text'; the object's fields: label, txt",
        ),
        (
            '{"text": "a", "label": 1}\n{"text": "a", "label": null}\n',
            {},
            "FILE:2: field 'label' is null; expected an integer",
        ),
        (
            '{"text": "a", "label": 1}\n{"text": "a", "label": "x"}\n',
            {},
            "FILE:2: field 'label' is 'x'; expected an integer",
        ),
        ('{"text": 7, "label": 1}\n', {}, "FILE:1: field 'text' is 7; expected a string"),
        (
            '{"text": "a", "label": 1.5}\n{"text": "a", "label": "x"}\n',
            {},
            "FILE:2: field 'label' is 'x'; expected a numb",
        ),
        (
            '{"text": "a", "label": 1}\n{"text": "a", "label": true}\n',
            {},
            "FILE:2: field 'label' is True; expected an int",
        ),
        (
            '{"text": "a", "label": []}\n{"text": "a", "label": "x"}\n',
            {},
            "FILE:1: field 'label' is []; expected a string",
        ),
        (
            '{"text": "a", "label": ["x"]}\n{"text": "a", "label": [1]}\n',
            {},
            "FILE:2: field 'label' is [1]; expected a l",
        ),
        ('{"tokens": ["a"], "tags": ["X", "Y"]}\n', TAGGED, "FILE:1: field 'tags': 2 tags for 1 tokens"),
        (
            '{"tokens": ["a"], "tags": ["X"]}\n{"tokens": ["a", null], "tags": ["X", "X"]}\n',
            TAGGED,
            "FILE:2: field 'tokens'",
        ),
        (
            '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": [], "tags": []}\n{"tokens": ["a"], "tags": ["I-X"]}\n',
            TAGGED | {"span_scheme": "IOB2"},
            "FILE:3: field 'tags': tag 'I-X' at the start of a sentence is illegal in IOB2",
        ),
        (
            '{"text": "a"}\n',
            {"tokens_field": "tokens"},
            "dataset.text_field=text and dataset.tokens_field=tokens; set",
        ),
        (
            '{"text": "a"}\n',
            {"text_field": None},
            "dataset.text_field=null and dataset.tokens_field=null; set exactly",
        ),
    ],
)
def test_wrong_jsonl(fails, text, overrides, message):
    assert fails("jsonl", text, **overrides).startswith(message)


@pytest.mark.parametrize("levels", [100, 300, 600, 900, 980, 990, 2000, 100_000])
@pytest.mark.parametrize("line", ['{"text": "a", "label": %s}', "%s"])
def test_deeply_nested_json_is_one_line(fails, line, levels):
    message = fails("jsonl", line % ("[" * levels + "]" * levels) + "\n")
    assert message.startswith("FILE:1: ")
    assert len(message) < 200


def test_names_of_fields_are_not_quoted_whole(fails):
    assert len(fails("jsonl", json.dumps({"x" * 10**6: 1, "label": "a"}) + "\n")) < 500


# plain text and trees


def test_white_space_of_every_kind_inside_a_field(read):
    spaces = "\t\n\v\f\x85\xa0\u1680\u2000\u2028\u2029\u202f\u3000"
    field = "".join(f"w{space}" for space in spaces)
    table = read("csv", f'text,label\n"it.\nVery\tmuch\u00a0so{field}",1\n"a\u200bb \ufeff",0\n')
    assert table["tokens"].to_pylist() == [["it.", "Very", "much", "sow", *"w" * 11], ["a\u200bb", "\ufeff"]]
    text = json.dumps({"text": f"a{spaces}b", "label": "x"})
    assert read("jsonl", f"{text}\n")["tokens"].to_pylist() == [["a", "b"]]


def test_plain_text(read):
    text = " a  b \n\n \nc\td"
    assert read("text", text)["tokens"].to_pylist() == [["a", "b"], [], [], ["c", "d"]]
    written = read("text", text, blank_lines="drop")
    assert written["tokens"].to_pylist() == [["a", "b"], ["c", "d"]]
    assert lines(written) == [1, 4]
    characters = read("text", text, unit="char", blank_lines="drop")
    assert characters["tokens"].to_pylist() == [list(" a  b "), [" "], list("c\td")]
    assert lines(characters) == [1, 3, 4]


def test_trees(read):
    text = "(3 (2 Good) (1 (2 -LRB-) (0 film)))\n(1 Bad)\n"
    table = read("sst_trees", text)
    assert rows(table) == [
        {"tokens": ["Good", "-LRB-", "film"], "label": "3"},
        {"tokens": ["Good"], "label": "2"},
        {"tokens": ["-LRB-", "film"], "label": "1"},
        {"tokens": ["-LRB-"], "label": "2"},
        {"tokens": ["film"], "label": "0"},
        {"tokens": ["Bad"], "label": "1"},
    ]
    assert lines(table) == [1, 1, 1, 1, 1, 2]
    assert read("sst_trees", text, phrases="none")["tokens"].to_pylist() == [["Good", "-LRB-", "film"], ["Bad"]]


def test_all_keys_of_a_column_are_named(fails):
    line = "1\ta\tl\tN\tN\tCase=Nom|Number=Sing\t0\troot\t_\t_\n\n"
    columns = {"tokens": "form", "tags": "feats.case"}
    assert fails("conllu", line, columns=columns).endswith("did you mean 'Case'? Allowed: Case, Number")


def test_trees_of_two_labels_leave_out_what_is_neutral(read, fails):
    table = read("sst_trees", "(3 (2 Good) (1 (4 -LRB-) (0 film)))\n(2 Bad)\n", labels="binary")
    assert [(" ".join(row["tokens"]), row["label"]) for row in rows(table)] == [
        ("Good -LRB- film", "1"),
        ("-LRB- film", "0"),
        ("-LRB-", "1"),
        ("film", "0"),
    ]
    assert lines(table) == [1, 1, 1, 1]
    assert read("sst_trees", "(3 (2 a) (0 b))\n(2 c)\n", labels="binary", phrases="none").num_rows == 1
    assert "label '5'" in fails("sst_trees", "(1 a)\n(5 b)\n", labels="binary")


@pytest.mark.parametrize("tree", ["(3 (2 a)", "(3 a))", "a (3 b)", "(3 a) (2 b)", "(3 a) b", "", ")"])
def test_wrong_trees(fails, tree):
    assert fails("sst_trees", f"(1 fine)\n{tree}\n(1 fine)\n").startswith("FILE:2: ")


def test_trees_are_not_deeper_than_language(fails):
    deep = sst_trees.MOST_LEVELS
    tree = "(1 " * deep + "(2 a)" + ")" * deep
    assert fails("sst_trees", tree + "\n") == "FILE:1: nested more than 1,000 levels deep, the most allowed"


# what all of them share


@pytest.mark.parametrize("config", LOCAL)
def test_annotations_are_types_that_a_config_can_be_checked_against(config, corpus, tmp_path):
    reader = type(corpus(config, tmp_path))
    hints = typing.get_type_hints(reader.__init__, include_extras=True)
    parameters = inspect.signature(reader).parameters
    assert {"name", "data_dir", "train", "encoding", "valid_fraction"} < set(parameters) <= set(hints)
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    with_default = [name for name, parameter in parameters.items() if parameter.default is not parameter.empty]
    assert set(with_default) <= {
        "width",
        "tokenizer",
        "ignored_tags",
    }  # of the run, of the group `tokenizer`, of the task
    assert not any(isinstance(hint, str) for hint in hints.values())


def test_one_file_for_two_splits_is_an_error(corpus, tmp_path):
    (tmp_path / "file").write_text("1 a\n")
    twice = corpus("labelled", tmp_path, train="file", test="./file")
    with pytest.raises(HydromelError) as caught:
        twice.read()
    assert str(caught.value).startswith(f"dataset=labelled: train and test name the same file, {tmp_path / 'file'}; ")


def test_missing_data_dir_and_file(corpus, tmp_path):
    with pytest.raises(HydromelError, match=r"dataset=wnut17: there is no .*; give data_dir=FOLDER"):
        corpus("wnut17", None).read()
    with pytest.raises(HydromelError, match=r"dataset=wnut17: there is no file .*wnut17train\.conll"):
        corpus("wnut17", tmp_path).fingerprint()


def test_fingerprint_is_of_contents_and_arguments_not_of_places(corpus, tmp_path):
    prints = {}

    def note(key, folder, data=b"1 a\n0 b\n", **overrides):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "file").write_bytes(data)
        prints[key] = corpus("labelled", tmp_path / folder, train="file", **overrides).fingerprint()

    note("one", "one")
    note("elsewhere", "two")
    note("renamed", "one", name="mine")
    note("changed", "one", b"1 a\n0 c\n")
    note("fraction", "one", valid_fraction=0.2)
    note("encoding", "one", encoding="cp1252")
    assert prints["one"] == prints["elsewhere"] == prints["renamed"]
    assert len(set(prints.values())) == 4


def test_gzip_and_plain_are_read_alike(corpus, tmp_path):
    text = "".join(f"{number % 2} word{number}\n" for number in range(200))
    (tmp_path / "plain").write_text(text)
    (tmp_path / "zipped").write_bytes(gzip.compress(text.encode()))
    plain, zipped = (corpus("labelled", tmp_path, train=name).read() for name in ("plain", "zipped"))
    assert list(plain) == list(zipped) == ["train", "valid", "test"]
    assert all(plain[split].equals(zipped[split]) for split in plain)
    assert sum(table.num_rows for table in plain.values()) == 200
    for table in plain.values():
        assert [f"word{line - 1}" for line in lines(table)] == [row[0] for row in table["tokens"].to_pylist()]


def test_several_files_of_a_split(corpus, tmp_path):
    texts = {
        "b1": "text,label\na,1\n",
        "a2": 'text,label\n"b\nc",2\nd,1\n',
        "a1": "text,label\ne,3\n",
        "v": "text,label\nf,1\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = {"train": ["b1", "a*"], "valid": "v", "test_fraction": 0.0}
    table = corpus("csv", tmp_path, **files).read()["train"]
    assert table["label"].to_pylist() == ["1", "3", "2", "1"], "the list's order, then that of the names"
    origins = [f"{tmp_path}/{origin}" for origin in ("b1:2", "a1:2", "a2:2", "a2:4")]
    assert table["origin"].to_pylist() == origins
    assert [place(table, row) for row in range(4)] == origins
    prints = {
        corpus("csv", tmp_path, **files | {"train": order}).fingerprint() for order in (["a1", "b1"], ["b1", "a1"])
    }
    assert len(prints) == 2
    (tmp_path / "a2").write_text("text,label\nb,2\nc,\n")
    with pytest.raises(HydromelError, match=f"^{tmp_path}/a2:3: column label: the label is empty"):
        corpus("csv", tmp_path, **files).read()
    with pytest.raises(HydromelError, match=f"dataset=csv: train names the same file twice, {tmp_path}/a1"):
        corpus("csv", tmp_path, train=["a1", "a*"]).read()
    with pytest.raises(HydromelError, match=f"train and valid name the same file, {tmp_path}/v"):
        corpus("csv", tmp_path, train=["a1", "v"], valid="v").read()


def test_token_lines_of_several_files(corpus, tmp_path):
    rng = random.Random(1)
    names = ["c", "a", "b"]
    for name in names:
        (tmp_path / name).write_text("".join(f"{name}{row}\tX\n" + "\n" * rng.randint(0, 2) for row in range(40)))
    reader = corpus("columns_file", tmp_path, train=names)
    for table in reader.read().values():
        lines, separator = reader.token_lines(table)
        assert separator == "\t"
        assert lines.to_pylist() == [[f"{token}\tX" for token in tokens] for tokens in table["tokens"].to_pylist()]


# the width of the training set's file, for text to predict that has other columns


@pytest.mark.parametrize(
    ("config", "text", "overrides", "found", "columns"),
    [
        ("columns_file", "a\tx\tO\n", {"columns": {"tokens": -3, "tags": -1}}, {"width": 3}, {"tokens": 0, "tags": 2}),
        ("columns_file", "a\tx\tO\n", {"columns": {"tokens": 0, "tags": -1}}, {}, {"tokens": 0, "tags": -1}),
        ("tsv", "a\tb\tc\n", {"text_columns": [-2, 0], "label_column": 2}, {"width": 3}, {"tokens": [1, 0]}),
        ("csv", "x,y\n1,2\n", {"text_columns": "x", "label_column": "y"}, {}, {"tokens": ["x"]}),
    ],
)
def test_negative_positions_stay_what_they_were_in_training(corpus, tmp_path, config, text, overrides, found, columns):
    (tmp_path / "file").write_text(text, encoding="utf-8")
    files = {"train": "file", "valid": None, "test": None}
    if config == "tsv":
        files["header"] = False
    reader = corpus(config, tmp_path, **(UNCUT | files | overrides))
    assert reader.describe_files() == found
    later = corpus(config, tmp_path, **(UNCUT | files | overrides | found))
    assert later.describe_files() == {}
    assert later.text_format().columns == columns
    assert later.fingerprint() == reader.fingerprint()
