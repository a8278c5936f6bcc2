"""Hydra's launchers: what became of their jobs is read from folders, and errors of a launcher are one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock
from hydra.errors import MissingConfigException

from runner.common import run_schema
from runner.config.compose import explain
from runner.sweeps import launched
from runner.sweeps.jobs import SweepJobs
from runner.sweeps.launched import collect, first_line, refuse
from runner.terminal.console import show_messages
from runner.terminal.interruption import Interruption
from runner.tracking import network_files
from tests.helpers.composed import label_files

HYDROMEL = [sys.executable, "-c", "from runner.cli.train import main; main()"]
OPTIONS = ["encoder=bow", "embedding.size=4", "tracker=none", "cache_dir=null", "threads=1", "train.max_updates=2"]
OPTIONS += ["predictions=false", "baselines=false", "batching=padmask", "sweep.id=s"]
PROGRAMS = ("slurmctld", "slurmd", "sbatch")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]


def sweep(folder: Path, launcher: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*HYDROMEL, "-m", *label_files(folder, 20), *OPTIONS, f"hydra/launcher={launcher}", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.mark.skipif(find_spec("submitit") is None, reason="hydra-submitit-launcher is not installed")
def test_submitits_jobs_are_told_of(tmp_path: Path) -> None:
    done = sweep(tmp_path, "submitit_local", "train.epochs=1,0")
    assert done.returncode == 1
    assert done.stdout.startswith(
        "hydra/launcher=submitit_local starts the jobs; runs/s/JOB/console.log has what each "
    )
    refused, last = done.stderr.splitlines()
    assert refused.startswith("failed: task=classify ")
    assert "train.epochs=0: " in refused
    assert last.startswith("error: 1 of 2 jobs failed (task=classify ")
    (result,) = (tmp_path / "runs" / "s").glob(f"*/{run_schema.RESULT}")
    assert json.loads(result.read_text(encoding="utf-8"))["provenance"]["jobs"] == 2


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster of one node, this machine, whose configuration `SLURM_CONF` names."""
    folder, host = tmp_path / "slurm", socket.gethostname().split(".")[0]
    (folder / "state").mkdir(parents=True)
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    options = {
        "ClusterName": "one",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": ports[0],
        "SlurmdPort": ports[1],
        "AuthType": "auth/none",
        "CredType": "cred/none",
        "SlurmUser": os.environ.get("USER") or "root",
        "SlurmdUser": os.environ.get("USER") or "root",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "NodeName": f"{host} NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN",
        "PartitionName": "all Nodes=ALL Default=YES State=UP",
    }
    config = folder / "slurm.conf"
    config.write_text("".join(f"{key}={value}\n" for key, value in options.items()), encoding="utf-8")
    monkeypatch.setenv("SLURM_CONF", str(config))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    daemons = []
    for program in ("slurmctld", "slurmd"):
        daemons.append(subprocess.Popen([str(shutil.which(program)), "-D"], **quiet))
        time.sleep(1.0)
    yield config
    for daemon in reversed(daemons):
        daemon.terminate()
        daemon.wait()


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
@pytest.mark.skipif(find_spec("submitit") is None, reason="hydra-submitit-launcher is not installed")
@pytest.mark.usefixtures("cluster")
def test_slurm_runs_a_sweep(tmp_path: Path) -> None:
    done = sweep(tmp_path, "submitit_slurm", "train.epochs=1", "hydra.launcher.timeout_min=9")
    assert (done.returncode, "failed" in done.stderr) == (0, False), done.stderr
    (file,) = (tmp_path / "runs" / "s").glob(f"*/{run_schema.RUN}")
    assert json.loads(file.read_text(encoding="utf-8"))["status"] == run_schema.FINISHED


def test_outcomes_come_from_folders(tmp_path: Path) -> None:
    def run(name: str, number: int, **record: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        launched._write(tmp_path, number, {"options": "", "folder": name, "error": None})
        if record:
            whole = {"run_id": "a", "created": 0.0, "host": socket.gethostname(), **record}
            (folder / run_schema.RUN).write_text(json.dumps(whole), encoding="utf-8")
        return folder

    jobs = SweepJobs()
    jobs.sweep, jobs.count = tmp_path, 9
    (run("done", 0, status="running") / run_schema.RESULT).touch()
    refuse(tmp_path, 1, "seed=x", "seed=x: no number")
    run("nan", 2, status="failed", error="the loss is nan")
    run("stopped", 3, status="interrupted", error="stopped by SIGUSR2")
    run("killed", 4, status="running")
    run("elsewhere", 5, status="running", host="other")
    (run("early", 6) / run_schema.CONSOLE).write_text("error: no file\n", encoding="utf-8")
    alive = run("alive", 7, status="running")
    with FileLock(alive / run_schema.LOCK):
        collect(jobs)
    assert jobs.finished == ["done"]
    assert jobs.failed == {
        "seed=x": "seed=x: no number",
        "nan": "failed (the loss is nan)",
        "stopped": "was interrupted (stopped by SIGUSR2)",
        "killed": "was interrupted (its process died)",
        "elsewhere": "it runs on other, or its process died",
        "early": "no file",
        "alive": "it still runs",
        "job 9": "it has not started, or could not write to the sweep's folder",
    }
    assert jobs.code == 1


def test_a_launcher_that_is_not_installed_names_its_extra() -> None:
    error = MissingConfigException("", "hydra/launcher/submitit_slurm", ["basic"])
    assert explain(error) == "hydra/launcher=submitit_slurm is not installed: pip install 'hydromel[cluster]'"


def test_an_error_of_a_launcher_is_one_line() -> None:
    error = RuntimeError("Job not requeued because: timed-out too many times.\n" + "Traceback\n" * 25)
    assert first_line(error) == "RuntimeError: Job not requeued because: timed-out too many times."
    assert first_line(ValueError()) == "ValueError"


def test_sigterm_after_slurms_signal_is_the_same_request() -> None:
    request = Interruption()
    with request.deferred():
        request._receive(signal.SIGUSR2, None)
        request._receive(signal.SIGTERM, None)  # of the queue, to which the job returns
        with pytest.raises(KeyboardInterrupt, match="stopped by SIGUSR2"):
            request.check()
        with pytest.raises(KeyboardInterrupt):
            request._receive(signal.SIGTERM, None)


def test_sqlite_on_a_network_file_system_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show_messages()
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\nhost:/x /net/a\\040b nfs4 rw 0 0\ntmp /net/a\\040b/local tmpfs rw 0 0\n")
    monkeypatch.setattr(network_files, "_MOUNTS", mounts)
    assert network_files.network_file_system(Path("/net/a b/c")) == "nfs4"
    assert network_files.network_file_system(Path("/net/a b/local/c")) is None
    network_files.warn_of_network("sqlite:////net/a b/mlflow.db")
    network_files.warn_of_network("sqlite:////home/mlflow.db")
    network_files.warn_of_network("http://host:5000")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: /net/a b/mlflow.db is on a network file system (nfs4), where SQLite loses records")
    assert "tracker=jsonl and afterwards hydromel sync" in line
