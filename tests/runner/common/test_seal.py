import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runner.common.records import RunRecord
from runner.common.seal import is_made_here, seal_of

TRACKER = {"_target_": "runner.tracking.tracker.JsonlTracker", "path": "runs.jsonl"}


def run_of(run_id: str = "a1") -> RunRecord:
    return {"run_id": run_id, "created": 1.0, "cwd": "/somewhere", "status": "running"}


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "hydromel" / "key"


def test_a_run_of_this_installation_has_its_seal(key: Path) -> None:
    run = run_of()
    run["seal"] = seal_of(run, TRACKER)
    assert is_made_here(run, dict(reversed(TRACKER.items())))
    assert not is_made_here(run, TRACKER | {"path": "/etc/passwd"})
    assert not is_made_here(run | {"cwd": "/elsewhere"}, TRACKER)
    assert not is_made_here(run | {"run_id": "a2"}, TRACKER)
    assert not is_made_here(run | {"seal": "ü"}, TRACKER)
    assert not is_made_here(run_of(), TRACKER)
    assert not is_made_here(run, "tracker")
    assert len(key.read_bytes()) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_another_key_is_another_installation(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of()
    run["seal"] = seal_of(run, TRACKER)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert not is_made_here(run, TRACKER)
    assert not (tmp_path / "other").exists()


def test_without_a_key_a_run_goes_on_and_says_what_sync_will_need(
    key: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key.parent.parent.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert seal_of(run_of(), TRACKER) is None
    assert "this installation has no key (" in caplog.text
    assert "hydromel-sync will need --uri for this run" in caplog.text


def test_an_empty_key_makes_no_seals(key: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_of()
    run["seal"] = seal_of(run, TRACKER)
    key.write_bytes(b"")
    assert seal_of(run, TRACKER) is None
    assert f"{key} is damaged; remove it" in caplog.text
    assert not is_made_here(run, TRACKER)


def test_processes_that_start_at_once_share_one_key(key: Path) -> None:
    code = "from runner.common.seal import seal_of; print(seal_of({'run_id': 'a', 'cwd': '/'}, {}))"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert {path.name for path in key.parent.iterdir()} == {"key", "key.lock"}
