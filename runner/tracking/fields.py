"""The content of a run's folder that trackers get, as plain values: tags, params, figures, a note and files.

Names are those of the records with `/` instead of `.`, since pages group charts by it: `speed/real_tokens_per_s` is
`speed.real_tokens_per_s` of `result.json`. `test/f1` is `metrics.test.f1`, and `best/f1` is `metrics.valid.f1` (of the
best checkpoint), since `valid/f1` is a curve. Curves have their names in `metrics.jsonl` (`train/loss`, `valid/f1`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from runner.common import run_schema
from runner.common.bounded import read_yaml
from runner.common.errors import HydromelError, without_credentials
from runner.common.pages import markdown_text
from runner.common.records import ResultRecord, RunRecord
from runner.config.defaults import differing, flattened

_LONGEST_PARAM = 500  # characters; databases of older servers hold no more
MOST_PARAMS = 40  # most params of a run; with more, pages and comparisons are hard to read
_NOT_PARAMS = ("tracker", "sweep", "search", "resume", "repeat", "plugins", "choices", "given", "run_plots", "hydra")
_VARIANTS = ("_default", "_strict")  # suffixes of figures by other scoring rules, which trackers do not get
_RECORDS = (run_schema.RUN, run_schema.RESOLVED, run_schema.RESULT, run_schema.METRICS)
_FILES = (
    *_RECORDS,
    run_schema.SYSTEM,
    run_schema.MODEL_CARD,
    run_schema.EXAMPLE,
    run_schema.VOCABS,
    run_schema.OUTCOMES,
    f"{run_schema.CHECKPOINTS}/{run_schema.BEST}",
)


def allowed_name(name: str) -> str:
    """Return `name` with only the characters that MLflow allows in names of metrics and params."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:250]


def tags(run: RunRecord, result: ResultRecord | None) -> dict[str, str]:
    """Return the tags of a run, for filtering and grouping."""
    values = {
        **run.get("tags", {}),
        run_schema.TAG_RUN_ID: run["run_id"],
        run_schema.TAG_SWEEP: run.get("sweep_id"),
        "experiment": run.get("experiment"),
        "status": run["status"],
        "host": run.get("host"),
        "mlflow.user": run.get("user"),
        "mlflow.source.name": "hydromel",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": note(run, result),
    }
    if result is not None:
        commit = result["provenance"].get("git_commit") or ""
        values |= {
            "kernel": result.get("kernel"),
            "updates.digest": result["updates"]["digest"],
            "comparison_hash": result["provenance"]["comparison_hash"],
            "mlflow.source.git.commit": commit.removesuffix("+") or None,
            "mlflow.source.git.dirty": str(commit.endswith("+")).lower() if commit else None,
        }
    return {allowed_name(key): str(value) for key, value in values.items() if value is not None}


def params(folder: Path) -> dict[str, str]:
    """Return at most `MOST_PARAMS` params that distinguish a run: the choices, the seed, and the options that were set.

    An option was set if the command line named it, even with its default value, or if it differs from the default in
    the chosen configs. `resolved.yaml`, a file of the run, has all others. Lists are JSON, and long values are cut.

    Raises HydromelError if `resolved.yaml` is missing or not a mapping.
    """
    path = folder / run_schema.RESOLVED
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise HydromelError(f"{path}: a mapping is expected, not {type(config).__name__}")
    choices, given, features = config.get("choices") or {}, config.get("given") or [], config.get("features") or {}
    chosen = {"features": ", ".join(features), **{group: name for group, name in choices.items() if name is not None}}
    options = flattened({key: value for key, value in config.items() if key not in _NOT_PARAMS})
    named = {
        key: value for key, value in options.items() if any(_is_at(key, name) for name in given if name not in chosen)
    }
    differ = {key: value for key, value in differing(config).items() if key in options}
    groups = {group: name for group, name in chosen.items() if name and group not in _NOT_PARAMS}
    known = groups | {"seed": config.get("seed")} | named | differ
    return {allowed_name(key): _cut(value) for key, value in list(known.items())[:MOST_PARAMS]}


def _is_at(option: str, name: str) -> bool:
    return f"{option}.".startswith(f"{name}.")


def _cut(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_PARAM else f"{text[: _LONGEST_PARAM - 1]}…"


def summary(result: ResultRecord) -> dict[str, float]:
    """Return the figures of a run, for bars and tables. Missing and non-finite values are left out.

    Of baselines and of the validation set only the main metric is included, and of F1 only its main variant, since
    pages draw a chart for each name.
    """
    quality = result["quality"]["metric"]
    metrics = result.get("metrics", {})
    of_baselines: dict[str, Mapping[str, object]] = {"majority": result.get("majority") or {}}
    of_baselines |= {f"baselines/{name}": figures for name, figures in result.get("baselines", {}).items()}
    sections: dict[str, Mapping[str, object]] = {
        "test": {key: value for key, value in metrics.get("test", {}).items() if not key.endswith(_VARIANTS)},
        "best": {quality: metrics.get("valid", {}).get(quality)},
        **{name: {quality: figures.get(quality)} for name, figures in of_baselines.items()},
        "speed": result.get("speed", {}),
        "tokens": result.get("tokens", {}),
        "padding": result.get("padding", {}),
        "characters": result.get("characters") or {},
        "pieces": result.get("counters", {}).get("pieces", {}),
        "seconds": result.get("seconds", {}),
        "memory": result.get("memory", {}),
        "energy": result.get("energy") or {},
        "arithmetic": {"share": (result.get("arithmetic") or {}).get("share")},
        "model": result.get("model", {}),
        "updates": result["updates"],
    }
    named = {f"{section}/{key}": value for section, values in sections.items() for key, value in values.items()}
    return {allowed_name(name): float(value) for name, value in named.items() if _is_number(value)}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def note(run: RunRecord, result: ResultRecord | None) -> str:
    """Return three lines of Markdown on what was run, its quality and its cost; for a failed run, the reason."""
    chosen = run.get("tags", {})
    what = [chosen[key] for key in ("task", "dataset", "embedding", "encoder") if chosen.get(key)]
    strategy = markdown_text(chosen.get("batching", run.get("name", "")))
    first = f"**{strategy}** · {markdown_text(' · '.join(what))}"
    if result is None:
        reason = f": {without_credentials(str(run['error']))}" if run.get("error") else ""
        return f"{first}\n\n{markdown_text(run['status'] + reason)}"
    metric, values = result["quality"]["metric"], summary(result)
    quality = [f"{split} {_shown(values, f'{split}/{metric}')}" for split in ("test", "best", "majority")]
    share, peak = values.get("tokens/padding_share"), values.get("memory/peak_bytes")
    cost = [
        f"{_shown(values, 'speed/real_tokens_per_s')} real tokens/s",
        f"padding {'—' if share is None else format(share, '.1%')}",
        f"peak {'—' if peak is None else format(peak / 2**30, '.2f')} GiB",
        f"{_shown(values, 'seconds/total')} s in total",
    ]
    kernel = markdown_text(result.get("kernel") or "kernel unknown")
    return f"{first}, {kernel}\n\n{markdown_text(metric)}: {', '.join(quality)}\n\n{', '.join(cost)}"


def _shown(values: Mapping[str, float], name: str) -> str:
    if (value := values.get(name)) is None:
        return "—"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def artifacts(folder: Path) -> list[tuple[Path, str | None]]:
    """Return the files of a finished run that are uploaded, each with its artifact folder (None: the root).

    With the best checkpoint and the vocabularies, these are sufficient for `hydromel-predict`.
    """
    paths = [folder / name for name in _FILES]
    for name in (run_schema.PLOTS, run_schema.PREDICTIONS, run_schema.TABLES):
        paths += sorted((folder / name).rglob("*"))
    files = [path for path in paths if path.is_file()]
    return [(path, None if path.parent == folder else path.parent.relative_to(folder).as_posix()) for path in files]
