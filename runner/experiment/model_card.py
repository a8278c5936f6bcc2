"""The model card of a run in Markdown, from its records: what the model is, how good it is, and how it is used.

The sections follow Mitchell et al. (2019), "Model Cards for Model Reporting", as far as a run's records know them.
"""

from __future__ import annotations

import io
import math
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from runner.common import run_schema
from runner.common.bounded import MOST_ARRAYS_BYTES, read_bytes, read_yaml
from runner.common.errors import HydromelError
from runner.common.files import write_text
from runner.common.intervals import student_quantile
from runner.common.pages import markdown_text
from runner.common.printable import printable
from runner.common.records import DataRecord, Figures, ResultRecord, finite, parse_tables, shown, unbeaten_baselines
from runner.config.own_data import written
from runner.tables.detail import read_table
from runner.tracking.run_folder import read_result, read_run

CONFIDENCE = 0.95
_PERCENT = f"{100 * CONFIDENCE:.0f} %"
FEWEST_EXAMPLES = 20  # with fewer, an interval by the normal approximation says little
_MOST_CLASSES = 30  # rows of the table of classes
_FEW_TARGETS = 50  # classes with fewer targets in test are named as uncertain
_VARIANTS = ("_default", "_strict")  # suffixes of figures by other scoring rules
_FIGURES = ("precision", "recall", "f1")
_CLASSES = pa.schema({"name": pa.string(), **dict.fromkeys(_FIGURES, pa.float64()), "support": pa.int64()})
# options and groups that say where a run computes and is recorded, not what it is
_OF_THE_PLACE = ("tracker", "run_plots", "runs_dir", "cache_dir", "resume", "sweep", "hydra", "system_metrics_s")
_NOTHING = object()


def write_model_card(folder: Path) -> None:
    """Write the card of a finished run to its folder.

    Raises:
        HydromelError: the records are damaged, or the folder cannot be written.
    """
    write_text(folder / run_schema.MODEL_CARD, model_card(folder))


def model_card(folder: Path) -> str:
    """Return the card of a finished run. Raises HydromelError if its records are damaged or it has no result."""
    result = read_result(folder)
    if result is None:
        raise HydromelError(f"{folder}: the run has no {run_schema.RESULT}; only finished runs have a model card")
    run, config = read_run(folder), read_yaml(folder / run_schema.RESOLVED)
    assert isinstance(config, Mapping)
    name = result.get("name", folder.name)
    trained = time.strftime("%Y-%m-%d", time.gmtime(run.get("ended") or run["created"]))
    version = result["provenance"].get("versions", {}).get("hydromel", "")
    split, figures = _last_split(result)
    quality = f"{split} {_name(result)} {_figure(result, figures)}{_interval_text(folder, result, figures)}"
    sections = [
        f"# {markdown_text(name)}",
        markdown_text(
            f"A model for task={result['task']}, trained on {result['dataset']} with Hydromel {version} ({trained}): "
            f"{quality}."
        ),
        "## Model",
        _table(("", ""), _model_rows(result, config)),
        "## Data",
        _data(result),
        "## Quality",
        _quality(folder, result),
        *_classes(folder, figures),
        "## Cost",
        _table(("", ""), _cost_rows(result)),
        "## Use",
        _use(result),
        "Trained by",
        f"```sh\n{command(config)}\n```",
        "## Limits",
        "\n".join(f"- {markdown_text(line)}" for line in _limits(folder, result, config, figures)),
        "## Provenance",
        _table(("", ""), _provenance_rows(result)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _name(result: ResultRecord) -> str:
    return result["quality"]["metric"]


def _last_split(result: ResultRecord) -> tuple[str, Figures]:
    metrics = result.get("metrics", {})
    return ("test", metrics["test"]) if "test" in metrics else ("valid", metrics.get("valid", {}))


def _figure(result: ResultRecord, figures: Mapping[str, object]) -> str:
    value = finite(figures.get(_name(result)))
    return "—" if value is None else _with_unit(value, result["quality"].get("unit", ""))


def _with_unit(value: float, unit: str) -> str:
    return f"{shown(value, unit)} {unit}".rstrip()


def _interval_text(folder: Path, result: ResultRecord, figures: Figures) -> str:
    found = interval(folder, finite(figures.get(_name(result))), result["quality"].get("unit", ""))
    unit = result["quality"].get("unit", "")
    return "" if found is None else f" ({_PERCENT} interval {shown(found[0], unit)} to {_with_unit(found[1], unit)})"


def interval(folder: Path, figure: float | None, unit: str) -> tuple[float, float] | None:
    """Return the interval of the main figure over test examples like these; None if it is not a ratio of sums.

    It is that of a ratio of two means by linearisation (Cochran 1977, Sampling Techniques, section 2.11), and holds for
    this one model: it does not cover the variation between seeds.
    """
    path = folder / run_schema.OUTCOMES
    if figure is None or not path.is_file():
        return None
    with np.load(io.BytesIO(read_bytes(path, MOST_ARRAYS_BYTES)), allow_pickle=False) as arrays:
        top, bottom, function = arrays["numerator"], arrays["denominator"], str(arrays["f"][0])
    if len(top) < FEWEST_EXAMPLES or not bottom.sum():
        return None  # of too few examples, or undefined
    ratio = top.sum() / bottom.sum()
    apply = math.exp if function == "exp" else float
    if not math.isclose(apply(ratio), figure, rel_tol=1e-4):
        return None  # the figure is not that of the file
    spread = math.sqrt(float(np.square(top - ratio * bottom).sum()) * len(top) / (len(top) - 1)) / float(bottom.sum())
    if not spread:  # all examples have the same outcome, from which no spread can be estimated
        return None
    half = student_quantile(len(top) - 1, CONFIDENCE) * spread
    low, high = apply(ratio - half), apply(ratio + half)
    return (max(low, 0.0), min(high, 100.0)) if unit == "%" else (low, high)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; a column with an empty header has the names of the rows."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(markdown_text, row)) + " |" for row in rows)])


def _model_rows(result: ResultRecord, config: Mapping[str, object]) -> list[tuple[str, str]]:
    names = {"task": result["task"], "embedding": result["embedding"], "encoder": result["encoder"]}
    rows = [(part, f"{name}: {_options(config.get(part))}".rstrip(": ")) for part, name in names.items()]
    parameters = result.get("model", {}).get("parameters")
    updates, train = result["updates"], config.get("train")
    kept = train.get("metric") if isinstance(train, Mapping) else None
    return [
        *rows,
        ("parameters", "—" if parameters is None else f"{parameters:,}"),
        ("data type", str(config.get("dtype"))),
        (
            "training",
            f"{updates['count']:,} updates, whole epochs: {updates.get('epochs', 0)}, batching={result['batching']}",
        ),
        ("checkpoint", f"the best on valid, by {kept or _name(result)}"),
    ]


def _options(node: object) -> str:
    """Return the plain options of a part of a config: `size=100, dropout=0.0`."""
    if not isinstance(node, Mapping):
        return ""
    plain = {key: value for key, value in node.items() if isinstance(value, str | int | float)}
    return ", ".join(f"{key}={value}" for key, value in plain.items() if key not in ("_target_", "name", "data_dir"))


def _data(result: ResultRecord) -> str:
    extra = {
        "ignored": "ignored targets",
        "cut_tokens": "cut tokens",
        "empty_rows": "rows with an empty text",
        "unseen_targets": "targets unseen in train",
    }
    by_split: dict[str, DataRecord] = result.get("data", {})
    shown_extra = [key for key in extra if any(dict(counts).get(key) for counts in by_split.values())]
    rows = []
    for split, counts in by_split.items():
        of_split: dict[str, object] = {**counts}
        rows.append((split, *(f"{of_split.get(key, 0):,}" for key in ("rows", "tokens", "targets", *shown_extra))))
    return _table(("split", "rows", "tokens", "targets", *(extra[key] for key in shown_extra)), rows)


def _quality(folder: Path, result: ResultRecord) -> str:
    """Return the table of figures by split, and below it those of the simplest models."""
    metrics, unit = result.get("metrics", {}), result["quality"].get("unit", "")
    named = _last_split(result)[1].items()
    names = [name for name, value in named if finite(value) is not None and not name.endswith(_VARIANTS)]
    main = _name(result)
    names = [main, *(name for name in names if name != main)] if main in names else names
    rows: list[tuple[str, ...]] = []
    for split, figures in (("valid", metrics.get("valid")), ("test", metrics.get("test"))):
        if figures is not None:
            rows.append((split, *(_cell(figures, name, main, unit) for name in names)))
    simple = {"majority": result.get("majority"), **result.get("baselines", {})}
    for name, found in simple.items():
        if found is not None:
            rows.append((f"{name} (baseline, test)", *(_cell(found, column, main, unit) for column in names)))
    direction = "higher" if result["quality"]["higher_is_better"] else "lower"
    note = f"The main figure is {main}; {direction} is better."
    split, figures = _last_split(result)
    found_interval = interval(folder, finite(figures.get(main)), unit)
    if found_interval is not None:
        low, high = shown(found_interval[0], unit), _with_unit(found_interval[1], unit)
        note += (
            f" Its {_PERCENT} interval on {split} is {low} to {high}: it covers the choice of the test examples, "
            "not the variation between seeds."
        )
    return f"{_table(('split', *map(markdown_text, names)), rows)}\n\n{markdown_text(note)}"


def _cell(figures: Mapping[str, object], name: str, main: str, unit: str) -> str:
    value = finite(figures.get(name))
    if value is None:
        return str(figures.get("left_out", "—")) if name == main else "—"
    return shown(value, unit)


def _classes(folder: Path, figures: Figures) -> list[str]:
    """Return the heading and the table of classes; nothing if the run has none, or only the most frequent of many."""
    tables = parse_tables(figures)
    table = tables.get("per_type") or tables.get("per_class")
    if table is None:
        return []
    rows = _by_support(table, folder)
    cells = [
        (str(row.get("name")), *(_of_class(row, key) for key in _FIGURES), f"{_support(row):,}")
        for row in rows[:_MOST_CLASSES]
    ]
    more = f"\n\nThe {_MOST_CLASSES} most frequent of {len(rows):,}." if len(rows) > _MOST_CLASSES else ""
    return ["### By class", _table(("class", *_FIGURES, "support"), cells) + more]


def _of_class(row: Mapping[str, object], key: str) -> str:
    """Return a figure of a class; of one that the split lacks only the precision is defined."""
    value = finite(row.get(key))
    return "—" if value is None or (key != "precision" and not _support(row)) else f"{value:.2f}"


def _by_support(table: object, folder: Path) -> list[dict[str, object]]:
    """Return the rows of a table of classes, the most frequent first."""
    read = read_table(table, folder, _CLASSES)
    rows: list[dict[str, object]] = [] if read is None else read.to_pylist()
    return sorted(rows, key=lambda row: -_support(row))


def _support(row: Mapping[str, object]) -> int:
    value = row.get("support")
    return value if isinstance(value, int) else 0


def _cost_rows(result: ResultRecord) -> list[tuple[str, str]]:
    speed, seconds, memory = result.get("speed", {}), result.get("seconds", {}), result.get("memory", {})
    provenance, energy = result["provenance"], result.get("energy") or {}
    phases = ("data", "forward", "backward", "optimizer")
    training = sum(finite(seconds.get(phase)) or 0.0 for phase in phases)
    known = [
        ("training", f"{training:,.1f} s", True),
        ("whole run", f"{finite(seconds.get('total')) or 0.0:,.1f} s", seconds.get("total") is not None),
        ("speed", f"{finite(speed.get('real_tokens_per_s')) or 0.0:,.0f} real tokens/s", "real_tokens_per_s" in speed),
        (
            "peak memory",
            f"{memory.get('peak_bytes', 0) / 2**20:,.0f} MiB ({memory.get('source', '')})",
            "peak_bytes" in memory,
        ),
        ("energy", f"{finite(energy.get('joules')) or 0.0:,.0f} J", "joules" in energy),
        ("device", f"{provenance.get('device', '')}, {provenance.get('cpu', '')}", True),
        ("threads", str(provenance.get("threads")), "threads" in provenance),
    ]
    return [(name, text) for name, text, is_known in known if is_known]


def _use(result: ResultRecord) -> str:
    is_language_model = result["task"] == "lm"
    command = 'hydromel-generate RUN prompt="..."' if is_language_model else "hydromel-predict RUN --input FILE"
    call = 'generate(["..."])' if is_language_model else 'predict(["..."])'
    return (
        f"```sh\n{command}\n```\n\n"
        f'```python\nfrom runner import api\n\nmodel = api.load("RUN")  # this folder, or its address in MLflow\n'
        f"model.{call}\n```\n\n"
        f"Logged to MLflow, `mlflow.pyfunc.load_model(URI).predict(frame)` and `mlflow models serve` give the same."
    )


def command(config: Mapping[str, object]) -> str:
    """Return the command that trains such a model, of the options that were given; `DATA` stands for `data_dir`."""
    choices, given = config.get("choices"), config.get("given")
    words = []
    for key in map(str, given if isinstance(given, list) else ()):
        if key.partition(".")[0] in _OF_THE_PLACE:
            continue
        is_group = isinstance(choices, Mapping) and key in choices
        value = choices[key] if is_group and isinstance(choices, Mapping) else _at(config, key.split("."))
        if value is not _NOTHING:
            words.append("data_dir=DATA" if key == "data_dir" else f"{key}={written(value)}")
    return printable(shlex.join(["hydromel", *words]).replace("\n", " "))


def _at(node: object, keys: Sequence[str]) -> object:
    """Return the value at nested keys, `_NOTHING` if the command deleted it."""
    for key in keys:
        if not isinstance(node, Mapping) or key not in node:
            return _NOTHING
        node = node[key]
    return node


def _limits(folder: Path, result: ResultRecord, config: Mapping[str, object], figures: Figures) -> list[str]:
    """Return sentences on what the records say against trusting the model."""
    lines = []
    unit, main = result["quality"].get("unit", ""), _name(result)
    if unbeaten := unbeaten_baselines(result):
        named = ", ".join(f"{name} {shown(value, unit)}" for name, value in unbeaten.items())
        lines.append(f"It is not better than the simplest models on test ({main}: {named}).")
    oov = result.get("vocab", {}).get("oov_rate")
    split, _ = _last_split(result)
    if isinstance(oov, Mapping) and isinstance(rates := oov.get(split), Mapping):
        named = ", ".join(
            f"{100 * float(rate):.1f} % ({name})" for name, rate in rates.items() if finite(rate) is not None
        )
        lines.append(f"Unknown in the {split} set: {named} of the tokens; expect more in text of another kind.")
    if (longest := config.get("max_length")) is not None:
        lines.append(f"Rows were cut to {longest} tokens in training (truncate={config.get('truncate')}).")
    counts: dict[str, DataRecord] = result.get("data", {})
    rows = counts[split]["rows"] if split in counts else 0
    tables = parse_tables(figures)
    if (table := tables.get("per_type") or tables.get("per_class")) is not None:
        rare = [str(row["name"]) for row in _by_support(table, folder) if _support(row) < _FEW_TARGETS]
        if rare:
            more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
            lines.append(
                f"Fewer than {_FEW_TARGETS} examples in {split}, so that their figures are uncertain: "
                f"{', '.join(rare[:5])}{more}."
            )
    if (calibration := tables.get("calibration")) is not None and (error := calibration.get("ece")) is not None:
        lines.append(
            f"Its probabilities differ from the share of correct predictions by {error:.1f} % on average (ECE)."
        )
    lines.append(
        f"Its records know no licence: that of {result['dataset']} and of pretrained vectors or models may limit its "
        "use."
    )
    lines.append(
        f"All figures are of one seed ({result['seed']}) and {rows:,} rows of {result['dataset']}; measure again on "
        "text from elsewhere."
    )
    return lines


def _provenance_rows(result: ResultRecord) -> list[tuple[str, str]]:
    provenance = result["provenance"]
    versions = provenance.get("versions", {})
    rows = [
        ("run", result["run_id"]),
        ("code", provenance.get("git_commit") or "no checkout"),
        ("config", provenance.get("config_hash", "")),
        ("data", provenance.get("data_fingerprint", "")[:16]),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    if (source := result.get("init_from")) is not None:
        rows.insert(1, ("started from", f"run {source['run_id']}, after {source['updates']:,} updates"))
    return rows
