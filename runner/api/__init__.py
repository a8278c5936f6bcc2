"""The Python interface: `from runner import api`, then `api.train`, `api.load`, `api.open_run` and `api.compare`.

No package imports it, and it may import all others. Mistakes raise `HydromelError`. Messages are those of Python's
logging, from the loggers `runner`, `tasks` and `reporting`; `api.show_messages()` shows them as the commands do.
"""

from runner.api.comparison import Report, compare
from runner.api.model import Model, load
from runner.api.predictions import GeneratedTexts, PredictedRows
from runner.api.run import Run, open_run, train
from runner.common.errors import HydromelError
from runner.terminal.console import show_messages

__all__ = [
    "GeneratedTexts",
    "HydromelError",
    "Model",
    "PredictedRows",
    "Report",
    "Run",
    "compare",
    "load",
    "open_run",
    "show_messages",
    "train",
]
