"""The predictions that a run wrote of its test set, as a data frame."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from runner.common.bounded import read_bytes
from runner.common.errors import HydromelError
from runner.common.run_schema import PREDICTIONS

if TYPE_CHECKING:
    import pandas as pd

_MOST_BYTES = 2**31


def read_predictions(folder: Path, split: str) -> pd.DataFrame:
    """Return the predictions of a split: `gold`, `predicted` and, by the task, further columns.

    Of labels and numbers there is a row for each row of the split (docs/results.md), of tags one for each token: `row`,
    `line` (the columns of the data set's file), `gold` and `predicted`.

    Raises:
        HydromelError: the run wrote none.
    """
    import pandas as pd

    place = folder / PREDICTIONS
    if (path := place / f"{split}.tsv").is_file():
        lines = _lines(path)
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        frame = pd.DataFrame(rows[1:], columns=rows[0])
        is_number = "error" in frame.columns
        numbers = ["gold", "predicted", "error"] if is_number else ["score"]
        return frame.astype(dict.fromkeys(numbers, float))
    if (path := place / f"{split}.jsonl").is_file():
        return pd.DataFrame([json.loads(line) for line in _lines(path)])
    if (path := place / f"{split}.conll").is_file():
        return pd.DataFrame(_tokens(_lines(path)), columns=["row", "line", "gold", "predicted"])
    raise HydromelError(f"{folder}: the run wrote no predictions of {split} (predictions=false, or a language model)")


def _lines(path: Path) -> list[str]:
    return read_bytes(path, _MOST_BYTES).decode("utf-8").split("\n")[:-1]


def _tokens(lines: list[str]) -> list[tuple[int, str, str, str]]:
    tokens, row = [], 0
    for line in lines:
        if not line:
            row += 1
            continue
        text, gold, predicted = line.rsplit("\t" if "\t" in line else " ", 2)
        tokens.append((row, text, gold, predicted))
    return tokens
