"""Exported files beside their runs, by task and format: `python -m benchmarks.export_table --data DATA --runs FOLDER`.

Trains a run of each task on published data unless it is in FOLDER, exports it as `hydromel-export` does, and prints a
table: the largest difference from the run, answers, quality on test, and speed by medians of interleaved turns, beside
that of the run as `hydromel-predict`, `hydromel-evaluate` and `hydromel-generate` compute. In float32 and in 8 bits.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from runner.cli.run_arguments import load_from
from runner.export.export import Exported, Measured, export
from runner.export.formats import Format
from runner.export.programs import Part
from runner.export.speed import unit_of
from runner.inference.trained import TrainedModel
from runner.training.checkpoint import checkpoint_path

VECTORS = ("embedding=vectors", "embedding.path=vectors/glove.6B.50d.subset.txt", "features.words.lowercase=true")
PAIRS = ("task=classify", "dataset=stdlib_docstrings", "task.pairs=apart", "encoder=conv", "train.epochs=3")
SHORT_LM = ("task=lm", "dataset=wikitext2", "train.max_updates=400", "train.epochs=1", "baselines=false")
# name -> (how it is trained, the part of a language model)
TASKS: dict[str, tuple[tuple[str, ...], Part | None]] = {
    "WNUT-17, CRF": (
        ("experiment=wnut17", "task.head=crf", "task.constraints=both", "task.label_weights=null", "train.epochs=8"),
        None,
    ),
    "SST-2": (("experiment=sst2_conv",), None),
    "TREC": (("experiment=trec_conv",), None),
    "SST-5, numbers": (("task=regress", "dataset=sst5", "encoder=conv", *VECTORS, "train.epochs=3"), None),
    "pairs of docstrings": (PAIRS, None),
    "WikiText-2, LSTM": ((*SHORT_LM, "encoder=lstm"), "step"),
    "WikiText-2, transformer": ((*SHORT_LM, "encoder=transformer", "task.unit=line"), "lines"),
}
HEADER = "| run | file | largest difference | same answers | test | speed | MB |\n|---|---|---|---|---|---|---|"


def folder_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())


def train(name: str, options: tuple[str, ...], data: str, folder: Path) -> None:
    """Train a run by the command, unless its folder has one."""
    if (folder / "result.json").is_file():
        return
    given = [*options, f"data_dir={data}", "threads=1", "tracker=none", "run_plots=null", f"hydra.run.dir={folder}"]
    subprocess.run([sys.executable, "-m", "runner.cli.train", *given], check=True)


def row(exported: Exported, result: Measured, name: str) -> str:
    """Return a row of the table, without its first cell."""
    found, unit = result.compared, unit_of(exported.program)
    difference = same = ""
    if found is not None:
        difference = f"{found.largest:.1g}"
        answers = found.same + found.ties + found.changed
        same = f"{found.same} of {found.compared}" if answers else ""
    quality = "" if result.quality is None else f"{exported.figure} {result.quality:.2f}"
    cells = (name, result.name, difference, same, quality, f"{result.speed:,.0f} {unit}", f"{result.size / 1e6:.2f}")
    return f"| {' | '.join(cells)} |"


def measure(name: str, run: Path, part: Part | None, forms: list[Format], data: str) -> None:
    """Export a run in each format, and print its rows."""
    trained = load_from(run, "cpu", "float32", [], data, TrainedModel.load)
    size = checkpoint_path(run, "best").stat().st_size
    with tempfile.TemporaryDirectory() as folder:
        for form in forms:
            path = Path(folder) / ("model.onnx" if form == "onnx" else "model.pt2")
            exported = export(trained, path, form, part, form == "onnx", None, rows=100, seed=1, checkpoint_size=size)
            for result in exported.measured:
                print(row(exported, result, name), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("HYDROMEL_DATA"), help="folder of the published data sets")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trained runs")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS), help="rows of the table")
    parser.add_argument("--formats", nargs="*", choices=("onnx", "torch"), default=["onnx", "torch"])
    options = parser.parse_args()
    print(HEADER, flush=True)
    for name in options.only:
        recipe, part = TASKS[name]
        run = options.runs / folder_name(name)
        train(name, recipe, options.data, run)
        measure(name, run, part, options.formats, options.data)


if __name__ == "__main__":
    main()
