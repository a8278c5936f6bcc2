"""Parquet, Arrow and Feather files: their types as columns of a corpus, and what is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from runner.common.errors import HydromelError
from runner.text.arrow import notes_of
from tasks.datasets import arrow_files, text_blocks
from tasks.datasets.arrow_columns import class_names

FEATURES = (
    b'{"info": {"features": {"tags": {"feature": {"names": ["O", "B-X"], "_type": "ClassLabel"}, "_type": "List"}, '
    b'"old": {"feature": {"num_classes": 2, "names": ["x", "y"], "_type": "ClassLabel"}, "_type": "Sequence"}, '
    b'"older": [{"names": ["x"], "_type": "ClassLabel"}], "text": {"dtype": "string", "_type": "Value"}, '
    b'"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}'
)
TABLE = pa.table(
    {"words": [["a", "b"], [], ["c"]], "tags": [[1, -100], [], [0]], "text": ["a  b", "", "c"], "label": [0, -100, 1]}
).replace_schema_metadata({b"huggingface": FEATURES})


@pytest.fixture
def read(corpus, tmp_path):
    def from_table(table, columns, **options):
        if isinstance(table, pa.Table):
            pq.write_table(table, tmp_path / "file")
        uncut = {"train": "file", "valid_fraction": 0.0, "test_fraction": 0.0}
        return corpus("parquet", tmp_path, columns=columns, **uncut | options).read()["train"]

    return from_table


@pytest.fixture
def fails(read, tmp_path):
    def from_table(table, columns, **options):
        with pytest.raises(HydromelError) as caught:
            read(table, columns, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(str(tmp_path / "file"), "FILE")

    return from_table


def test_every_format_is_known_by_its_content(read, tmp_path):
    def write_parquet(path):
        pq.write_table(TABLE, path)

    def write_feather(path):
        feather.write_feather(TABLE, str(path))

    def write_stream(path):
        with pa.ipc.new_stream(str(path), TABLE.schema) as stream:
            stream.write_table(TABLE, max_chunksize=2)

    def write_file(path):
        with pa.ipc.new_file(str(path), TABLE.schema) as file:
            file.write_table(TABLE, max_chunksize=1)

    for write in (write_parquet, write_feather, write_stream, write_file):
        write(tmp_path / "file")
        table = read(None, {"tokens": "words", "tags": "tags", "label": "label"})
        assert table.to_pylist() == [
            {"tokens": ["a", "b"], "tags": ["B-X", None], "label": "no", "line": 1},
            {"tokens": [], "tags": [], "label": None, "line": 2},
            {"tokens": ["c"], "tags": ["O"], "label": "yes", "line": 3},
        ], write.__name__
        assert table.schema.metadata == {b"path": str(tmp_path / "file").encode()}


MANY = pa.table(
    {
        "text": [f"w{n} w{n % 7}" for n in range(200)],
        "words": [["a"] * (n % 3) for n in range(200)],
        "class": pa.array([n % 5 - 100 if n % 5 == 0 else n % 5 for n in range(200)]),
        "sets": [["x", "y", "x"][: n % 4] for n in range(200)],
        "score": [n / 2 for n in range(200)],
        "kind": pa.array([str(n % 2) for n in range(200)]).dictionary_encode(),
    }
)
USED = {"tokens": "text", "own": "words", "label": "class", "labels": "sets", "value": "score", "kind": "kind"}


def write_small_batches(table, path, form):
    if form == "parquet":
        pq.write_table(table, path, row_group_size=30)
    elif form == "file":
        feather.write_feather(table, str(path), compression="lz4", chunksize=150)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table, max_chunksize=3)


@pytest.fixture
def small(monkeypatch):
    """Make the blocks of files small."""
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(arrow_files, "BATCH_ROWS", 4)


@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
def test_blocks_give_the_same_rows(read, corpus, tmp_path, request, form):
    whole = read(MANY, USED)
    write_small_batches(MANY, tmp_path / "file", form)
    request.getfixturevalue("small")
    blocks = read(None, USED)
    assert (
        len([*corpus("parquet", tmp_path, train="file", columns=USED).read_file_blocks(tmp_path / "file", "train")]) > 5
    )
    assert blocks.equals(whole)
    assert blocks.schema.equals(whole.schema, check_metadata=True)
    assert notes_of(blocks) == {"labels that a row has more than once, counted once": 50}


@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
@pytest.mark.parametrize(
    ("name", "wrong", "columns", "message"),
    [
        ("text", None, {"tokens": "text"}, "column text: row 151 has no value; every row needs one"),
        ("words", ["a", None], {"tokens": "words"}, "column words: row 151 has an item without a value"),
        ("words", ["I-X"], {"tokens": "words", "tags": "words"}, "column words: row 151: tag 'I-X' at the start of a"),
        ("words", ["a"], {"tokens": "text", "tags": "words"}, "column words: row 151: 1 tags for 2 tokens"),
        (
            "score",
            float("nan"),
            {"tokens": "text", "value": "score"},
            "column score: row 151 is nan; every row needs a",
        ),
        ("text", "", {"tokens": "words", "label": "text"}, "column text: row 151 is empty; every row needs a label"),
        ("class", 7, {"tokens": "text", "label": "class"}, "column class: row 151: class 7 has no name; classes are"),
    ],
)
def test_a_bad_row_in_a_later_block(fails, tmp_path, small, form, name, wrong, columns, message):
    table = MANY.set_column(1, "words", pa.array([["O", "O"]] * 200))
    features = b'{"info": {"features": {"class": {"names": ["a", "b", "c", "d", "e"]}}}}'
    values = table[name].to_pylist()
    values[150] = wrong
    table = table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))
    write_small_batches(table.replace_schema_metadata({b"huggingface": features}), tmp_path / "file", form)
    assert fails(None, columns, span_scheme="IOB2").startswith(f"FILE: {message}")


def test_class_names_of_all_versions():
    assert class_names(TABLE.schema) == {
        "tags": ["O", "B-X"],
        "old": ["x", "y"],
        "older": ["x"],
        "label": ["no", "yes"],
    }
    for damaged in (b"", b"1", b"{}", b'{"info": {"features": [1]}}', b'{"info": {"features": {"a": 1, "b": []}}}'):
        assert class_names(TABLE.replace_schema_metadata({b"huggingface": damaged}).schema) == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([b"x", b"y"]), ["x", "y"]),
        (pa.array([7, -1], pa.int8()), ["7", "-1"]),
        (pa.array([-100, 3]), [None, "3"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([{"in": {"deep": "x"}}, {"in": {"deep": "y"}}]), ["x", "y"]),
    ],
)
def test_types_of_labels(read, values, expected):
    own = "label.in.deep" if pa.types.is_struct(values.type) else "label"
    table = read(pa.table({"text": ["a", "b"], "label": values}), {"tokens": "text", "label": own})
    assert table["label"].to_pylist() == expected


@pytest.mark.parametrize(
    "values",
    [
        pa.array([["x", "y"], ["z", "z"]], pa.large_list(pa.large_string())),
        pa.array([["x", "y"], ["z", "z"]], pa.list_(pa.string(), 2)),
        pa.array([["-", "-"], ["x", "y"], ["z", "z"]]).slice(1),
        pa.array([["x", "y"], ["z", "z"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    ],
)
def test_types_of_tokens(read, values):
    assert read(pa.table({"words": values}), {"tokens": "words"})["tokens"].to_pylist() == [["x", "y"], ["z", "z"]]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint64()])
def test_values_are_numbers(read, fails, kind):
    table = pa.table({"text": ["a", "b"], "score": pa.array([0, 3], kind)})
    assert read(table, {"tokens": "text", "value": "score"})["value"].to_pylist() == [0.0, 3.0]
    for wrong in (None, float("nan"), float("inf")):
        table = pa.table({"text": ["a", "b"], "score": pa.array([0.0, wrong])})
        message = fails(table, {"tokens": "text", "value": "score"})
        assert message == f"FILE: column score: row 2 is {wrong}; every row needs a finite number"
    message = fails(table, {"tokens": "text", "value": "text"})
    assert message == "FILE: column text has type string; value must be one number per row"


def test_numbers_are_ignored_only_in_targets(read):
    assert read(pa.table({"words": [[1, -100]]}), {"tokens": "words"})["tokens"].to_pylist() == [["1", "-100"]]


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        (TABLE, {"tokens": "txt"}, "column 'txt' is unknown (dataset.columns, FILE); did you mean 'text'?"),
        (TABLE, {"tokens": "text.en"}, "field 'en' is unknown (dataset.columns, FILE: text.en)"),
        (TABLE, {"label": "label"}, "dataset=parquet: dataset.columns names label; it must name the column that holds"),
        (TABLE, {"tokens": "text", "line": "label"}, "dataset=parquet: dataset.columns names tokens, line; it must"),
        (TABLE, {"tokens": "words", "tags": "label"}, "FILE: column label has type int64; tags must be lists with one"),
        (TABLE, {"tokens": "words", "label": "tags"}, "FILE: column tags has type list<element: int64>; label must be"),
        (
            TABLE,
            {"tokens": "words", "tags": "words"},
            "FILE: column words: row 1: tag 'a' at the start of a sentence is",
        ),
        (pa.table({"t": ["a", None]}), {"tokens": "t"}, "FILE: column t: row 2 has no value; every row needs one"),
        (
            pa.table({"t": [["a"], [], ["b", None]]}),
            {"tokens": "t"},
            "FILE: column t: row 3 has an item without a value",
        ),
        (
            pa.table({"t": [b"a", b"\xff"]}),
            {"tokens": "t"},
            "FILE: column t has type binary, which is no text: Invalid",
        ),
        (pa.table({"t": [{"a": 1}]}), {"tokens": "t"}, "FILE: column t has type struct<a: int64>, which is no text"),
        (
            pa.table({"t": ["a", "b"], "l": ["x", ""]}),
            {"tokens": "t", "label": "l"},
            "FILE: column l: row 2 is empty; every",
        ),
        (TABLE.slice(0, 0), {"tokens": "text"}, "FILE: no examples in the file"),
        (
            TABLE.set_column(3, "label", [[0, 2, -1]]),
            {"tokens": "text", "label": "label"},
            "FILE: column label: row 2: class 2 has no name; classes are 0 to 1",
        ),
        (
            pa.table({"w": [["a"], ["b", "c"]], "t": [["X"], ["X"]]}),
            {"tokens": "w", "tags": "t"},
            "FILE: column t: row 2: 1 tags for 2 tokens",
        ),
    ],
)
def test_wrong_tables(fails, table, columns, message):
    assert fails(table, columns, span_scheme="IOB2").startswith(message)


def test_what_is_no_table(fails, tmp_path):
    pq.write_table(TABLE, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for content in (b"PAR1", whole[:-20], b"ARROW1\0\0junk"):
        (tmp_path / "file").write_bytes(content)
        assert fails(None, {"tokens": "text"}).startswith("FILE: cannot be read as Parquet, Arrow or Feather ("), (
            content
        )
    (tmp_path / "file").write_bytes(b"text,label\na,1\n")
    message = "FILE: neither Parquet nor Arrow nor Feather, to judge by its first bytes"
    assert fails(None, {"tokens": "text"}) == message
    (tmp_path / "file").write_bytes(b"")
    assert fails(None, {"tokens": "text"}) == "FILE: the file is empty"


def test_a_bomb_is_refused(fails, monkeypatch):
    monkeypatch.setattr(arrow_files, "FREE_EXPANSION_BYTES", 10**5)
    bomb = pa.table({"text": pa.array(["a" * 1000] * 20_000)})
    message = fails(bomb, {"tokens": "text"})
    assert message.startswith("FILE: the columns expand to more than ")
    assert message.endswith(" bytes, the most allowed; if you trust it, write it without compression and dictionaries")
