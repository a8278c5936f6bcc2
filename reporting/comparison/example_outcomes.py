"""Outcomes of single test examples (outcomes.npz): what each adds to a run's metric, and how strategies differ."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from reporting.runs.run import Run
from reporting.statistics import bootstrap
from reporting.statistics.bootstrap import ExampleSums, FloatArray, Formula
from reporting.statistics.intervals import Mean
from runner.common.bounded import MOST_ARRAYS_BYTES, check_uncompressed, read_bytes
from runner.common.errors import HydromelError
from runner.common.run_schema import OUTCOMES

FEWEST_EXAMPLES = 20  # with fewer, resamples of them do not vary as new test sets would
AGREES = 1e-5  # relative tolerance: the metric in result.json may have been summed in another order
# functions of the ratio of sums, by their name in the file
FUNCTIONS: dict[str, Formula] = {"identity": np.array, "exp": np.exp}
ARRAYS = ("numerator", "denominator", "targets")
# raised by numpy and zipfile for damaged files (RuntimeError if a file seems to be encrypted)
DAMAGED = (OSError, ValueError, TypeError, EOFError, LookupError, MemoryError, RuntimeError, BadZipFile, zlib.error)


@dataclass(frozen=True)
class ExampleOutcomes:
    """The outcomes of one run: the terms of its metric = f(sum of numerators / sum of denominators).

    `targets` (n,) are equal in all runs on the same examples.
    """

    sums: ExampleSums
    targets: FloatArray
    f: str


@dataclass(frozen=True)
class ExampleDifferences:
    """The differences to the reference by strategy. `same` have equal outcomes on every example, in all seeds."""

    differences: dict[str, Mean]
    same: set[str]
    problems: list[str]


def read(run: Run) -> ExampleOutcomes | None:
    """Return the outcomes of a run; None if it recorded none, or its metric is not a ratio of sums.

    Raises HydromelError for a file that is damaged, or that does not add up to the metric in result.json.
    """
    path = run.folder / OUTCOMES
    if not path.exists():
        return None
    try:
        content = io.BytesIO(read_bytes(path, MOST_ARRAYS_BYTES))
        check_uncompressed(content, str(path))
        with np.load(content, allow_pickle=False) as arrays:
            outcomes = _outcomes(arrays)
            split = str(arrays["split"][0])
    except DAMAGED as error:
        raise HydromelError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    ratio = outcomes.sums.numerator.sum() / outcomes.sums.denominator.sum()
    recorded, total = run.number(f"metrics.{split}.{run.metric}"), float(FUNCTIONS[outcomes.f](np.array([ratio]))[0])
    if recorded is None or not math.isclose(total, recorded, rel_tol=AGREES, abs_tol=AGREES):
        raise HydromelError(f"{path} does not add up to {run.metric} of result.json: {total:.6g}, not {recorded}")
    return outcomes if split == run.split else None


def compare(
    strategies: Mapping[str, Mapping[int, Run]], reference: Mapping[int, Run], level: float
) -> ExampleDifferences:
    """Compare each strategy (seed -> run) with the reference, over the seeds with the same test examples."""
    problems: list[str] = []
    base = _read_all(reference, problems)
    if not base:
        return ExampleDifferences({}, set(), problems)
    # One draw of examples serves all seeds and strategies, so all of them must have the same test examples.
    targets = next(iter(base.values())).targets
    pairs: dict[str, list[tuple[ExampleSums, ExampleSums]]] = {}
    same: set[str] = set()
    for name, runs in strategies.items():
        own = _read_all({seed: run for seed, run in runs.items() if seed in base}, problems)
        own_pairs = [
            (outcomes.sums, base[seed].sums)
            for seed, outcomes in own.items()
            if np.array_equal(outcomes.targets, targets) and np.array_equal(base[seed].targets, targets)
        ]
        if len(own_pairs) < len(own):
            problems.append(
                f"{name} and the reference do not have the same test examples in all seeds: seeds that differ are left "
                "out."
            )
        if not own_pairs:
            continue
        pairs[name] = own_pairs
        shared = runs.keys() & reference.keys()
        if missing := sorted(shared - own.keys()):
            problems.append(
                f"{name} is compared on examples without seed{'s' if missing[1:] else ''} "
                f"{', '.join(map(str, missing))}: the outcomes of its examples were not recorded."
            )
        if len(own_pairs) == len(shared) and all(
            np.array_equal(sums.numerator, other.numerator) and np.array_equal(sums.denominator, other.denominator)
            for sums, other in own_pairs
        ):
            same.add(name)
    if not pairs or len(targets) < FEWEST_EXAMPLES:
        return ExampleDifferences({}, same, problems)
    formula = FUNCTIONS[next(iter(base.values())).f]
    means = bootstrap.mean_differences(list(pairs.values()), formula, level, bootstrap.resamples_for(level))
    return ExampleDifferences(dict(zip(pairs, means, strict=True)), same, problems)


def _read_all(runs: Mapping[int, Run], problems: list[str]) -> dict[int, ExampleOutcomes]:
    """Return the outcomes by seed, of the runs that have any; errors become lines in `problems`."""
    by_seed, errors = {}, []
    for seed, run in runs.items():
        try:
            if outcomes := read(run):
                by_seed[seed] = outcomes
        except HydromelError as error:
            errors.append(str(error))
    if errors:
        runs_are = "A run is" if len(errors) == 1 else f"{len(errors)} runs are"
        more = "" if len(errors) == 1 else f"; and {len(errors) - 1} more"
        problems.append(f"{runs_are} left out of the intervals on examples: {errors[0]}{more}.")
    return by_seed


def _outcomes(arrays: Mapping[str, npt.NDArray[Any]]) -> ExampleOutcomes:
    """Return the outcomes in these arrays.

    Raises ValueError if an array is missing, is not (n,) or not finite, or has negative denominators or targets.
    """
    if missing := [name for name in (*ARRAYS, "f") if name not in arrays]:
        raise ValueError(f"no array {missing[0]!r} in it; runs of earlier versions are not compared on examples")
    columns = [arrays[name] for name in ARRAYS]
    shapes = {column.shape for column in columns}
    if len(shapes) > 1 or columns[0].ndim != 1 or any(column.dtype.kind not in "iuf" for column in columns):
        raise ValueError(f"{', '.join(ARRAYS)} must hold one number per example")
    numerator, denominator, targets = (column.astype(np.float64) for column in columns)
    if not all(np.isfinite(column).all() for column in columns) or (denominator < 0).any() or not denominator.any():
        raise ValueError("its numbers must be finite, and denominators not negative and not all 0")
    if (f := str(arrays["f"][0])) not in FUNCTIONS:
        raise ValueError(f"f is {f!r}; it must be one of {', '.join(FUNCTIONS)}")
    return ExampleOutcomes(ExampleSums(numerator, denominator), targets, f)
