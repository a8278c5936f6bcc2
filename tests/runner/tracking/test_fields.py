"""What trackers show of a run: the names of its records, and a note of whose names anyone may be the author."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from reporting.runs.measures import SECTIONS
from runner.common.records import RunRecord, parse_result
from runner.common.run_schema import RESOLVED
from runner.config.compose import compose_config
from runner.tracking.fields import MOST_PARAMS, note, params, summary
from tests.helpers.run_folders import result, start

DOCS = Path(__file__).parents[3] / "docs" / "results.md"


def test_a_note_has_no_links_and_no_pages_out_of_names() -> None:
    run: RunRecord = {"run_id": "r", "created": 0.0, "status": "failed", "error": "<b>\x1b[2J [x](y)\n# z"}
    run["tags"] = {"batching": "![p](http://x)", "task": "tag", "dataset": "sst_2 `a`"}
    assert note(run, None) == (
        "**!\\[p\\](http://x)** · tag · sst_2 \\`a\\`\n\nfailed: &lt;b&gt;\ufffd\\[2J \\[x\\](y) # z"
    )


def at(content: Any, path: str) -> Any:
    for key in path.split("."):
        content = content[key]
    return content


def names_in_docs() -> dict[str, str]:
    """Return the table of docs/results.md: a pattern of names in trackers, and the path in result.json."""
    section = DOCS.read_text(encoding="utf-8").partition("## Names in trackers")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", section, re.MULTILINE)
    return dict(rows)


def test_every_figure_has_the_name_that_the_documentation_says(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    record = parse_result(json.dumps(result(run), default=str).replace("Infinity", "null").encode(), "result.json")
    table, seen = names_in_docs(), set()
    for name, value in summary(record).items():
        parts = name.split("/")
        (row,) = [row for row in table if _fits(row, parts)]
        path = table[row].replace("KEY", parts[-1]).replace("METRIC", parts[-1]).replace("NAME", parts[1])
        assert at(record, path) == value, name
        seen.add(row)
        section, key = parts[0], ".".join(parts[1:])
        if section in SECTIONS:  # as hydromel-compare --fail-if names it
            assert path == f"{SECTIONS[section]}.{key}"
    assert seen == table.keys(), "a row that no figure has"


def _fits(row: str, parts: list[str]) -> bool:
    """Return True if a name, in parts, is of a row such as `baselines/NAME/METRIC`: capitals stand for anything."""
    pattern = row.split("/")
    return len(pattern) == len(parts) and all(p.isupper() or p == part for p, part in zip(pattern, parts, strict=True))


def test_params_are_few_and_those_that_tell_runs_apart(tmp_path: Path) -> None:
    given = ["task=tag", "encoder=conv", "encoder.filters=100", "train.epochs=3", "features=[words,casing]", "seed=7"]
    config = compose_config(given).resolved
    (tmp_path / RESOLVED).write_text(yaml.safe_dump(config))
    found = params(tmp_path)
    chosen = {"task": "tag", "encoder": "conv", "batching": "bucketed", "optimizer": "adam", "seed": "7"}
    assert found.items() >= (chosen | {"features": "casing, words", "train.epochs": "3"}).items()
    assert found["encoder.filters"] == "100", "the default, but given: other runs of its sweep may have another"
    assert not {"tracker", "choices.task", "encoder.widths", "train.clip_norm", "sweep.id", "given"} & found.keys()
    assert len(found) < 20
    many = config | {"mine": {str(number): number for number in range(100)}}
    (tmp_path / RESOLVED).write_text(yaml.safe_dump(many))
    assert len(params(tmp_path)) == MOST_PARAMS
