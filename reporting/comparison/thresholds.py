"""`--fail-if "test/f1 < -1.0"`: a bound on how a figure may have changed since the baseline.

Grammar: FIGURE (`<` | `>`) BOUND [`%`]. FIGURE is a name of result.json's, section and key (`test/f1`,
`speed/real_tokens_per_s`, `memory/peak_bytes`, `seconds/total`), or short `speed` or `memory`. BOUND is a change: now
minus then, in units of the figure, or with % in percent of then. `<` takes a bound of 0 or below, `>` of 0 or above.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from reporting.runs.figures import SECTIONS
from reporting.statistics.intervals import Mean
from runner.common.errors import HydromelError, did_you_mean

SHORT = {"speed": "speed/real_tokens_per_s", "memory": "memory/peak_bytes"}
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
GRAMMAR = re.compile(rf"\s*(?P<figure>[^\s<>]+)\s*(?P<sign>[<>])\s*(?P<bound>{NUMBER})\s*(?P<percent>%?)\s*", re.ASCII)


@dataclass(frozen=True)
class Condition:
    """Fails where the change of `figure` lies beyond `bound`, below it or above, and not by chance."""

    text: str
    figure: str
    below: bool
    bound: float
    percent: bool

    def beyond(self, change: float) -> bool:
        return change < self.bound if self.below else change > self.bound

    def certain(self, interval: Mean) -> bool:
        """Whether all of the interval is on this condition's side of no change; without bounds there is no chance."""
        if interval.low is None or interval.high is None:
            return True
        return interval.high < 0 if self.below else interval.low > 0


def parse(text: str) -> Condition:
    """Raises HydromelError for what does not fit the grammar, or a section that no run has."""
    found = GRAMMAR.fullmatch(text)
    if found is None:
        raise HydromelError(
            f"--fail-if '{text}' is not FIGURE < BOUND or FIGURE > BOUND, such as 'test/f1 < -1.0' or 'speed < -5%' "
            "(docs/comparison.md)"
        )
    name, bound, below = found["figure"], float(found["bound"]), found["sign"] == "<"
    figure = SHORT.get(name, name)
    section, slash, key = figure.partition("/")
    if section not in SECTIONS or not key:
        choices = [*SHORT, *(f"{each}/..." for each in SECTIONS)]
        close = did_you_mean(section, [*SHORT, *SECTIONS]) if not slash or section not in SECTIONS else "."
        raise HydromelError(f"figure '{name}' is unknown (--fail-if '{text}'){close} Allowed: {', '.join(choices)}")
    if not math.isfinite(bound):
        raise HydromelError(f"--fail-if '{text}': no change is beyond {found['bound']}")
    if (bound > 0) if below else (bound < 0):
        raise HydromelError(
            f"--fail-if '{text}': the bound is on the change, so it is {'0 or below' if below else '0 or above'} "
            f"with {found['sign']}"
        )
    return Condition(" ".join(text.split()), figure, below, bound, bool(found["percent"]))
