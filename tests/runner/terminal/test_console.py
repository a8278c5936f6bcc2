"""Messages reach the console, and the file of the run they are about."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.printable import printable
from runner.terminal.console import copied_to, show_messages
from tests.helpers.composed import tag_files

HYDROMEL = [sys.executable, "-m", "runner.cli.train"]
QUICK = ["encoder=conv", "encoder.filters=4", "embedding.size=4", "train.epochs=2", "baselines=false", "threads=1"]
QUIET = ["tracker=none", "run_plots=null", "cache_dir=null", "predictions=false"]
log = logging.getLogger("runner.of_a_test")
other = logging.getLogger("library.of_a_test")


def test_progress_goes_to_stdout_and_warnings_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    show_messages()  # changes nothing
    log.info("epoch %d", 1)
    log.warning("out of memory")
    log.debug("not shown")
    other.info("not shown")
    other.warning("of a library")
    assert capsys.readouterr() == ("epoch 1\n", "out of memory\nof a library\n")


def test_a_file_receives_what_the_console_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    path = tmp_path / run_schema.CONSOLE
    log.info("before")
    for number in (1, 2):
        with copied_to(path):
            log.info("run %d", number)
            assert path.read_text(encoding="utf-8").splitlines()[-1] == f"run {number}", "written at once"
            log.error("error: é")
    log.info("after")
    assert path.read_text(encoding="utf-8") == "".join(f"run {number}\nerror: é\n" for number in (1, 2))
    assert capsys.readouterr().out == "before\nrun 1\nrun 2\nafter\n"


def test_a_file_receives_warnings_of_python_and_a_final_traceback(tmp_path: Path) -> None:
    path = tmp_path / run_schema.CONSOLE

    def crash() -> None:
        with warnings.catch_warnings(), copied_to(path):
            warnings.simplefilter("always")
            warnings.warn("of a library", stacklevel=1)
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        crash()
    text = path.read_text(encoding="utf-8")
    assert "UserWarning: of a library" in text
    assert text.endswith("ValueError: a bug\n")
    assert text.count("Traceback (most recent call last)") == 1


def test_no_message_commands_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    with copied_to(tmp_path / run_schema.CONSOLE):
        log.info("%s:\tb\nc", "a\x1b]0;owned\x07 \x9b2J \r \x7f \u202e \u2028 é 東京 \u200d")
        log.warning("\x1bc")
    shown = "a\ufffd]0;owned\ufffd \ufffd2J \ufffd \ufffd \ufffd \ufffd é 東京 \u200d:\tb\nc\n"
    assert capsys.readouterr() == (shown, "\ufffdc\n")
    assert (tmp_path / run_schema.CONSOLE).read_text(encoding="utf-8") == f"{shown}\ufffdc\n"
    assert (
        printable("\udc9b") == "\ufffd"
    )  # not logged here, since pytest-xdist cannot send surrogates of a captured log


def test_what_python_itself_prints_commands_no_terminal() -> None:
    code = (
        "import warnings; from runner.terminal.console import show_messages; show_messages()\n"
        "warnings.warn('a\\x1b[2J'); raise ValueError('b\\x1b[2J')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UserWarning: a\ufffd[2J\n" in done.stderr
    assert done.stderr.endswith("\nValueError: b\ufffd[2J\n")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(HydromelError, match=rf"cannot write {tmp_path}: "), copied_to(tmp_path):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_does_not_end_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    show_messages()
    with copied_to(Path("/dev/full")):
        log.info("epoch 1")
    assert capsys.readouterr() == ("epoch 1\n", "")


@pytest.mark.parametrize(("outlives", "code"), [(True, 0), (False, 141)])
def test_a_run_goes_on_without_a_reader(tmp_path: Path, outlives: bool, code: int) -> None:
    path = tmp_path / run_schema.CONSOLE
    script = (
        "import logging, pathlib, sys\n"
        "from runner.terminal import command_line, console\n"
        "def work():\n"
        f"    if {outlives}: console.outlive_reader()\n"
        f"    with console.copied_to(pathlib.Path({str(path)!r})):\n"
        "        sys.stdin.read()\n"
        "        for line in 'abc': logging.getLogger('runner').info(line)\n"
        "    return 0\n"
        "sys.exit(command_line.exit_code(work))\n"
    )
    item = subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, stderr=-1, text=True)
    assert item.stdin is not None
    assert item.stdout is not None
    assert item.stderr is not None
    with item, item.stderr:
        item.stdout.close()
        item.stdin.close()  # from now on it writes
        assert "Traceback" not in item.stderr.read()
    assert item.returncode == code
    if outlives:
        assert path.read_text(encoding="utf-8") == "a\nb\nc\n"


def test_lines_outlive_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / run_schema.CONSOLE
    code = (
        "import logging, os, pathlib, signal; from runner.terminal import console; console.show_messages()\n"
        f"with console.copied_to(pathlib.Path({str(path)!r})):\n"
        "    logging.getLogger('runner').info('the last line')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "the last line\n")
    assert path.read_text(encoding="utf-8") == "the last line\n"


def shown(folder: Path, *arguments: str) -> list[str]:
    """Return the lines of a command, stdout and stderr together."""
    command = [*HYDROMEL, *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout.splitlines()


def test_the_jobs_of_a_sweep_each_have_their_own_file(tmp_path: Path) -> None:
    data = tag_files(tmp_path)
    lines = shown(tmp_path, "-m", *data, *QUICK, *QUIET, "batching=packed,padmask", "sweep.id=two")
    files = sorted((tmp_path / "runs" / "two").glob(f"*/{run_schema.CONSOLE}"))
    assert [path.parent.name.split("-")[0] for path in files] == ["packed", "padmask"]
    kept = [path.read_text(encoding="utf-8").splitlines() for path in files]
    of_sweep = [line for line in lines if line.startswith(("--- ", "compare: "))]
    assert sorted([*of_sweep, *kept[0], *kept[1]]) == sorted(lines)
    assert [line.split()[:2] for line in kept[0] if line.startswith("epoch")] == [["epoch", "1"], ["epoch", "2"]]
    assert kept[0][-1] in lines


def test_an_error_of_a_run_is_in_its_file(tmp_path: Path) -> None:
    data = tag_files(tmp_path)
    folder = tmp_path / "run"
    lines = shown(
        tmp_path,
        *data,
        *QUICK,
        *QUIET,
        "optimizer=sgd",
        "optimizer.lr=1e9",
        "train.clip_norm=null",
        f"hydra.run.dir={folder}",
    )
    assert lines[-1].startswith("error: ")
    assert (folder / run_schema.CONSOLE).read_text(encoding="utf-8").splitlines() == lines
