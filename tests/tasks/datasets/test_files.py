"""Finding and decoding files, and the messages if that fails."""

import gzip

import pytest

from runner.common.errors import HydromelError
from tasks.datasets.files import find, read_text


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


def test_missing_data_dir_says_what_to_give():
    with pytest.raises(HydromelError) as caught:
        find("tagging/wnut17/wnut17train.conll", None, "wnut17")
    assert str(caught.value) == (
        "dataset=wnut17 reads local files; give data_dir=FOLDER, the folder that contains "
        "tagging/wnut17/wnut17train.conll"
    )


def test_path_in_folder_then_name_in_folder_then_error(file, tmp_path):
    flat = file(b"x", "train.conll")
    assert find("tagging/train.conll", str(tmp_path), "d") == flat
    (tmp_path / "tagging").mkdir()
    nested = file(b"x", "tagging/train.conll")
    assert find("tagging/train.conll", str(tmp_path), "d") == nested
    assert find(str(flat), None, "d") == flat, "an absolute path needs no data_dir"
    with pytest.raises(
        HydromelError, match=rf"dataset=d: there is no file {tmp_path}/a/b\.conll, and no b\.conll directly"
    ):
        find("a/b.conll", str(tmp_path), "d")


@pytest.mark.parametrize("text", ["a\nb", "a\nb\n", "a\r\nb\r\n", "\ufeffa\nb"])
def test_lines_and_line_ends(file, text):
    assert read_text(file(text.encode()), "utf-8").lines.to_pylist() == ["a", "b"]


def test_blank_lines_are_lines_and_only_line_feeds_end_them(file):
    text = "\n a \n\n\u2028b\x0c\rc\u0085\n\n"
    assert read_text(file(text.encode()), "utf-8").lines.to_pylist() == ["", " a ", "", "\u2028b\x0c\rc\u0085", ""]


def test_byte_order_mark_goes_only_from_the_beginning(file):
    assert read_text(file("\ufeffa \ufeff\n\ufeffb".encode()), "utf-8").lines.to_pylist() == ["a \ufeff", "\ufeffb"]


def test_gzip_is_told_by_content(file):
    assert read_text(file(gzip.compress(b"a\nb\n"), "not_named_gz.txt"), "utf-8").text == "a\nb\n"
    assert read_text(file(b"plain", "named.gz"), "utf-8").text == "plain"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "cp1252"])
def test_named_encodings(file, encoding):
    assert read_text(file("café\nnaïve\n".encode(encoding)), encoding).lines.to_pylist() == ["café", "naïve"]


def test_wrong_encoding_names_line_and_byte(file):
    path = file(b"one\ntwo\nth\xe9e\n")
    message = fails(path)
    assert message.startswith(f"{path}:3: byte 10 (0xe9) is not utf-8")
    assert "dataset.encoding" in message


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_not_read_as_utf_8(file, encoding):
    path = file("one\ntwo\n".encode(encoding))
    assert fails(path).startswith(f"{path}:1: a NUL character, which no text has; if the file is in UTF-16, set ")
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
