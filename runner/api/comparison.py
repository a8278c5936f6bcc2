"""The comparison of finished runs, as `hydromel-compare` makes it, with data frames."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.api.run import Run
from runner.common.errors import HydromelError

if TYPE_CHECKING:
    import pandas as pd

    from reporting.views.report import ComparisonReport


def compare(
    runs: Sequence[Run | str | Path] = (),
    *,
    runs_dir: str | Path = "runs",
    confidence: float = 0.95,
    margin: float = 1.0,
    target: float | None = None,
) -> Report:
    """Compare finished runs by batching strategy, as `hydromel-compare` does.

    Args:
        runs: runs, folders with runs, or names of sweeps or experiments below `runs_dir`; none: all runs there.
        confidence: confidence of the intervals, between 0 and 1.
        margin: difference in quality that does not matter, in percentage points, or in percent of padmask's quality.
        target: quality on valid whose time is reported; None: the best that every run reached.

    Raises:
        HydromelError: there is nothing to compare, or a name is unknown.
    """
    from reporting.comparison.summary import CompareOptions
    from reporting.runs import find
    from reporting.views import report

    if isinstance(runs, Run | str | Path):
        runs = [runs]
    if not 0 < confidence < 1:
        raise HydromelError(f"confidence={confidence!r} is not a number between 0 and 1")
    names = [str(run.folder if isinstance(run, Run) else run) for run in runs]
    found = find.find(names, Path(runs_dir))
    built = report.build(names, found, CompareOptions(target, confidence, margin))
    if not built.groups:
        raise HydromelError(f"no finished run to compare. {' '.join(report.left_out(built))}")
    return Report(built)


class Report:
    """A comparison of runs."""

    def __init__(self, comparison: ComparisonReport) -> None:
        self._comparison = comparison

    @property
    def runs(self) -> pd.DataFrame:
        """A row for each run that counts, with its settings and all figures: the table of `hydromel-compare --csv`."""
        import pandas as pd

        from reporting.views.report import to_csv

        return pd.read_csv(io.StringIO(to_csv(self._comparison.groups)), keep_default_na=False, na_values=[""])

    @property
    def strategies(self) -> pd.DataFrame:
        """A row for each strategy of each group: its mean quality with the interval, speed, padding and memory."""
        import pandas as pd

        rows = []
        for group in self._comparison.groups:
            for own in group.strategies:
                quality, speed, memory = own.quality, own.real_tokens_per_s, own.peak_memory_bytes
                rows.append(
                    {
                        "title": group.title,
                        **{f"settings.{name}": value for name, value in group.settings.items()},
                        "strategy": own.name,
                        "runs": len(own.runs),
                        "metric": group.metric,
                        "split": group.split,
                        "quality": None if quality is None else quality.mean,
                        "quality_low": None if quality is None else quality.low,
                        "quality_high": None if quality is None else quality.high,
                        "real_tokens_per_s": None if speed is None else speed.median,
                        "padding_share": own.padding_share,
                        "peak_memory_bytes": None if memory is None else memory.median,
                    }
                )
        return pd.DataFrame(rows)

    @property
    def conclusions(self) -> list[str]:
        """A sentence on each group of runs of one configuration."""
        from reporting.views.headline import conclusion

        return [conclusion(group, self._comparison.confidence) for group in self._comparison.groups]

    def save(self, folder: str | Path) -> Path:
        """Write the report to a folder (index.html, report.md, report.json, plots); return the page's path."""
        from reporting.views.files import write

        return write(self._comparison, Path(folder))[0]

    def __repr__(self) -> str:
        return "\n".join(self.conclusions)

    def _repr_html_(self) -> str:
        from reporting.views.files import tables_html

        return tables_html(self._comparison)
