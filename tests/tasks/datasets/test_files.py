"""Finding and decoding files, and the messages if that fails."""

import bz2
import gzip
import io
import lzma
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from runner.common import bounded
from runner.common.errors import HydromelError
from tasks.datasets.files import find_all, read_text, standard_input


@pytest.fixture
def file(tmp_path):
    def write(data: bytes, name: str = "some.txt"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def fails(path, encoding="utf-8") -> str:
    with pytest.raises(HydromelError) as caught:
        read_text(path, encoding)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def found(files, data_dir) -> list[str]:
    return [str(path) for path in find_all(files, None if data_dir is None else str(data_dir), "dataset=d")]


def not_found(files, data_dir) -> str:
    with pytest.raises(HydromelError) as caught:
        found(files, data_dir)
    return str(caught.value)


def test_path_in_folder_then_name_in_folder_then_error(file, tmp_path):
    flat = file(b"x", "train.conll")
    assert found("tagging/train.conll", tmp_path) == [str(flat)]
    (tmp_path / "tagging").mkdir()
    nested = file(b"x", "tagging/train.conll")
    assert found("tagging/train.conll", tmp_path) == [str(nested)]
    assert found(str(flat), None) == [str(flat)]
    assert not_found("a/b.conll", tmp_path) == (
        f"dataset=d: there is no file {tmp_path}/a/b.conll, and no b.conll directly in {tmp_path}; check data_dir"
    )
    assert not_found("tagging", tmp_path) == f"dataset=d: {tmp_path}/tagging is a folder; give a file, or all with " + (
        f"{tmp_path}/tagging/*"
    )


def test_the_working_directory_is_the_default(file, tmp_path, monkeypatch):
    file(b"x", "train.conll")
    monkeypatch.chdir(tmp_path)
    assert found("train.conll", None) == ["train.conll"]
    assert found("t*.conll", None) == ["train.conll"]
    assert not_found("tagging/wnut17train.conll", None) == (
        "dataset=d: there is no tagging/wnut17train.conll in the working directory; give "
        "data_dir=FOLDER, the folder that contains it"
    )


def test_lists_and_patterns_in_order(file, tmp_path):
    for name in ("b.txt", "a10.txt", "a2.txt", "a.csv", "a[1].txt"):
        file(b"x", name)
    (tmp_path / "in" / "side").mkdir(parents=True)
    file(b"x", "in/side/z.txt")

    def names(files):
        return [str(Path(path).relative_to(tmp_path)) for path in found(files, tmp_path)]

    assert names(["b.txt", "a*.txt"]) == ["b.txt", "a10.txt", "a2.txt", "a[1].txt"]
    assert names("a[1].txt") == ["a[1].txt"], "a file of that name comes before the pattern"
    assert names("a[0-9]*.txt") == ["a10.txt", "a2.txt"]
    assert names("**/z.txt") == ["in/side/z.txt"]
    assert not_found("c*.txt", tmp_path) == f"dataset=d: no file matches {tmp_path}/c*.txt; check data_dir"
    assert not_found("in*", tmp_path) == f"dataset=d: no file matches {tmp_path}/in*; check data_dir", "folders"


def test_two_stars_stand_for_any_folders_but_links(file, tmp_path, monkeypatch):
    (tmp_path / "in" / "side").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for name in ("y.txt", "in/side/z.txt", "in/.hidden", ".git/z.txt"):
        file(b"x", name)
    (tmp_path / "in" / "loop").symlink_to("..")
    everything = [str(tmp_path / name) for name in ("in/side/z.txt", "y.txt")]
    assert found("**/?.txt", tmp_path) == found("**", tmp_path) == everything
    assert found("i*/**/*.txt", tmp_path) == found("in/**", tmp_path) == everything[:1]
    monkeypatch.chdir(tmp_path)
    assert found("**/?.txt", None) == ["in/side/z.txt", "y.txt"]
    assert not_found("**/**/z.txt", None) == "dataset=d: **/**/z.txt has ** more than once; use it once"


def test_a_device_is_no_folder():
    assert not_found("/dev/zero", None) == (
        "dataset=d: /dev/zero is not a regular file, such as a device or a named pipe"
    )


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_compressed_text_is_known_by_its_content(file, compress):
    data = "".join(f"line {number} é\n" for number in range(1000)).encode()
    packed = compress(data)
    assert read_text(file(packed, "plain.txt"), "utf-8").text == data.decode()
    assert read_text(file(packed + compress(b"more\n")), "utf-8").text == data.decode() + "more\n", "two members"
    assert read_text(file(b"plain", f"{compress.__name__}.gz"), "utf-8").text == "plain"
    for damaged in (packed[:-9], packed[:40] + b"\0\xff" * 5 + packed[50:]):
        path = file(damaged)
        assert fails(path).startswith(f"{path}: cannot be read ("), compress
    path = file(compress(b""))
    assert fails(path) == f"{path}: the file is empty"


def test_words_that_begin_like_bzip2_are_text(file):
    assert read_text(file(b"BZh9 is a word\n"), "utf-8").text == "BZh9 is a word\n"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_bombs_are_refused(file, compress, monkeypatch):
    monkeypatch.setattr(bounded, "FREE_EXPANSION_BYTES", 10**6)
    path = file(compress(bytes(5 * 10**6)))
    assert fails(path).startswith(f"{path}: expands to more than 100 times its ")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PAR1...", "a Parquet file; read it with dataset=parquet"),
        (b"ARROW1\0\0", "an Arrow file; read it with dataset=parquet"),
        (b"PK\x03\x04...", "a zip archive or an office document; unpack it, or export it as CSV"),
        (b"%PDF-1.7", "a PDF document; export its text"),
    ],
)
def test_what_is_no_text_is_named(file, data, what):
    path = file(data)
    assert fails(path) == f"{path}: {what}"


@pytest.mark.parametrize(
    "text", ["a\nb", "a\nb\n", "a\r\nb\r\n", "\ufeffa\nb", "a\r\r\nb\r\r\n", "a\rb\r", "a\rb", "a\r\nb\n", "a\nb\r"]
)
def test_lines_and_line_ends(file, text):
    assert read_text(file(text.encode()), "utf-8").lines.to_pylist() == ["a", "b"]


def test_a_cr_within_a_line_is_a_character(file):
    text = "\n a \n\n\u2028b\x0c\rc\u0085\n\n"
    assert read_text(file(text.encode()), "utf-8").lines.to_pylist() == ["", " a ", "", "\u2028b\x0c\rc\u0085", ""]


def test_byte_order_mark_goes_only_from_the_beginning(file):
    assert read_text(file("\ufeffa \ufeff\n\ufeffb".encode()), "utf-8").lines.to_pylist() == ["a \ufeff", "\ufeffb"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "cp1252"])
def test_named_encodings(file, encoding):
    assert read_text(file("café\nnaïve\n".encode(encoding)), encoding).lines.to_pylist() == ["café", "naïve"]


def test_wrong_encoding_names_line_and_byte(file):
    path = file(b"one\ntwo\nth\xe9e\n")
    message = fails(path)
    assert message.startswith(f"{path}:3:3: byte 10 (0xe9) is not utf-8")
    assert "dataset.encoding" in message


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_not_read_as_utf_8(file, encoding):
    path = file("one\ntwo\n".encode(encoding))
    assert fails(path).startswith(
        f"{path}:1:{1 + (encoding == 'utf-16-le')}: a NUL character, which no text has; if the file is in UTF-16, set "
    )
    assert read_text(path, encoding).lines.to_pylist() == ["one", "two"]


@pytest.mark.parametrize("encoding", ["utf-9", "hex"])
def test_unknown_encoding(file, encoding):
    assert f"dataset.encoding='{encoding}' is unknown" in fails(file(b"a"), encoding)


def test_unreadable_files_are_named(file, tmp_path):
    assert fails(tmp_path) == f"{tmp_path}: not a regular file"
    empty = file(b"")
    assert fails(empty) == f"{empty}: the file is empty"
    blank = file(b" \n\n\t\n")
    assert fails(blank) == f"{blank}: no examples; the file contains only white space"
    whole = gzip.compress(bytes(range(256)) * 20)
    for damaged in (whole[:-30], whole[:20] + b"\x00\xff" * 5 + whole[30:], whole[:-8] + b"\0" * 8):
        path = file(damaged)
        assert fails(path).startswith(f"{path}: cannot be read")


# standard input


class Input(io.TextIOWrapper):
    """Standard input with some bytes."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def piped(monkeypatch):
    def pipe(data: bytes) -> Input:
        standard_input.cache_clear()
        stdin = Input(io.BytesIO(data))
        monkeypatch.setattr(sys, "stdin", stdin)
        return stdin

    yield pipe
    standard_input.cache_clear()


def test_standard_input_is_read_once_and_may_be_compressed(piped, corpus, file, tmp_path):
    lines = "".join(f"{number % 2} word{number}\n" for number in range(200)).encode()
    piped(gzip.compress(lines, mtime=0))
    reader = corpus("labelled", None, train="-")
    assert (
        reader.fingerprint() == corpus("labelled", None, train=str(file(gzip.compress(lines, mtime=0)))).fingerprint()
    )
    assert reader.read()["train"].schema.metadata == {b"path": b"-"}
    assert sum(table.num_rows for table in reader.read().values()) == 200, "a second time, from memory"


def test_standard_input_that_cannot_be_read(piped, corpus):
    piped(b"")
    assert fails(Path("-")) == (
        "'-' is standard input, which is empty; pipe a file into the command (the runs of a sweep, of repeat=N and of "
        "a search cannot share it: name a file)"
    )
    standard_input.cache_clear()
    sys.stdin = io.StringIO("a run of a sweep has no bytes to read")
    assert fails(Path("-")).startswith("'-' is standard input, which is empty; pipe a file")
    piped(b"").terminal = True
    assert fails(Path("-")) == "'-' is standard input, which is a terminal; pipe a file into the command"
    piped(b"1 a\n1 \xff\n")
    assert fails(Path("-")).startswith("-:2:3: byte 6 (0xff) is not utf-8")
    with pytest.raises(HydromelError, match="train and test name the same file, -"):
        corpus("labelled", None, train="-", test="-").read()
