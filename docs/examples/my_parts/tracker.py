"""A tracker: one line per finished run in a shared file."""

from __future__ import annotations

from pathlib import Path

from runner.common.errors import HydromelError
from runner.tracking.run_folder import read_result
from runner.tracking.tracker import DeliveryError


class TsvTracker:
    """Append the name, the metric and its value of every finished run to a file of tab-separated values.

    Args:
        path: the file; relative to the working directory.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)

    def check(self) -> None:
        """Check the options before training starts."""
        if self.path.is_dir():
            raise HydromelError(f"tracker.path={self.path}: that is a folder; give the name of a file")

    def target(self, folder: Path) -> str:
        """Return the destination of this run's records."""
        return f"tsv:{self.path.absolute()}"

    def deliver(self, folder: Path, final: bool = False) -> None:
        """Add the run unless it is there; called after every evaluation and, with `final`, at the end."""
        result = read_result(folder)
        if result is None:  # the run has not finished
            return
        metric = result["quality"]["metric"]
        split = "test" if "test" in result["metrics"] else "valid"
        line = f"{result['run_id']}\t{result['name']}\t{split} {metric}\t{result['metrics'][split][metric]}\n"
        try:
            known = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
            if line not in known:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line)
        except OSError as error:
            raise DeliveryError(f"cannot write {self.path}: {error.strerror}") from error

    def describe(self) -> str:
        """Return the line that a run prints about its records."""
        return f"results of all runs: {self.path.absolute()}"
