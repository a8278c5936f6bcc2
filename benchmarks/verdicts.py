"""Measure false alarms of verdicts: how often one of four strategies that do not differ is said to differ.

    python benchmarks/verdicts.py --json benchmarks/results/verdicts.json

Each comparison is simulated. It draws a new test set, whose examples have difficulties from beta(2, 1). For each
strategy and seed it draws a model, which adds a normal deviate of standard deviation 0.02 to the chance of every
example to be correct. Accuracy is compared by intervals over seeds, by intervals on examples, and by the verdict, which
needs both. A comparison counts once, however many of its three strategies are said to differ from the fourth:
simultaneous intervals promise at most 5 %.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from reporting.comparison.significance import ComparisonRule, quality_verdict
from reporting.statistics import bootstrap, intervals
from reporting.statistics.bootstrap import ExampleSums, FloatArray
from reporting.statistics.intervals import Mean

OTHERS, CONFIDENCE, LUCK = 3, 0.95, 0.02
RULE = ComparisonRule(OTHERS, 1 - (1 - CONFIDENCE) / OTHERS, 1.0, "1.00", True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    made = {}
    for seeds in (1, 3, 5):
        rng = np.random.default_rng(seeds)
        alarms: Counter[str] = Counter()
        for _ in range(options.comparisons):
            alarms.update(compare(rng, seeds, options.examples))
        made[f"{seeds} seeds"] = {each: alarms[each] / options.comparisons for each in ("seeds", "examples", "verdict")}
        print(f"{seeds} seeds", made[f"{seeds} seeds"])
    if options.json:
        about = {"comparisons": options.comparisons, "examples": options.examples}
        options.json.write_text(json.dumps({"about": about, "false_alarms": made}, indent=1) + "\n", encoding="utf-8")


def compare(rng: np.random.Generator, seeds: int, n_examples: int) -> set[str]:
    """Return the intervals, and the verdict, that say that a strategy differs."""
    difficulty = rng.beta(2, 1, n_examples)

    def trained() -> ExampleSums:
        chance = difficulty + rng.normal(0, LUCK)
        return ExampleSums((rng.random(n_examples) < chance).astype(float), np.ones(n_examples))

    reference = [trained() for _ in range(seeds)]
    pairs = [[(trained(), base) for base in reference] for _ in range(OTHERS)]
    on_examples = bootstrap.mean_differences(pairs, percent, RULE.level, bootstrap.resamples_for(RULE.level))
    said = set()
    for examples, each in zip(on_examples, pairs, strict=True):
        gaps = [100 * float(own.numerator.mean() - base.numerator.mean()) for own, base in each]
        over_seeds = intervals.mean_interval(gaps, RULE.level)
        said |= {name for name, mean in (("seeds", over_seeds), ("examples", examples)) if mean and excludes_0(mean)}
        said |= {"verdict"} if quality_verdict(over_seeds, examples, RULE).startswith(("better", "worse")) else set()
    return said


def percent(ratio: FloatArray) -> FloatArray:
    return 100 * ratio


def excludes_0(mean: Mean) -> bool:
    return mean.low is not None and mean.high is not None and (mean.low > 0 or mean.high < 0)


if __name__ == "__main__":
    main()
