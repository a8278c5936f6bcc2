"""Measure one part of what needs a GPU, on a machine that may have nothing but Python and torch.

    make gpu PART=tests|layers|train|pretrained|ranks HYDROMEL_DATA=DATA [WHEELS=FOLDER] [PYTHON=python3]

Each part ends within nine minutes: what has not finished by then is stopped, and kept as far as it is. `--wheels` is a
folder of wheels to install first, without an index. The machine, and each command with its exit code, seconds and last
lines, go to `gpu_PART.json` in the folder of results, next to the files that the benchmarks write themselves.

`--device cpu` rehearses a part on a machine without a GPU, with few rounds; its results go to another folder.

    tests       tests/gpu; in a rehearsal tests/device, where a CPU pretends to be a GPU
    layers      layers and the CRF, compared with other ways to compute the same
    train       whole updates beside loops by hand, for a tagger, classifiers and a language model
    pretrained  fine-tuning of MiniLM beside transformers
    ranks       several ranks, if there are several GPUs; else that they are refused
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 540.0  # of a part
TAIL = 4_000  # characters of a command's output that are kept
TRAIN = ("tagger_wnut17", "conv_sst2", "lstm_sst2", "word_lm_20", "transformer_newsgroups4")
PRETRAINED = ("minilm_sst2", "minilm_wnut17")
PARTS = ("tests", "layers", "train", "pretrained", "ranks")
Command = list[str]


def commands(part: str, device: str, data: str, results: Path) -> list[Command]:
    """Return the commands of a part, without the Python that runs them."""
    rehearsal = device == "cpu"
    rounds = ["--rounds", "1"] if rehearsal else []
    bench = ["benchmarks/bench.py", "--device", device, "--data", data, "--results", str(results), *rounds, "--rows"]
    pytest = ["-m", "pytest", "-q", "-rfEs", "-p", "no:randomly"]
    if part == "tests":
        return [[*pytest, "tests/device" if rehearsal else "tests/gpu"]]
    if part == "layers":
        layers = ["benchmarks/layers.py", "--data", data, "--device", device, *rounds]
        crf = ["benchmarks/crf.py", "--device", device, *(["--repeats", "1"] if rehearsal else [])]
        return [[*layers, "--json", str(results / "layers_gpu.json")], [*crf, "--json", str(results / "crf_gpu.json")]]
    if part == "train":
        return [[*bench, row] for row in TRAIN]
    if part == "pretrained":
        return [[*bench, row] for row in PRETRAINED]
    ranks = ["-m", "benchmarks.ranks", "--data", data, "--device", device, "--turns", "1" if rehearsal else "2"]
    works = ["--works", "convolution, SST-2", *([] if rehearsal else ["MiniLM, SST-2"])]
    return [[*pytest, "tests/gpu/test_gpu_ranks.py"], *([[*ranks, *works]] if rehearsal or gpus() > 1 else [])]


def gpus() -> int:
    """Return the number of GPUs that torch finds."""
    import torch

    return torch.cuda.device_count()


def machine(device: str) -> dict[str, object]:
    """Return a description of this machine."""
    import torch

    found: dict[str, object] = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "gpus": gpus(),
    }
    if device == "cuda":
        asked = "name,memory.total,driver_version,clocks.max.sm,power.limit"
        query = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        found |= {"cuda": torch.version.cuda, "nvidia-smi": done.stdout.strip() or done.stderr.strip()}
    return found


def run(command: Command, limit: float) -> dict[str, object]:
    """Run a command in the repository for at most `limit` seconds; return its exit code, seconds and last lines."""
    begin = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    print(f"--- {' '.join(command)}", flush=True)
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=max(1.0, limit))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    print(output[-TAIL:], flush=True)
    seconds = time.perf_counter() - begin
    return {"command": command, "rc": process.returncode, "seconds": round(seconds, 1), "output": output[-TAIL:]}


def main() -> None:
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", default=os.environ.get("HYDROMEL_DATA") or None, help="folder of published data sets")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    if options.data is None and options.part != "tests":
        sys.exit("error: the published data sets are needed: give --data FOLDER, or set HYDROMEL_DATA")
    if options.wheels is not None:
        wheels = sorted(map(str, options.wheels.glob("*.whl")))
        if not wheels:
            sys.exit(f"error: --wheels {options.wheels}: no *.whl there")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *wheels]
        if code := subprocess.run(pip, check=False).returncode:
            sys.exit(f"error: the wheels of {options.wheels} could not be installed (pip ended with {code})")
    if options.device == "cuda" and not gpus():
        sys.exit("error: torch finds no GPU; --device cpu rehearses the part on the CPU")
    results = options.results.resolve() / ("rehearsal" if options.device == "cpu" else "")
    results.mkdir(parents=True, exist_ok=True)
    record = {"part": options.part, "machine": machine(options.device), "commands": list[dict[str, object]]()}
    for command in commands(options.part, options.device, options.data or "", results):
        left = SECONDS - (time.perf_counter() - begin)
        if left > 0:
            record["commands"].append(run(command, left))
        else:
            record["commands"].append({"command": command, "rc": None, "seconds": 0.0, "output": "no time left"})
        text = json.dumps(record, indent=1) + "\n"
        (results / f"gpu_{options.part}.json").write_text(text, encoding="utf-8")
    failed = [one for one in record["commands"] if one["rc"] != 0]
    print(f"{options.part}: {len(record['commands']) - len(failed)} of {len(record['commands'])} commands succeeded")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
