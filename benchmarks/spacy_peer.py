"""Compare a run of Hydromel with spaCy, trained from scratch on the same rows for as long and three times as long.

    python benchmarks/spacy_peer.py --data DATA --python PYTHON_THAT_HAS_SPACY --json spacy.json

Hydromel's run is the experiment of the data set. spaCy's pipeline is that of `spacy init config --optimize efficiency`
(`spacy_train.py`), with the vectors of the experiment and without. All seconds are CPU seconds of one thread: for
Hydromel those of the whole command, for spaCy those of training and of evaluation on valid, without start-up. Words per
second are those of training without evaluation. Prediction is of the test set: for spaCy by `nlp.evaluate` or `pipe`,
for Hydromel by `api.load(RUN).predict`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from runner.common.files import write_text
from runner.components.model_parts import ModelParts
from runner.config.compose import compose_config
from runner.tracking.provenance import cpu_name

VECTORS = "vectors/glove.6B.50d.subset.txt"


@dataclass(frozen=True)
class Work:
    """An experiment, spaCy's component for it, and the column of its targets."""

    experiment: str
    pipe: str
    column: str
    has_vectors: bool = True  # whether spaCy's component reads vectors


WORKS = {
    "wnut17": Work("wnut17", "ner", "tags"),
    "ud_ewt": Work("ud_ewt_pos", "tagger", "tags"),
    "sst2": Work("sst2_conv", "textcat", "label", has_vectors=False),
}


def write_rows(work: Work, data: str, folder: Path) -> dict[str, int]:
    """Write the rows for spaCy; return the number of words of each split."""
    parts, counts = ModelParts.of(compose_config([f"experiment={work.experiment}", f"data_dir={data}"]), []), {}
    for split, table in parts.corpus.read().items():
        rows = zip(table["tokens"].to_pylist(), table[work.column].to_pylist(), strict=True)
        lines = [json.dumps({"words": words, "gold": gold}) + "\n" for words, gold in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[split] = sum(map(len, table["tokens"].to_pylist()))
    return counts


def ours(work: Work, data: str, seed: int, folder: Path, test_words: int) -> dict[str, Any]:
    """Return the figures of a run of the experiment."""
    command = [str(Path(sys.executable).parent / "hydromel"), f"experiment={work.experiment}", f"data_dir={data}"]
    command += [f"seed={seed}", "threads=1", "tracker=none", "baselines=false", "predictions=false", "run_plots=null"]
    before = os.times()
    subprocess.run([*command, f"hydra.run.dir={folder}"], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    quality = result["quality"]["metric"]
    return {
        "test": result["metrics"]["test"][quality],
        "valid": result["metrics"]["valid"][quality],
        "seconds": after.children_user + after.children_system - before.children_user - before.children_system,
        "words_per_s": result["speed"]["real_tokens_per_s"],
        "prediction_words_per_s": test_words / predicted(folder, Path(folder).parent / "test.jsonl"),
    }


def predicted(run: Path, rows: Path) -> float:
    """Return the CPU seconds in which a run predicts the rows."""
    import torch

    from runner import api

    torch.set_num_threads(1)
    trained = api.load(run)
    texts = [json.loads(line)["words"] for line in rows.read_text(encoding="utf-8").splitlines()]
    trained.predict(texts[:50])  # loads kernels
    begin = time.process_time()
    trained.predict(texts)
    return time.process_time() - begin


def theirs(python: str, work: Work, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Return the figures of spaCy."""
    program = Path(__file__).parent / "spacy_train.py"
    command = [python, str(program), str(folder), work.pipe, str(seconds), str(seed)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--python", required=True, help="a Python that has spaCy")
    parser.add_argument("--sets", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    found = []
    for name in options.sets:
        work, entries = WORKS[name], dict[str, list[dict[str, Any]]]()
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                counts = write_rows(work, options.data, Path(folder))
                run = ours(work, options.data, seed, Path(folder) / "run", counts["test"])
                entries.setdefault("Hydromel", []).append(run)
                for words in ("", ", with vectors") if work.has_vectors else ("",):
                    if words:
                        os.symlink(Path(options.data).resolve() / VECTORS, Path(folder) / "vectors.txt")
                    for times in (1, 3):
                        figures = theirs(options.python, work, times * run["seconds"], seed, Path(folder))
                        entries.setdefault(f"spaCy{words}, {times} x the seconds", []).append(figures)
        found.append({"set": name, "entries": entries, "device": cpu_name()})
        show(found[-1])
        if options.json:
            write_text(options.json, json.dumps(found, indent=1) + "\n")


def show(row: dict[str, Any]) -> None:
    table = Table("", "test", "range", "CPU s", "words/s, training", "prediction", title=row["set"], box=box.MARKDOWN)
    for name, figures in row["entries"].items():
        tests = [one["test"] for one in figures]
        means = [mean(one[key] for one in figures) for key in ("seconds", "words_per_s", "prediction_words_per_s")]
        shown = [f"{value:,.0f}" for value in means]
        table.add_row(name, f"{mean(tests):.2f}", f"{min(tests):.2f}-{max(tests):.2f}", *shown)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
