"""Splits of one's own file: every label stays in train, and rows of a group stay together, in every format."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner.common.errors import HydromelError

ROWS = [
    {"text": f"word{row} here", "label": "rare" if row == 7 else "ab"[row % 2], "doc": f"d{row // 5}"}
    for row in range(60)
]
TAGGED = [("a\tN\nb\tV\n\n" if row != 7 else "c\tRARE\nd\tN\n\n").replace("a", f"a{row}") for row in range(60)]
FILES = {
    "csv": "text,label,doc\n" + "".join(f"{row['text']},{row['label']},{row['doc']}\n" for row in ROWS),
    "tsv": "".join(f"{row['label']}\t{row['text']}\t{row['doc']}\n" for row in ROWS),
    "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "labelled": "".join(f"{row['label']} {row['text']}\n" for row in ROWS),
    "columns_file": "".join(TAGGED),
}
GROUPS = {
    "csv": {"group_column": "doc"},
    "tsv": {"header": False, "text_columns": 1, "label_column": 0, "group_column": -1},
    "jsonl": {"text_field": "text", "label_field": "label", "group_field": "doc"},
    "parquet": {"columns": {"tokens": "text", "label": "label", "group": "doc"}},
}


@pytest.fixture
def cut(corpus, tmp_path):
    """Return a function that reads ROWS in a format as three splits."""

    def read(name, **options):
        if name == "parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "train")
        else:
            (tmp_path / "train").write_text(FILES[name], encoding="utf-8")
        return corpus(name, tmp_path, train="train", **options).read()

    return read


@pytest.mark.parametrize("name", FILES)
def test_every_label_and_tag_is_in_train_by_default(cut, name):
    options = {key: value for key, value in GROUPS.get(name, {}).items() if not key.startswith("group")}
    tables = cut(name, **options)
    column = "tags" if name == "columns_file" else "label"
    labels = {split: {str(value) for value in table[column].to_pylist()} for split, table in tables.items()}
    assert set(tables) == {"train", "valid", "test"}
    assert labels["valid"] | labels["test"] <= labels["train"]
    assert sum(table.num_rows for table in tables.values()) == 60


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("kind", ["stratified", "hash"])
def test_documents_stay_together(cut, name, kind):
    tables = cut(name, **GROUPS[name], cut=kind, valid_fraction=0.2, test_fraction=0.2)
    split_of = {}
    for split, table in tables.items():
        assert "group" not in table.column_names
        for tokens in table["tokens"].to_pylist():
            number = int(tokens[0].removeprefix("word"))
            assert split_of.setdefault(number // 5, split) == split
    assert len(split_of) == 12
    with pytest.raises(HydromelError, match=r"^dataset=\w+: groups have no effect"):
        cut(name, **GROUPS[name], valid_fraction=0.0, test_fraction=0.0)


def test_a_row_without_a_group_is_named(corpus, tmp_path):
    (tmp_path / "train").write_text("text,label,doc\na,x,d\nb,y,\n", encoding="utf-8")
    with pytest.raises(HydromelError, match=r"train:3: column doc: the group is empty; every row needs one"):
        corpus("csv", tmp_path, train="train", group_column="doc").read()


def documents(tmp_path, corpus, **options):
    parts = [f"-DOCSTART- O\n\n{''.join(TAGGED[start : start + 6]).replace(chr(9), ' ')}" for start in range(0, 60, 6)]
    (tmp_path / "train").write_text("".join(parts), encoding="utf-8")
    options = {"separator": "space", "group_documents": True, "test_fraction": 0.0, "valid_fraction": 0.4} | options
    return corpus("columns_file", tmp_path, train="train", **options)


def test_sentences_of_documents_stay_together(corpus, tmp_path):
    tables = documents(tmp_path, corpus).read()
    numbers = {split: {(line - 1) // 20 for line in table["line"].to_pylist()} for split, table in tables.items()}
    assert not numbers["train"] & numbers["valid"]
    assert numbers["train"] | numbers["valid"] == set(range(10))
    assert "RARE" in str(tables["train"]["tags"].to_pylist())
    apart = documents(tmp_path, corpus, group_documents=False).read()
    assert len({(line - 1) // 20 for line in apart["train"]["line"].to_pylist()}) == 10


def test_documents_need_their_marks(corpus, tmp_path):
    with pytest.raises(HydromelError, match=r"group_documents=true needs dataset\.skip_docstart=true"):
        documents(tmp_path, corpus, skip_docstart=False)
    data = documents(tmp_path, corpus)
    (tmp_path / "train").write_text("a O\n", encoding="utf-8")
    with pytest.raises(HydromelError, match=r"train: no line with -DOCSTART-; use dataset\.group_documents=false"):
        data.read()


def test_only_train_needs_the_column_of_groups(corpus, tmp_path):
    (tmp_path / "train").write_text(FILES["csv"], encoding="utf-8")
    (tmp_path / "test").write_text("text,label\nword,a\n", encoding="utf-8")
    tables = corpus("csv", tmp_path, train="train", test="test", group_column="doc").read()
    assert {split: table.column_names for split, table in tables.items()}["valid"] == ["tokens", "label", "line"]
    assert tables["test"].num_rows == 1
