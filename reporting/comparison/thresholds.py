"""Conditions such as `--fail-if "test/f1 < -1.0"`: bounds on the change of a figure since the baseline.

Grammar: FIGURE (`<` | `>`) BOUND [`%`]. FIGURE is a section and a key of result.json (`test/f1`,
`speed/real_tokens_per_s`, `memory/peak_bytes`, `seconds/total`), or `speed` or `memory` for short. BOUND is a change,
now minus before, in units of the figure, or with % in percent of before. `<` takes a bound of 0 or below, `>` one of 0
or above.
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
    """A condition that fails if `figure` changed beyond `bound` (below or above it), and not by chance."""

    text: str
    figure: str
    below: bool
    bound: float
    percent: bool

    def beyond(self, change: float) -> bool:
        """Return True if a change is beyond the bound."""
        return change < self.bound if self.below else change > self.bound

    def certain(self, interval: Mean) -> bool:
        """Return True if the whole interval is on this condition's side of 0, or unknown."""
        if interval.low is None or interval.high is None:
            return True
        return interval.high < 0 if self.below else interval.low > 0


def parse(text: str) -> Condition:
    """Parse a condition. Raises HydromelError for text that does not fit the grammar, or an unknown section."""
    match = GRAMMAR.fullmatch(text)
    if match is None:
        raise HydromelError(
            f"--fail-if '{text}' is not FIGURE < BOUND or FIGURE > BOUND, such as 'test/f1 < -1.0' or 'speed < -5%' "
            "(docs/comparison.md)"
        )
    name, bound, below = match["figure"], float(match["bound"]), match["sign"] == "<"
    figure = SHORT.get(name, name)
    section, slash, key = figure.partition("/")
    if section not in SECTIONS or not key:
        choices = [*SHORT, *(f"{known}/..." for known in SECTIONS)]
        close = did_you_mean(section, [*SHORT, *SECTIONS]) if not slash or section not in SECTIONS else "."
        raise HydromelError(f"figure '{name}' is unknown (--fail-if '{text}'){close} Allowed: {', '.join(choices)}")
    if not math.isfinite(bound):
        raise HydromelError(f"--fail-if '{text}': no change is beyond {match['bound']}; give a finite bound")
    if (bound > 0) if below else (bound < 0):
        raise HydromelError(
            f"--fail-if '{text}': the bound applies to the change, so with {match['sign']} it must be "
            f"{'0 or below' if below else '0 or above'}"
        )
    return Condition(" ".join(text.split()), figure, below, bound, bool(match["percent"]))
