"""Measure reading of pretrained vectors: seconds and peak memory, compared with gensim.

    python benchmarks/vectors.py --gensim PYTHON_THAT_HAS_GENSIM --json vectors.json

Files have 400,000 words of 100 random numbers, as GloVe text (5 decimals) and as word2vec binary. Each reading has a
fresh process, readers take turns, and the best of the repeats counts. Memory is the peak of the process beyond that
before reading; it includes pages of a mapped file, which the system may reclaim. Gensim always reads the whole file.
Hydromel reads the rows of a vocabulary, here of all words and of every twentieth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

WORDS, SIZE, ROWS_AT_ONCE = 400_000, 100, 10_000
FILES = {"GloVe text": "vectors.txt", "word2vec binary": "vectors.bin"}
_MEASURE = """
import json, resource, sys, time
def held(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
{prepare}
before, start = held(), time.perf_counter()
found = {read}
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "peak_bytes": held() - before, "table_bytes": found.nbytes}}))
"""
_OURS = """
from pathlib import Path
from runner.embeddings.vector_files.load import VectorFile
words = [f"word{{i}}" for i in range(0, {words}, {step})]
"""


def reading(file: Path, step: int) -> str:
    """Return the program that reads `file` with Hydromel's reader, for every `step`th word."""
    read = f"VectorFile(Path({str(file)!r})).find(words, lowercase_if_missing=False).table"
    return _MEASURE.format(prepare=_OURS.format(words=WORDS, step=step), read=read)


def gensim_reading(file: Path, binary: bool) -> str:
    read = f"KeyedVectors.load_word2vec_format({str(file)!r}, binary={binary}, no_header={not binary}).vectors"
    return _MEASURE.format(prepare="from gensim.models import KeyedVectors", read=read)


def write_files(folder: Path) -> None:
    rng = np.random.default_rng(1)
    with (folder / FILES["GloVe text"]).open("w") as text, (folder / FILES["word2vec binary"]).open("wb") as binary:
        binary.write(b"%d %d\n" % (WORDS, SIZE))
        for begin in range(0, WORDS, ROWS_AT_ONCE):
            rows = rng.normal(0, 0.4, (ROWS_AT_ONCE, SIZE)).astype("<f4")
            for number, row in enumerate(rows, start=begin):
                text.write(f"word{number} " + " ".join(f"{value:.5f}" for value in row.tolist()) + "\n")
                binary.write(b"word%d %b\n" % (number, row.tobytes()))


def measured(python: str, program: str) -> dict[str, float]:
    """Return the figures that a fresh, single-threaded process prints."""
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([python, "-c", program], env=environment, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--gensim", metavar="PYTHON", help="Python interpreter that can import gensim (default: leave gensim out)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    programs: dict[tuple[str, str], tuple[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name))
        for kind, file in ((kind, Path(name) / file) for kind, file in FILES.items()):
            programs[kind, "all words"] = sys.executable, reading(file, 1)
            programs[kind, "every 20th word"] = sys.executable, reading(file, 20)
            if options.gensim:
                programs[kind, "gensim, all words"] = options.gensim, gensim_reading(file, file.suffix == ".bin")
        taken = [{key: measured(*program) for key, program in programs.items()} for _ in range(options.repeats)]
    figures = [
        {"file": kind, "reader": reader}
        | {
            figure: min(turn[kind, reader][figure] for turn in taken)
            for figure in ("seconds", "peak_bytes", "table_bytes")
        }
        for kind, reader in programs
    ]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)


def show(figures: list[dict[str, str | float]]) -> None:
    table = Table("file", "read", "seconds", "peak MiB", "table MiB", title=f"{WORDS:,} words of {SIZE} numbers")
    for one in figures:
        peak, kept = (f"{float(one[key]) / 2**20:,.0f}" for key in ("peak_bytes", "table_bytes"))
        table.add_row(str(one["file"]), str(one["reader"]), f"{float(one['seconds']):.2f}", peak, kept)
    Console().print(table)


if __name__ == "__main__":
    main()
