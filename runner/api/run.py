"""Training from Python, and finished runs."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.records import ResultRecord, finite, shown

if TYPE_CHECKING:
    import pandas as pd

    from runner.config.schema import RunConfig

# As on the command line (["task=tag", "train.epochs=3"]), or as a mapping ({"task": "tag", "train": {"epochs": 3}})
Overrides: TypeAlias = Sequence[str] | Mapping[str, object]


def train(
    overrides: Overrides | RunConfig = (), *, folder: str | Path | None = None, config_dir: str | Path | None = None
) -> Run:
    """Train one model in this process, as `hydromel OVERRIDES` does, and return its run.

    Args:
        overrides: options of the run, or a whole config.
        folder: the run's folder; None: a new one below `runs_dir`, named as the command names it.
        config_dir: a folder with further configs.

    Raises:
        HydromelError: bad input, in which case nothing is left behind; or a run that failed, whose records so far are
            kept.
    """
    from runner.config.arguments import as_overrides
    from runner.config.compose import compose_config, parsed
    from runner.config.schema import RunConfig

    started, given = time.time(), [] if isinstance(overrides, RunConfig) else list(_as_text(overrides))
    if own := [override for override in given if override.lstrip("+").startswith("hydra.")]:
        raise HydromelError(f"{own[0]}: hydra is not used here; give folder=... for the run's folder")
    for override in given:
        # the text of `data=`, which may name several files, is no override of Hydra
        is_sweep = not override.startswith(("-", "data=")) and parsed(as_overrides([override])[0]).is_sweep_override()
        if override.startswith("-") or is_sweep:
            raise HydromelError(
                f"{override}: api.train makes one run; sweeps and flags are for the command, hydromel -m"
            )
    directory = None if config_dir is None else Path(config_dir)
    asked = overrides if isinstance(overrides, RunConfig) else compose_config(given, directory)
    if asked.search is not None or asked.repeat != 1:
        raise HydromelError("api.train makes one run; use the command for repeat=N, a search or a sweep")
    if asked.resume is not None:
        if folder is not None:
            raise HydromelError(f"folder={folder} has no effect with resume={asked.resume}, which has its own folder")
        from runner.cli.train import resumed

        place = Path(asked.resume)
        return _carried_out(resumed(asked, place, given), place, started)
    place = _new_folder(asked) if folder is None else Path(folder)
    if (place / run_schema.CHECKPOINTS).exists():
        raise HydromelError(f"{place} holds a run; continue it with resume={place}, or give another folder")
    return _carried_out(asked.changed(sweep={"id": None}), place, started)


def _carried_out(config: RunConfig, folder: Path, started: float) -> Run:
    from runner.common.files import cannot_write
    from runner.config.instantiate import find_plugin
    from runner.experiment.job import working_directory
    from runner.experiment.run import run_experiment
    from runner.terminal.console import copied_to
    from runner.tracking.run_folder import discard_unbegun

    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        with copied_to(folder / run_schema.CONSOLE):
            for plugin in config.plugins:
                find_plugin(plugin)
            with working_directory(folder):
                run_experiment(config, folder, started)
    finally:
        discard_unbegun(folder)
    return open_run(folder)


def _new_folder(config: RunConfig) -> Path:
    """Return a folder as the command names it."""
    names = (config.task["name"], config.dataset["name"], config.batching["name"])
    now = time.time()
    moment = time.strftime("%H%M%S", time.localtime(now)) + f"-{int(now % 1 * 1e6):06d}"
    day = time.strftime("%Y-%m-%d", time.localtime(now))
    return Path(config.runs_dir) / day / "-".join([moment, *map(str, names)])


def _as_text(overrides: Overrides) -> Iterator[str]:
    """Yield overrides as the command line has them."""
    if isinstance(overrides, str):
        raise HydromelError(f"got {overrides!r:.60}; options are given as a list: [{overrides!r:.60}]")
    if not isinstance(overrides, Mapping):
        for override in overrides:
            if not isinstance(override, str):
                raise HydromelError(f"{override!r:.60}: not of the form 'key=value'")
            yield override
        return
    for key, value in overrides.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{key}.{inner}" for inner in _as_text(value))
        else:
            yield f"{key}={_value(value)}"


def _value(value: object) -> str:
    """Return a value in the grammar of the command line."""
    from runner.config.own_data import written

    return written(_plain(value))


def _plain(value: object) -> object:
    """Return a value of an option with text for paths; raise HydromelError if it cannot be one."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise HydromelError(f"{value!r:.60}: a {type(value).__name__} is no value of an option")


def open_run(folder: str | Path) -> Run:
    """Return the finished run in a folder. Raises HydromelError if there is none, or it is damaged."""
    from runner.tracking.run_folder import how_it_ended, read_result, read_run

    path = Path(folder)
    result = read_result(path)
    if result is None:
        raise HydromelError(f"{path}: that run {how_it_ended(read_run(path))}")
    return Run(path, result)


class Run:
    """A finished run.

    Attributes:
        folder: its folder.
        result: the content of `result.json` (docs/results.md).
    """

    def __init__(self, folder: Path, result: ResultRecord) -> None:
        self.folder, self.result = folder, result

    @property
    def name(self) -> str:
        """The name, which tells the run's main choices."""
        return self.result.get("name", self.folder.name)

    @property
    def metrics(self) -> dict[str, float]:
        """The figures of the best checkpoint on test, or on valid if the data has no test."""
        return _numbers(self.result.get("metrics", {}).get(self.split, {}))  # type: ignore[arg-type]

    @property
    def split(self) -> str:
        """The split of `metrics`: test, or valid if the data has no test."""
        return "test" if "test" in self.result.get("metrics", {}) else "valid"

    @property
    def quality(self) -> float | None:
        """The main figure, by which runs are compared; None if it is not finite."""
        return self.metrics.get(self.result["quality"]["metric"])

    def history(self) -> pd.DataFrame:
        """Return the records of training: a row for each, with `step`, `epoch`, `time` (UTC) and each figure."""
        import pandas as pd

        from runner.tracking.run_folder import read_metrics

        lines = [line for line, _ in read_metrics(self.folder)]
        rows = [
            {"step": line["step"], "epoch": line["epoch"], "time": line["time"], **line["metrics"]} for line in lines
        ]
        frame = pd.DataFrame(rows)
        return frame.assign(time=pd.to_datetime(frame["time"], unit="s", utc=True)) if len(frame) else frame

    def predictions(self) -> pd.DataFrame:
        """Return the run's own predictions of `split`, with the correct targets: one row per row, or per token of tags.

        Raises:
            HydromelError: the run wrote none: predictions=false, or a language model.
        """
        from runner.api.own_predictions import read_predictions

        return read_predictions(self.folder, self.split)

    @property
    def model_card(self) -> str:
        """The model card in Markdown."""
        from runner.experiment.model_card import model_card

        return model_card(self.folder)

    def __repr__(self) -> str:
        return f"Run({self._line()}, folder={str(self.folder)!r})"

    def _line(self) -> str:
        metric, unit = self.result["quality"]["metric"], self.result["quality"].get("unit", "")
        value = "—" if self.quality is None else f"{shown(self.quality, unit)} {unit}".rstrip()
        return f"{self.name}: {self.split} {metric} {value}"

    def _repr_html_(self) -> str:
        metric = self.result["quality"]["metric"]
        unit = self.result["quality"].get("unit", "")
        simple = {"majority": self.result.get("majority") or {}, **self.result.get("baselines", {})}
        rows = [(f"{self.split} {name}", shown(value, unit)) for name, value in self.metrics.items()]
        rows += [
            (f"{name} ({metric})", shown(value, unit))
            for name, figures in simple.items()
            if (value := finite(figures.get(metric))) is not None
        ]
        speed = finite(self.result.get("speed", {}).get("real_tokens_per_s"))
        rows += [] if speed is None else [("real tokens/s", f"{speed:,.0f}")]
        rows.append(("folder", str(self.folder)))
        cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
        return f"<table><caption>{html.escape(self.name)}</caption>{cells}</table>"


def _numbers(figures: Mapping[str, object]) -> dict[str, float]:
    return {name: value for name, figure in figures.items() if (value := finite(figure)) is not None}
