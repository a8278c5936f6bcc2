"""The fields of a run in MLflow, as plain values: tags, params, metrics and a note, all from the run's folder.

Names are short, since MLflow's charts truncate long ones, and have a slash, which groups charts into sections:
`test/f1`, `best/f1` (on valid, at the kept checkpoint), `majority/f1`, `speed/tok_s`, `pad/fraction`, `mem/peak_gib`,
`seconds/forward`, `model/parameters`. Curves keep their names in training (`train/loss`, `valid/f1`).
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
from runner.common.class_names import with_stable_names
from runner.common.errors import HydromelError, without_credentials
from runner.common.pages import markdown_text
from runner.common.records import ResultRecord, RunRecord

_LONGEST_PARAM = 500  # characters; databases of older servers hold no more
_NOT_PARAMS = ("tracker", "hydra")  # the destination of records is not a parameter of the experiment
_SHORT = {"real_tokens_per_s": "tok_s", "examples_per_s": "examples_s", "updates_per_s": "updates_s"}
_VARIANTS = ("_default", "_strict")  # suffixes of figures by other scoring rules, which MLflow does not get
_RECORDS = (run_schema.RUN, run_schema.RESOLVED, run_schema.RESULT, run_schema.METRICS)
_FILES = (*_RECORDS, run_schema.VOCABS, run_schema.OUTCOMES, f"{run_schema.CHECKPOINTS}/{run_schema.BEST}")


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
        "mlflow.source.name": "hydromel",
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": note(run, result),
    }
    if result is not None:
        values |= {
            "kernel": result.get("kernel"),
            "updates.digest": result["updates"]["digest"],
            "comparison_hash": result["provenance"]["comparison_hash"],
            "mlflow.source.git.commit": result["provenance"].get("git_commit"),
        }
    return {allowed_name(key): str(value) for key, value in values.items() if value is not None}


def params(folder: Path) -> dict[str, str]:
    """Return the resolved config with dotted names, without the tracker's own; lists as JSON, long values cut.

    Classes are recorded by their stable names, so that runs still group by them after the code has moved.
    Raises HydromelError if `resolved.yaml` is missing or not a mapping.
    """
    path = folder / run_schema.RESOLVED
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise HydromelError(f"{path}: a mapping is expected, not {type(config).__name__}")
    kept = {key: value for key, value in config.items() if key not in _NOT_PARAMS}
    return {allowed_name(key): _cut(value) for key, value in _flattened(with_stable_names(kept), "")}


def _flattened(config: Mapping[str, object], prefix: str) -> list[tuple[str, object]]:
    flat: list[tuple[str, object]] = []
    for key, value in config.items():
        nested = isinstance(value, dict) and value
        flat += _flattened(nested, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return flat


def _cut(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_PARAM else f"{text[: _LONGEST_PARAM - 1]}…"


def summary(result: ResultRecord) -> dict[str, float]:
    """Return the figures of a run, for bars and tables. Missing and non-finite values are left out.

    Of baselines and of the validation set only the main metric is included, and of F1 only its main variant, since
    MLflow draws a chart for each name.
    """
    quality = result["quality"]["metric"]
    metrics, tokens, memory = result.get("metrics", {}), result.get("tokens", {}), result.get("memory", {})
    sections: dict[str, Mapping[str, object]] = {
        "best": {quality: metrics.get("valid", {}).get(quality)},
        "test": {key: value for key, value in metrics.get("test", {}).items() if not key.endswith(_VARIANTS)},
        "majority": {quality: (result.get("majority") or {}).get(quality)},
        "baseline": {name: figures.get(quality) for name, figures in result.get("baselines", {}).items()},
        "speed": {
            **{_SHORT.get(key, key): value for key, value in result.get("speed", {}).items()},
            "matrix_share": (result.get("arithmetic") or {}).get("share"),
        },
        "tokens": tokens,
        "pad": {
            "fraction": _padding_share(tokens),
            "characters": _padding_share(result.get("characters") or {}),
            **result.get("padding", {}),
        },
        "energy": {"joules": (result.get("energy") or {}).get("joules")},
        "seconds": result.get("seconds", {}),
        "mem": {f"{name}_gib": _gib(memory.get(f"{name}_bytes")) for name in ("peak", "before_training")},
        "model": result.get("model", {}),
        "updates": {key: value for key, value in result["updates"].items() if key in ("count", "epochs")},
    }
    named = {f"{section}/{key}": value for section, values in sections.items() for key, value in values.items()}
    return {allowed_name(name): float(value) for name, value in named.items() if _is_number(value)}


def _padding_share(tokens: Mapping[str, object]) -> float | None:
    """Return padding as a share of all positions in memory (of tokens, or of characters), 0 to 1."""
    real, padded = tokens.get("real"), tokens.get("padded")
    return padded / (real + padded) if _is_number(real) and _is_number(padded) and real + padded else None


def _gib(size_bytes: object) -> float | None:
    return size_bytes / 2**30 if _is_number(size_bytes) else None


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
    share = values.get("pad/fraction")
    cost = [
        f"{_shown(values, 'speed/tok_s')} real tokens/s",
        f"padding {'—' if share is None else format(share, '.1%')}",
        f"peak {_shown(values, 'mem/peak_gib')} GiB",
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
