"""Several ranks on GPUs: the parameters of one process, and a line where there are too few GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.composed import tag_files

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
SMALL = ("encoder=conv", "train.epochs=2", "dtype=float64", "device=cuda", "train.row_dropout=true", "tracker=none")


def hydromel(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = "from runner.cli.main import main; import sys; sys.argv[0] = 'hydromel'; sys.exit(main())"
    command = [sys.executable, "-c", program, *tag_files(folder), *SMALL, *options]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)


def test_more_ranks_than_gpus_are_one_line(tmp_path: Path) -> None:
    ranks = torch.cuda.device_count() + 1
    done = hydromel(tmp_path, f"ranks={ranks}", f"hydra.run.dir={tmp_path / 'run'}")
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert done.returncode == 1
    assert len(lines) == 1, done.stderr
    assert "GPU" in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
@pytest.mark.parametrize("shard", ["none", "full"])
def test_two_ranks_make_the_updates_of_one(tmp_path: Path, shard: str) -> None:
    runs = {}
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        more = ("shard=full",) if ranks == 2 and shard == "full" else ()
        done = hydromel(tmp_path, f"ranks={ranks}", f"hydra.run.dir={folder}", *more)
        assert done.returncode == 0, done.stderr
        runs[ranks] = folder
    digests = [json.loads((run / "result.json").read_text())["updates"]["digest"] for run in runs.values()]
    assert digests[0] == digests[1]
    weights = [load_file(run / "checkpoints" / "best.safetensors") for run in runs.values()]
    assert all(torch.allclose(weights[0][name], weights[1][name], rtol=0, atol=1e-9) for name in weights[0])
