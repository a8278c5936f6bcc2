"""Corpora larger than memory: blocks of any size give the same data, and error messages name the line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from runner.common import files, hashes
from runner.common.errors import HydromelError
from runner.components.model_parts import ModelParts
from runner.config.compose import compose_config
from runner.data import columns
from runner.data.numericalize import Data, describe_data, load_data
from runner.data.truncation import Truncation
from runner.ragged.ragged import Ragged
from runner.text import blocks, vocab
from runner.text.blocks import Blocks
from runner.text.vocab import Vocab, count_strings
from tasks.datasets import text_blocks

CONLL = "".join(f"# text\nAnn{n % 7}\tB-PER\nLee\tI-PER\nsaid\tO\nw{n}\tO\n\n" for n in range(60)) + "\n\n"
LINES = "".join(f"w{n % 11} é{n} <unk> w{n % 3}\n" if n % 5 else "\n" for n in range(90)) + "\n \n"
LABELLED = "".join(f"{'no' if n % 3 else 'yes'} w{n % 11} w{n}\r\n" for n in range(90)) + "\r\n"
TSV = "text\tlabel\n" + "".join(f"w{n % 11} w{n}\t{n % 3}\n" for n in range(90))
SETS = ("task=classify", "task.labels=many")
ESCAPES = ("dataset.quoting=false", r"dataset.escape='\\'", "dataset.delimiter='|'")
PAIRS = ("task.pairs=apart", "dataset.text_field=null", "dataset.text_columns={a: text, b: b}")
LONG = " ".join(f"w{n}" for n in range(200))  # a row longer than a block


def objects(labels: Iterable[object]) -> str:
    rows = ({"text": LONG if n == 50 else f"w{n % 11} é{n}", "b": "w1", "label": y} for n, y in enumerate(labels))
    return "".join(json.dumps(row) + "\n" for row in rows)


CSV = '"text","label"\r\n' + "".join(f'"w{n % 11}\n""w{n}"",\n",{n % 3}\n' for n in range(90))
CSV += f'"{LONG}\n\n",1\n'
ESCAPED = "text|label\n" + "".join(f'"w{n} \\|w{n % 11}\\\n|{n % 3}\\\n\n' for n in range(90))
JSON = objects(n % 3 for n in range(90))
FILES = {
    "conll": (CONLL, ("task=tag", "dataset=columns_file", "dataset.separator=tab", "dataset.comment_prefix='#'")),
    "converted": (CONLL, ("task=tag", "dataset=columns_file", "task.train_scheme=IOBES", "dataset.comment_prefix='#'")),
    "lines": (LINES, ("task=lm", "dataset=text", "features.words.min_count=2")),
    "stream": (LINES, ("task=lm", "task.unit=stream", "dataset=text", "dataset.cut=contiguous")),
    "pieces": (LINES, ("task=lm", "dataset=text", "features=bpe", "dataset.blank_lines=drop")),
    "labelled": (LABELLED, ("task=classify", "dataset=labelled", "max_length=2")),
    "jsonl": (JSON, ("task=classify", "dataset=jsonl")),
    "numbers": (objects([1] * 60 + [2.5] * 30), ("task=regress", "dataset=jsonl")),
    "label sets": (objects([[]] * 60 + [["x"], ["y", "x"], []] * 10), (*SETS, "dataset=jsonl")),
    "pairs": (JSON + " \n\n", ("task=classify", "dataset=jsonl", *PAIRS)),
    "csv": (CSV, ("task=classify", "dataset=csv")),
    "positions": (
        CSV + " \n\n",
        ("task=classify", "dataset=csv", "dataset.text_columns=-2", "dataset.label_column=-1"),
    ),
    "escaped": (ESCAPED, ("task=classify", "dataset=csv", *ESCAPES)),
    "tsv": (TSV, ("task=classify", "dataset=tsv", "dataset.quoting=false", "dataset.text_columns=text")),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Return a function that makes all blocks small, and all files large."""
    monkeypatch.setenv("HYDROMEL_CACHE", str(tmp_path / "folder of the cache"))

    def shrink() -> None:
        monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 300)
        monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", 2000)
        monkeypatch.setattr(columns, "LARGE_BYTES", 200)
        monkeypatch.setattr(hashes, "LARGE_BYTES", 200)
        monkeypatch.setattr(vocab, "MERGED_TOGETHER", 10)

    return shrink


def read(folder: Path, text: str | list[str], options: tuple[str, ...], cache: Path | None = None) -> Data:
    texts = [text] if isinstance(text, str) else text
    for number, content in enumerate(texts):
        (folder / f"{number}.txt").write_text(content, encoding="utf-8", newline="")
    names = ",".join(f"{number}.txt" for number in range(len(texts)))
    cut = ("dataset.valid=null", "dataset.test=null", "dataset.valid_fraction=0.2", "dataset.test_fraction=0.2")
    config = compose_config([*options, f"data_dir={folder}", f"dataset.train=[{names}]", *cut])
    parts = ModelParts.of(config, [])
    return load_data(parts, Truncation(config.max_length, "head"), None if cache is None else str(cache))


def content(data: Data) -> object:
    splits = {}
    for name, batch in data.splits.items():
        target = batch.target.values if isinstance(batch.target, Ragged) else batch.target
        ids = {feature: values.values.tolist() for feature, values in batch.features.items()}
        cut = None if batch.cut is None else (batch.cut.values.tolist(), batch.cut.rows.host_lengths.tolist())
        splits[name] = (ids, batch.rows.host_lengths.tolist(), target.tolist(), str(target.dtype), cut, [*batch.index])
    return splits, data.vocabs, data.oov_rate, data.counts, data.notes, data.fingerprint


@pytest.mark.parametrize("kind", FILES)
def test_blocks_give_the_same_data_in_memory_and_mapped(kind: str, small: Callable[[], None], tmp_path: Path) -> None:
    text, options = FILES[kind]
    options = ("dataset.span_scheme=IOB2", *options) if options[0] == "task=tag" else options
    expected = content(read(tmp_path, [text, text], options))
    small()
    made = read(tmp_path, [text, text], options, tmp_path / "cache")
    assert content(made) == expected
    (path,) = (tmp_path / "cache").glob("*.columns")
    assert hashes._known(path, path.stat(), 32), "the second start does not hash it"
    again = read(tmp_path, [text, text], options, tmp_path / "cache")
    assert again.cached
    assert content(again) == expected


@pytest.mark.parametrize(
    ("kind", "wrong", "told"),
    [
        ("conll", "Ann\tB-PER\tX\n\n", ": 3 tab-separated columns; the file's other lines have 2"),
        ("conll", "Ann\tI-PER\n\n", ": tag 'I-PER' at the start of a sentence is illegal in IOB2"),
        ("tsv", "three\tcolumns\there\n", ": 3 columns; the file's first line has 2"),
        ("csv", '"one column"\n', ": 1 columns; the file's first line has 2"),
        ("csv", '"text\n","more","columns"\n', ": 3 columns; the file's first line has 2"),
        ("csv", '"text\n",\n', ": column label: the label is empty"),
        ("escaped", "text|\n", ": column label: the label is empty"),
        ("tsv", "text\t\n", ": column label: the label is empty"),
        ("lines", "a NUL: \0\n", ":8: a NUL character"),
        ("jsonl", "[1]\n", ": got [1]; each line must hold one JSON object"),
        ("jsonl", '{"text": "w", "label": ""}\n', ": field 'label' is ''; expected an integer"),
        ("numbers", '{"text": "w", "label": "x"}\n', ": field 'label' is 'x'; expected a number"),
        ("label sets", '{"text": "w", "label": "x"}\n', ": field 'label' is 'x'; expected a list of strings"),
    ],
)
def test_a_bad_line_in_a_later_block(
    kind: str, wrong: str, told: str, small: Callable[[], None], tmp_path: Path
) -> None:
    text, options = FILES[kind]
    options = ("dataset.span_scheme=IOB2", *options) if options[0] == "task=tag" else options
    small()
    with pytest.raises(HydromelError) as caught:
        read(tmp_path, text + wrong + text, options)
    number = text.count("\n") + 1
    assert str(caught.value).startswith(f"{tmp_path}/0.txt:{number}{told}")


def test_bytes_that_are_no_text_in_a_later_block(small: Callable[[], None], tmp_path: Path) -> None:
    small()
    (tmp_path / "1.txt").write_bytes(LINES.encode() * 3 + b"a \xff b\n" + LINES.encode())
    at = len(LINES.encode()) * 3 + 2
    with pytest.raises(
        HydromelError, match=rf"1.txt:{LINES.count(chr(10)) * 3 + 1}:3: byte {at} \(0xff\) is not utf-8"
    ):
        [*text_blocks.text_blocks(tmp_path / "1.txt", "utf-8", text_blocks.last_line)]


def test_a_file_that_changes_while_it_is_read(
    small: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small()
    plain = text_blocks.text_blocks

    def growing(path: Path, *arguments: object) -> object:
        yield from plain(path, *arguments)  # type: ignore[arg-type]
        with path.open("a", encoding="utf-8") as file:
            file.write("one more line\n")

    monkeypatch.setattr("tasks.datasets.base.text_blocks", growing)
    with pytest.raises(HydromelError, match="a file changed while it was read; start again once it is complete"):
        read(tmp_path, LINES, FILES["lines"][1], tmp_path / "cache")
    assert not [*(tmp_path / "cache").glob("*.columns")]


def test_a_full_disk_while_the_corpus_is_read(
    small: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small()
    monkeypatch.setattr(blocks.tempfile, "TemporaryFile", lambda dir: Path("/dev/full").open("r+b", buffering=0))  # noqa: SIM115
    with pytest.raises(HydromelError, match=r"^cannot write .*: No space left on device"):
        read(tmp_path, LINES, FILES["lines"][1])


def test_a_truncated_cache_is_made_anew(small: Callable[[], None], tmp_path: Path) -> None:
    small()
    expected = content(read(tmp_path, LINES, FILES["lines"][1], tmp_path / "cache"))
    (path,) = (tmp_path / "cache").glob("*.columns")
    whole = path.read_bytes()
    for wrong in (whole[:-1], whole[: len(whole) // 2], whole[:20], b"", whole[:100] + b"x" + whole[101:]):
        path.unlink()
        path.write_bytes(wrong)
        again = read(tmp_path, LINES, FILES["lines"][1], tmp_path / "cache")
        assert not again.cached
        assert content(again) == expected


def test_the_hash_of_a_large_file_is_computed_once(
    small: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small()
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300)
    first = hashes.file_sha256(path)
    assert not [*files.cache_folder().glob("hashes/*")], "it may change again within the clock's resolution"
    monkeypatch.setattr(hashes, "SETTLED_SECONDS", -1.0)
    assert hashes.file_sha256(path) == first
    with monkeypatch.context() as patch:
        patch.setattr(hashes.hashlib, "sha256", None)
        assert hashes.file_sha256(path) == first
    path.write_bytes(b"y" * 300)
    assert hashes.file_sha256(path) != first


def test_rare_strings_are_forgotten_only_where_they_are_not_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vocab, "MERGED_TOGETHER", 10)
    monkeypatch.setattr(vocab, "MOST_COUNTED", 50)
    parts = [pa.array([f"w{n}", "often", "often"]) for n in range(500)]
    counted, forgotten = count_strings(parts)
    assert (counted.num_rows, forgotten) == (501, 0)
    counted, forgotten = count_strings(parts, may_prune=True)
    assert counted.num_rows < 120
    assert dict(zip(counted["string"].to_pylist(), counted["count"].to_pylist(), strict=True))["often"] == 1000
    assert forgotten > 0
    made = Vocab.words(parts, min_count=2, max_size=None)
    assert (made.strings, made.forgotten) == (("often",), forgotten)
    assert Vocab.from_plain(made.to_plain()) == made


def test_blocks_with_other_columns_are_told() -> None:
    tables = [pa.table({"tokens": [["a"]], "line": [1]}), pa.table({"tokens": ["b"], "line": [2]})]
    tables = [table.replace_schema_metadata({"path": "FILE"}) for table in tables]
    with pytest.raises(HydromelError, match=r"^FILE:2: the rows from here on have the columns tokens \(string\)"):
        Blocks(tables)
    assert np.array_equal(Blocks(tables[:1]).whole()["line"], [1])


def test_a_vocabulary_that_forgot_strings_says_so_also_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocab, "MERGED_TOGETHER", 10)
    monkeypatch.setattr(vocab, "MOST_COUNTED", 50)
    text = "".join(f"often often w{number}\n" for number in range(2000))
    options = ("task=lm", "dataset=text", "features.words.min_count=2")
    for cached in (False, True):
        data = read(tmp_path, text, options, cache=tmp_path / "cache")
        assert data.cached == cached
        note = "occurrences of a rare string of features.words may not be counted"
        assert data.notes["train"][note] == data.vocabs["words"].forgotten > 0
        assert note in describe_data("text", data)
