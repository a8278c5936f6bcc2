"""Files that commands write: tried before the work, whole or not at all, and valid JSON whatever the figures."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import pytest

from runner.cli.text_io import writing
from runner.common.errors import HydromelError
from runner.common.files import check_writable, remove_leftovers, to_json, write_bytes, write_output


def test_trying_a_file_makes_its_folder_and_changes_nothing(tmp_path: Path) -> None:
    check_writable(None)
    check_writable(tmp_path / "a" / "b" / "new.json")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "old.json").write_text("kept", encoding="utf-8")
    check_writable(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text(encoding="utf-8") == "kept"
    write_output(tmp_path / "old.json", "déjà")
    assert (tmp_path / "old.json").read_text(encoding="utf-8") == "déjà"


def test_why_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HydromelError, match=r"^cannot write .*/x: .*/file is not a folder$"):
        check_writable(tmp_path / "file" / "more" / "x")
    for attempt in (check_writable, lambda path: write_output(path, "")):
        with pytest.raises(HydromelError, match=r"^cannot write .*: Is a directory$"):
            attempt(tmp_path)


def test_json_has_no_infinity() -> None:
    text = to_json({"a": [math.inf, 1.5], "b": {"c": (math.nan, -math.inf)}})
    assert json.loads(text) == {"a": [None, 1.5], "b": {"c": [None, None]}}


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HydromelError, match="No space left on device"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    """A child that has ended has a number that no process has."""
    child = subprocess.Popen(["true"])
    child.wait()
    (tmp_path / "deep").mkdir()
    kept = {".hidden", f".file.{os.getppid()}", ".file.0", f"file.{child.pid}", ".file." + "9" * 30}
    for name in kept | {f".file.json.{child.pid}", f".file.{os.getpid()}"}:
        (tmp_path / "deep" / name).touch()
    remove_leftovers(tmp_path)
    assert set(os.listdir(tmp_path / "deep")) == kept


def test_a_write_that_a_signal_stops_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == []


def test_a_link_with_the_name_of_a_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    """A folder from elsewhere may have such a link for each number that a process can have."""
    (tmp_path / "victim").write_text("precious", encoding="utf-8")
    for write in (lambda path: write_bytes(path, b"new"), _write_by_a_command):
        (tmp_path / f".file.{os.getpid()}").symlink_to("victim")
        write(tmp_path / "file")
        assert (tmp_path / "victim").read_text(encoding="utf-8") == "precious"
        assert (tmp_path / "file").read_bytes() == b"new"
        assert not (tmp_path / "file").is_symlink()


def _write_by_a_command(path: Path) -> None:
    with writing(path) as file:
        file.write(b"new")


def test_files_have_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
