"""What each test example contributed to a run's figure (outcomes.npz), and how strategies differ on examples."""

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

FEWEST_EXAMPLES = 20  # fewer are too few for what is drawn from them to look like what more would be drawn from
AGREES = 1e-5  # relative: the figure of result.json may be summed in another order


def _hundredfold(ratio: FloatArray) -> FloatArray:
    return 100 * ratio


def _itself(ratio: FloatArray) -> FloatArray:
    return ratio


def _bits(ratio: FloatArray) -> FloatArray:
    return ratio / math.log(2)


# metric -> its formula; others are no ratios of sums over examples
FORMULAS: dict[str, Formula] = {
    "accuracy": _hundredfold,
    "f1": _hundredfold,
    "perplexity": np.exp,
    "nll": _itself,
    "bits_per_character": _bits,
}
ARRAYS: dict[str, tuple[str, ...]] = {  # of outcomes.npz; the last is the same for all runs on the same examples
    "accuracy": ("right", "answers"),
    "f1": ("right", "predicted", "gold"),
    "perplexity": ("nats", "tokens"),
    "nll": ("nats", "tokens"),
    "bits_per_character": ("nats", "tokens"),
}
# what numpy and zipfile raise for files of other bytes than were written; RuntimeError: said to be encrypted
DAMAGED = (
    *(OSError, ValueError, TypeError, EOFError, LookupError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class Outcomes:
    """Of one run: what its examples add up to, and `asked` (n,), what is the same for all runs on these examples."""

    sums: Sums
    asked: FloatArray


@dataclass(frozen=True)
class OnExamples:
    """Differences to the reference by strategy. `same`: those with equal outcomes on every example, in all seeds."""

    differences: dict[str, Mean]
    same: frozenset[str]
    problems: list[str]


def read(run: Run) -> Outcomes | None:
    """The outcomes of a run; None if it recorded none, or its metric is no ratio of sums.

    Raises HydromelError for a file that is damaged, or that does not add up to the figure of result.json.
    """
    path, formula = run.folder / OUTCOMES, FORMULAS.get(run.metric)
    if formula is None or not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            made = _sums(run.metric, arrays)
            split = str(arrays["split"][0])
    except DAMAGED as error:
        raise HydromelError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    recorded, total = run.number(f"metrics.{split}.{run.metric}"), _total(made.sums, formula)
    if recorded is None or not math.isclose(total, recorded, rel_tol=AGREES, abs_tol=AGREES):
        raise HydromelError(f"{path} does not add up to {run.metric} of result.json: {total:.6g}, not {recorded}")
    return made if split == run.split else None


def compared(strategies: Mapping[str, Mapping[int, Run]], reference: Mapping[int, Run], level: float) -> OnExamples:
    """Each strategy (seed -> run) against the reference, over the seeds of which both have outcomes of one test."""
    problems: list[str] = []
    base = _read_all(reference, problems)
    if not base:
        return OnExamples({}, frozenset(), problems)
    asked = next(iter(base.values())).asked
    pairs: dict[str, list[tuple[Sums, Sums]]] = {}
    shared = {name: runs.keys() & reference.keys() for name, runs in strategies.items()}
    for name, runs in strategies.items():
        mine = _read_all({seed: run for seed, run in runs.items() if seed in base}, problems)
        both = [pair for seed, one in mine.items() if _are(pair := (one, base[seed]), asked)]
        if len(both) < len(mine):
            problems.append(
                f"{name} and the reference did not answer the same examples in all seeds: those are left out."
            )
        if not both:
            continue
        pairs[name] = [(one.sums, other.sums) for one, other in both]
        if missing := sorted(shared[name] - mine.keys()):
            problems.append(
                f"{name} is compared on examples without seed{'s' if missing[1:] else ''} "
                f"{', '.join(map(str, missing))}: what each example adds is not on record."
            )
    same = frozenset(
        name
        for name, seeds in pairs.items()
        if len(seeds) == len(shared[name]) and all(_equal(*pair) for pair in seeds)
    )
    if not pairs or len(asked) < FEWEST_EXAMPLES:
        return OnExamples({}, same, problems)
    formula = FORMULAS[next(iter(reference.values())).metric]
    found = bootstrap.mean_differences(list(pairs.values()), formula, level, bootstrap.resamples_for(level))
    return OnExamples(dict(zip(pairs, found, strict=True)), same, problems)


def _read_all(runs: Mapping[int, Run], problems: list[str]) -> dict[int, Outcomes]:
    """By seed, of the runs that have any; what is wrong with others is added to `problems`."""
    found = {}
    for seed, run in runs.items():
        try:
            made = read(run)
        except HydromelError as error:
            problems.append(f"Left out on examples: {error}.")
            continue
        if made is not None:
            found[seed] = made
    return found


def _are(pair: tuple[Outcomes, Outcomes], asked: FloatArray) -> bool:
    return all(np.array_equal(each.asked, asked) for each in pair)


def _equal(one: Sums, other: Sums) -> bool:
    return np.array_equal(one.numerator, other.numerator) and np.array_equal(one.denominator, other.denominator)


def _sums(metric: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Outcomes:
    """Raises ValueError where the arrays that the metric needs are missing, or not (n,) finite numbers from 0 on."""
    names = ARRAYS[metric]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"no array {missing[0]!r} in it")
    found = [arrays[name] for name in names]
    if any(each.ndim != 1 or each.shape != found[0].shape or each.dtype.kind not in "iuf" for each in found):
        raise ValueError(f"{', '.join(names)} are not numbers, one an example")
    if not all(np.isfinite(each).all() and (each >= 0).all() for each in found) or not found[-1].any():
        raise ValueError(f"{', '.join(names)} are not all finite and from 0 on")
    first, *others = (each.astype(np.float64) for each in found)
    if metric == "f1":
        return Outcomes(Sums(2 * first, others[0] + others[1]), others[1])
    return Outcomes(Sums(first, others[0]), others[0])


def _total(sums: Sums, formula: Formula) -> float:
    return float(formula(np.array([sums.numerator.sum() / sums.denominator.sum()]))[0])
