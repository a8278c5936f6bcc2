"""Several cold starts read the data once; a cache that cannot be written is one line."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from filelock import FileLock

from runner.common.files import CannotWrite
from runner.data import cache_lock
from runner.data.cache_lock import building
from runner.terminal.console import show_messages
from runner.terminal.progress import JOB
from tests.runner.data.test_numericalize import Texts, content, loaded


def test_cold_starts_at_the_same_time_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show_messages()
    monkeypatch.setattr(cache_lock, "_PROBE_SECONDS", 0.01)
    monkeypatch.setenv(JOB, "job 1/3")
    waited = threading.Event()

    class Slow(Texts):
        def read(self) -> dict[str, pa.Table]:
            assert waited.wait(60)
            return super().read()

    told = cache_lock.log.info
    monkeypatch.setattr(cache_lock.log, "info", lambda *message: (told(*message), waited.set()))
    corpus = Slow()
    with ThreadPoolExecutor() as pool:
        data = list(pool.map(lambda _: loaded(corpus, tmp_path), range(3)))
    assert corpus.reads == 1
    assert sorted(one.cached for one in data) == [False, True, True]
    assert [content(one) for one in data] == [content(loaded(Texts()))] * 3
    lines = set(capsys.readouterr().out.splitlines())
    (line,) = {line for line in lines if line.startswith("texts is being read by job 1/3, process ")}
    assert line.endswith("; waiting for the cache")
    assert not list(tmp_path.glob("*.holder"))


def test_a_reader_that_fails_leaves_the_lock_to_the_next(tmp_path: Path) -> None:
    class Broken(Texts):
        def read(self) -> dict[str, pa.Table]:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        loaded(Broken(), tmp_path)
    assert not loaded(Texts(), tmp_path).cached


def test_a_full_disk_while_the_cache_is_built_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CannotWrite, match="No space left on device; make room there, or give cache_dir=FOLDER"):
            loaded(Texts(), tmp_path)
    assert not list(tmp_path.glob("*.columns")) + list(tmp_path.glob(".*")), "nothing half written is left"
    assert not loaded(Texts(), tmp_path).cached


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    show_messages()
    monkeypatch.setattr(FileLock, "acquire", refuse)
    with building(tmp_path / "file", "texts"):
        pass
    assert "has no file locks: other runs may read the same data" in capsys.readouterr().err
