"""Outcomes of single test examples (outcomes.npz): what each adds to a run's metric, and how strategies differ."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reporting.runs.run import Run
from reporting.statistics import bootstrap
from reporting.statistics.bootstrap import FloatArray, Formula, Sums
from reporting.statistics.intervals import Mean
from runner.common.errors import HydromelError
from runner.common.run_schema import OUTCOMES

FEWEST_EXAMPLES = 20  # with fewer, resamples of them do not vary as new test sets would
AGREES = 1e-5  # relative tolerance: the metric in result.json may have been summed in another order


def _hundredfold(ratio: FloatArray) -> FloatArray:
    return 100 * ratio


def _itself(ratio: FloatArray) -> FloatArray:
    return ratio


def _bits(ratio: FloatArray) -> FloatArray:
    return ratio / math.log(2)


# metric -> its formula of the ratio; other metrics are not ratios of sums over examples
FORMULAS: dict[str, Formula] = {
    "accuracy": _hundredfold,
    "f1": _hundredfold,
    "perplexity": np.exp,
    "nll": _itself,
    "bits_per_character": _bits,
}
ARRAYS: dict[str, tuple[str, ...]] = {  # in outcomes.npz; the last is the same for all runs on the same examples
    "accuracy": ("right", "answers"),
    "f1": ("right", "predicted", "gold"),
    "perplexity": ("nats", "tokens"),
    "nll": ("nats", "tokens"),
    "bits_per_character": ("nats", "tokens"),
}
# raised by numpy and zipfile for damaged files (RuntimeError if a file seems to be encrypted)
DAMAGED = (
    *(OSError, ValueError, TypeError, EOFError, LookupError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of one run: the terms of its metric, and `asked` (n,), equal in all runs on the same examples."""

    sums: Sums
    asked: FloatArray


@dataclass(frozen=True)
class OnExamples:
    """The differences to the reference by strategy. `same` have equal outcomes on every example, in all seeds."""

    differences: dict[str, Mean]
    same: frozenset[str]
    problems: list[str]


def read(run: Run) -> Outcomes | None:
    """Return the outcomes of a run; None if it recorded none, or its metric is not a ratio of sums.

    Raises HydromelError for a file that is damaged, or that does not add up to the metric in result.json.
    """
    path, formula = run.folder / OUTCOMES, FORMULAS.get(run.metric)
    if formula is None or not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            outcomes = _outcomes(run.metric, arrays)
            split = str(arrays["split"][0])
    except DAMAGED as error:
        raise HydromelError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    recorded, total = run.number(f"metrics.{split}.{run.metric}"), _total(outcomes.sums, formula)
    if recorded is None or not math.isclose(total, recorded, rel_tol=AGREES, abs_tol=AGREES):
        raise HydromelError(f"{path} does not add up to {run.metric} of result.json: {total:.6g}, not {recorded}")
    return outcomes if split == run.split else None


def compare(strategies: Mapping[str, Mapping[int, Run]], reference: Mapping[int, Run], level: float) -> OnExamples:
    """Compare each strategy (seed -> run) with the reference, over seeds in which both answered the same examples."""
    problems: list[str] = []
    base = _read_all(reference, problems)
    if not base:
        return OnExamples({}, frozenset(), problems)
    # One draw of examples serves all seeds and strategies, so all of them must have answered the same examples.
    asked = next(iter(base.values())).asked
    shared = {name: runs.keys() & reference.keys() for name, runs in strategies.items()}
    pairs: dict[str, list[tuple[Sums, Sums]]] = {}
    for name, runs in strategies.items():
        own = _read_all({seed: run for seed, run in runs.items() if seed in base}, problems)
        if own_pairs := _paired(name, own, base, asked, problems):
            pairs[name] = own_pairs
            if missing := sorted(shared[name] - own.keys()):
                problems.append(
                    f"{name} is compared on examples without seed{'s' if missing[1:] else ''} "
                    f"{', '.join(map(str, missing))}: the outcomes of its examples were not recorded."
                )
    same = frozenset(
        name
        for name, seeds in pairs.items()
        if len(seeds) == len(shared[name]) and all(_equal(*pair) for pair in seeds)
    )
    if not pairs or len(asked) < FEWEST_EXAMPLES:
        return OnExamples({}, same, problems)
    formula = FORMULAS[next(iter(reference.values())).metric]
    means = bootstrap.mean_differences(list(pairs.values()), formula, level, bootstrap.resamples_for(level))
    return OnExamples(dict(zip(pairs, means, strict=True)), same, problems)


def _paired(
    name: str, own: Mapping[int, Outcomes], base: Mapping[int, Outcomes], asked: FloatArray, problems: list[str]
) -> list[tuple[Sums, Sums]]:
    """Return (own, reference) sums of the seeds on the examples `asked`; seeds on others add a line to `problems`."""
    pairs = [
        (outcomes.sums, base[seed].sums)
        for seed, outcomes in own.items()
        if np.array_equal(outcomes.asked, asked) and np.array_equal(base[seed].asked, asked)
    ]
    if len(pairs) < len(own):
        problems.append(
            f"{name} and the reference did not answer the same examples in all seeds: those seeds are left out."
        )
    return pairs


def _read_all(runs: Mapping[int, Run], problems: list[str]) -> dict[int, Outcomes]:
    """Return the outcomes by seed, of the runs that have any; errors become lines in `problems`."""
    by_seed = {}
    for seed, run in runs.items():
        try:
            outcomes = read(run)
        except HydromelError as error:
            problems.append(f"Left out on examples: {error}.")
            continue
        if outcomes is not None:
            by_seed[seed] = outcomes
    return by_seed


def _equal(own: Sums, reference: Sums) -> bool:
    return np.array_equal(own.numerator, reference.numerator) and np.array_equal(own.denominator, reference.denominator)


def _outcomes(metric: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Outcomes:
    """Return the outcomes in these arrays.

    Raises ValueError if an array of the metric is missing, or is not (n,) finite numbers of 0 or more.
    """
    names = ARRAYS[metric]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"no array {missing[0]!r} in it")
    columns = [arrays[name] for name in names]
    if any(
        column.ndim != 1 or column.shape != columns[0].shape or column.dtype.kind not in "iuf" for column in columns
    ):
        raise ValueError(f"{', '.join(names)} must hold one number per example")
    if not all(np.isfinite(column).all() and (column >= 0).all() for column in columns) or not columns[-1].any():
        raise ValueError(f"{', '.join(names)} must be finite and not negative, and {names[-1]} not all 0")
    first, *others = (column.astype(np.float64) for column in columns)
    if metric == "f1":  # 2 TP / (predicted + gold)
        return Outcomes(Sums(2 * first, others[0] + others[1]), others[1])
    return Outcomes(Sums(first, others[0]), others[0])


def _total(sums: Sums, formula: Formula) -> float:
    return float(formula(np.array([sums.numerator.sum() / sums.denominator.sum()]))[0])
