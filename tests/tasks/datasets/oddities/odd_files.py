"""Odd files for every reader of text, and what the reader makes of them; `python -m ... > table.md` writes the table.

A row says `same` if the examples are those of the plain file, `read: ...` if they are others (their tokens and
targets), and otherwise the message, in which FILE stands for the path.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from runner.common.errors import HydromelError

CONFIGS = Path(__file__).parents[4] / "configs" / "dataset"
UNCUT = {"valid": None, "test": None, "valid_fraction": 0.0, "test_fraction": 0.0}
TOKEN = "{}\t{}\t_\t{}\tX\t_\t0\troot\t_\t_\n"
TREE = "({} (2 {}) (2 {}))\n"
PLAIN = {  # reader -> a plain file with three examples
    "columns_file": "Ann\tB-P\nruns\tO\n\nBob\tB-P\n\nit\tO\nis\tO\n",
    "conllu": TOKEN.format(1, "Ann", "X")
    + TOKEN.format(2, "runs", "V")
    + "\n"
    + TOKEN.format(1, "Bob", "X")
    + "\n"
    + TOKEN.format(1, "it", "P"),
    "csv": "text,label\na b,x\nc,y\nd e,x\n",
    "tsv": "text\tlabel\na b\tx\nc\ty\nd e\tx\n",
    "jsonl": "".join(
        f'{{"text": "{text}", "label": "{label}"}}\n' for text, label in (("a b", "x"), ("c", "y"), ("d", "x"))
    ),
    "labelled": "x a b\ny c\nx d e\n",
    "text": "a b\nc\nd e\n",
    "sst_trees": TREE.format(3, "a", "b") + TREE.format(1, "c", "d") + TREE.format(3, "e", "f"),
}
WITHOUT_LABEL = {
    "columns_file": ("Bob\tB-P", "Bob\t"),
    "conllu": ("Bob\t_\tX", "Bob\t_\t"),
    "csv": ("c,y", "c,"),
    "tsv": ("c\ty", "c\t"),
    "jsonl": ('"label": "y"', '"label": ""'),
    "labelled": ("y c", " c"),
    "text": ("c\n", "\n"),
    "sst_trees": ("(1 ", "( "),
}
WRONG_WIDTH = {
    "columns_file": ("Bob\tB-P", "Bob"),
    "conllu": ("Bob\t_\t", "Bob\t"),
    "csv": ("c,y", "c,y,z"),
    "tsv": ("c\ty", "c"),
    "jsonl": (', "label": "y"', ""),
    "labelled": ("y c", "y"),
    "text": ("c\n", "c c c\n"),
    "sst_trees": ("(2 d))", "(2 d)"),
}
QUOTED = {
    "columns_file": ("Bob", '"Bob'),
    "conllu": ("Bob", '"Bob'),
    "csv": ("c,y", '"c, ""c""",y'),
    "tsv": ("c\t", '"c\t'),
    "jsonl": ('"c"', '"\\"c"'),
    "labelled": ("y c", 'y "c'),
    "text": ("c\n", '"c\n'),
    "sst_trees": (" c)", ' "c)'),
}
HEAD = ("| oddity | reader | outcome |", "|---|---|---|")
WORD = {"columns_file": "Bob", "conllu": "Bob"}  # of the second example; `c` in the others


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def word(reader: str) -> str:
    return WORD.get(reader, "c")


def plain(reader: str) -> bytes:
    """The plain file."""
    if reader != "parquet":
        return PLAIN[reader].encode()
    file = io.BytesIO()
    pq.write_table(pa.table({"text": ["a b", "c", "d e"], "label": ["x", "y", "x"]}), file)
    return file.getvalue()


# oddity -> the bytes of the file for a reader
ODD: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda reader: b"\xef\xbb\xbf" + PLAIN[reader].encode(),
    "CRLF": lambda reader: PLAIN[reader].replace("\n", "\r\n").encode(),
    "CR": lambda reader: PLAIN[reader].replace("\n", "\r").encode(),
    "CR CR LF": lambda reader: PLAIN[reader].replace("\n", "\r\r\n").encode(),
    "no line end at the end": lambda reader: PLAIN[reader].rstrip("\n").encode(),
    "blank lines at the end": lambda reader: (PLAIN[reader] + "\n\n\n").encode(),
    "a blank line of spaces at the end": lambda reader: (PLAIN[reader] + "  \n").encode(),
    "a blank line at the beginning": lambda reader: ("\n" + PLAIN[reader]).encode(),
    "NUL": lambda reader: PLAIN[reader].replace(word(reader), f"{word(reader)}\0", 1).encode(),
    "a byte that is no UTF-8": lambda reader: PLAIN[reader].encode().replace(word(reader).encode(), b"\xe9", 1),
    "CR within a word": lambda reader: PLAIN[reader].replace(word(reader), f"{word(reader)}\rz", 1).encode(),
    "UTF-16": lambda reader: PLAIN[reader].encode("utf-16"),
    "UTF-16 without a mark": lambda reader: PLAIN[reader].encode("utf-16-le"),
    "empty": lambda reader: b"",
    "only white space": lambda reader: b" \n\n",
    "wrong width": lambda reader: PLAIN[reader].replace(*WRONG_WIDTH[reader]).encode(),
    "empty label": lambda reader: PLAIN[reader].replace(*WITHOUT_LABEL[reader]).encode(),
    "quotes": lambda reader: PLAIN[reader].replace(*QUOTED[reader]).encode(),
    "gzip": lambda reader: gzip.compress(plain(reader)),
    "bzip2": lambda reader: bz2.compress(plain(reader)),
    "xz": lambda reader: lzma.compress(plain(reader)),
    "zstd": lambda reader: zstd(plain(reader)),
    "damaged gzip": lambda reader: gzip.compress(plain(reader))[:-9],
    "a zip archive": lambda reader: b"PK\x03\x04",
    "a Parquet file": lambda reader: b"PAR1" * 3,
}
NO_FILE = ("a folder", "no file")
OF_BYTES = (
    "empty",
    "only white space",
    "gzip",
    "bzip2",
    "xz",
    "zstd",
    "damaged gzip",
    "a zip archive",
    "a Parquet file",
)
CASES = [(oddity, reader) for oddity in (*ODD, *NO_FILE) for reader in PLAIN] + [
    (oddity, "parquet") for oddity in (*OF_BYTES, *NO_FILE)
]


def make_reader(name: str, folder: Path) -> Any:
    """The reader of configs/dataset/`name`.yaml for the file in a folder."""
    node = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"), resolve=False)
    assert isinstance(node, dict)
    module, _, kind = str(node.pop("_target_")).rpartition(".")
    options = {str(key): value for key, value in node.items()} | UNCUT | {"data_dir": str(folder), "train": "file"}
    if name == "parquet":
        options["columns"] = {"tokens": "text", "label": "label"}
    return getattr(importlib.import_module(module), kind)(**options)


def examples(name: str, folder: Path) -> list[tuple[list[str], object]]:
    """The tokens and targets that a reader reads."""
    train = make_reader(name, folder).read()["train"]
    targets = next(
        (train[column].to_pylist() for column in ("label", "labels", "tags") if column in train.column_names), []
    )
    return [*zip(train["tokens"].to_pylist(), targets or [None] * train.num_rows, strict=True)]


def outcome(name: str, oddity: str, folder: Path) -> str:
    """Return the entry of the table for a reader and an odd file: the same, what it read, or its message."""
    file = folder / "file"
    file.write_bytes(plain(name))
    expected = examples(name, folder)
    file.unlink()
    if oddity == "a folder":
        file.mkdir()
    elif oddity != "no file":
        file.write_bytes(ODD[oddity](name))
    try:
        read = examples(name, folder)
    except HydromelError as error:
        message = str(error).replace(str(file), "FILE").replace(str(folder), "FOLDER")
        return re.sub(r"(Arrow or Feather) \(.*\)", r"\1 (...)", message)  # each version of Arrow has its own words
    if read == expected:
        return "same"
    changed = [example for example in read if example not in expected]
    return f"read: {len(read)} examples" + "".join(f", {tokens} {target}" for tokens, target in changed)


def rows() -> Iterator[str]:
    """The rows of the table; readers of the same outcome share one."""
    for oddity in (*ODD, *NO_FILE):
        names: dict[str, list[str]] = {}
        of_oddity = [name for other, name in CASES if other == oddity]
        for name in of_oddity:
            with tempfile.TemporaryDirectory() as folder:
                what = outcome(name, oddity, Path(folder)).replace(f"dataset={name}:", "dataset=NAME:")
            names.setdefault(what, []).append(name)
        for what, readers in names.items():
            yield f"| {oddity} | {'all' if readers == of_oddity else ', '.join(readers)} | {what} |"


if __name__ == "__main__":
    sys.stdout.writelines(f"{row}\n" for row in (*HEAD, *rows()))
