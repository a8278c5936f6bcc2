"""The CPU seconds of a small run by phase: `python -m benchmarks.startup [OPTION ...]`.

Each phase is a process of its own, which does one thing more than the one before; the median of several interleaved
turns is shown, and its difference from the phase before. CPU time is that of all threads, in user and system mode.
`--tree FOLDER` measures another checkout, such as that of an earlier commit.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = "from runner.cli.train import main; import sys; sys.exit(main())"
CONFIG = ["task=tag", "encoder=conv", "train.epochs=1", "threads=1"]


def phases(folder: Path, options: list[str]) -> dict[str, list[str]]:
    """The arguments of Python for each phase."""
    here = f"hydra.run.dir={folder}/run"
    bare = [*CONFIG, "tracker=none", "run_plots=null", "baselines=false", "predictions=false", *options, here]
    store = f"tracker.uri=sqlite:///{folder}/mlflow.db"
    return {
        "python": ["-c", "pass"],
        "import of the command": ["-c", "import runner.cli.train"],
        "compose the config": ["-c", RUN, "--cfg", "job", *CONFIG],
        "import of torch and the runner": ["-c", "import runner.cli.train, runner.experiment.run"],
        "one update": ["-c", RUN, *bare, "train.max_updates=1"],
        "training": ["-c", RUN, *bare],
        "baselines": ["-c", RUN, *bare, "baselines=true"],
        "predictions": ["-c", RUN, *bare, "baselines=true", "predictions=true"],
        "MLflow, and plots if drawn by default": ["-c", RUN, *CONFIG, *options, here, store],
    }


def cpu_seconds(arguments: list[str], tree: Path, folder: Path) -> float:
    """The user and system seconds of a process that starts without a run and a store."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "HYDROMEL_CACHE": str(folder / "cache")}
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        arguments = [argument.replace(str(folder / "new"), fresh) for argument in arguments]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-P", *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--tree", type=Path, nargs="+", default=[Path(__file__).parents[1]], help="checkouts to measure"
    )
    parser.add_argument("options", nargs="*", help="options of every run, such as task=classify")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = phases(folder / "new", given.options)
        seconds: dict[tuple[Path, str], list[float]] = {}
        for turn in range(given.turns + 1):  # the first one fills caches
            for tree in given.tree:
                for phase, arguments in runs.items():
                    taken = cpu_seconds(arguments, tree.absolute(), folder)
                    if turn:
                        seconds.setdefault((tree, phase), []).append(taken)
    for tree in given.tree:
        print(f"\n{tree}\n{'CPU seconds':40} {'in all':>7} {'more':>7}")
        before = 0.0
        for phase in runs:
            value = statistics.median(seconds[tree, phase])
            print(f"{phase:40} {value:7.2f} {value - before:+7.2f}")
            before = value


if __name__ == "__main__":
    main()
