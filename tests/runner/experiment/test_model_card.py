"""Every figure of a model card is that of result.json, and its command trains the same model again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from runner.common.records import shown
from runner.config.compose import compose_config
from runner.config.hashes import comparison_hash
from runner.experiment.model_card import command, model_card
from tests.helpers.composed import run_config
from tests.helpers.runs_of_tasks import FILES

Table = list[list[str]]


def tables(card: str) -> dict[str, Table]:
    """The tables of a card by the heading above them, each a list of rows."""
    found: dict[str, Table] = {}
    heading = ""
    for line in card.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not set(line) <= {"|", "-"}:
            cells = [cell.strip().replace("\\", "") for cell in line.strip("|").split("|")]
            found.setdefault(heading, []).append(cells)
    return found


@pytest.mark.parametrize("name", FILES)
def test_figures_are_those_of_the_result(runs_of_tasks: dict[str, Path], name: str) -> None:
    folder = runs_of_tasks[name]
    result, card = json.loads((folder / "result.json").read_text(encoding="utf-8")), model_card(folder)
    assert (folder / "model_card.md").read_text(encoding="utf-8") == card
    of_card, unit, main = tables(card), result["quality"]["unit"], result["quality"]["metric"]

    header, *rows = of_card["Quality"]
    assert header[:2] == ["split", main]
    figures = {"valid": result["metrics"]["valid"], "test": result["metrics"]["test"]}
    figures["majority (baseline, test)"] = result["majority"]
    assert [row[0] for row in rows] == list(figures)
    for split, *cells in rows:
        for figure, cell in zip(header[1:], cells, strict=True):
            value = figures[split].get(figure)
            assert cell == ("—" if value is None else shown(value, unit)), (split, figure)
    assert f"test {main} {shown(result['metrics']['test'][main], unit)}" in card.replace("\\", "")

    _, *rows = of_card["Data"]
    wanted = ("rows", "tokens", "targets")
    assert [row[:4] for row in rows] == [
        [split, *(f"{counts[key]:,}" for key in wanted)] for split, counts in result["data"].items()
    ]
    table = result["metrics"]["test"].get("per_type") or result["metrics"]["test"].get("per_class") or []
    _, *rows = of_card.get("By class", [[]])
    assert {row[0]: row[1:] for row in rows} == {
        row["name"]: [
            "—" if row[key] is None or (key != "precision" and not row["support"]) else f"{row[key]:.2f}"
            for key in ("precision", "recall", "f1")
        ]
        + [f"{row['support']:,}"]
        for row in table
    }
    model = dict(of_card["Model"])
    assert model["parameters"] == f"{result['model']['parameters']:,}"
    assert model["training"].startswith(f"{result['updates']['count']:,} updates, whole epochs: 2")
    assert f"{result['speed']['real_tokens_per_s']:,.0f} real tokens/s" in dict(of_card["Cost"]).get("speed", "")
    provenance = dict(of_card["Provenance"])
    assert (provenance["run"], provenance["config"]) == (result["run_id"], result["provenance"]["config_hash"])
    assert "hydromel-predict RUN --input FILE" in card
    assert f"one seed (1) and {result['data']['test']['rows']:,} rows of {result['dataset']}" in card.replace("\\", "")
    assert "Its records know no licence" in card


def test_the_command_trains_the_same_model() -> None:
    files = ["dataset=csv", "dataset.train=[a.csv,'my file.csv']", "dataset.text_columns={a: premise, b: hypothesis}"]
    options = ["encoder=conv", "encoder.filters=8", "train.clip_norm=null", "task.label_weights={O: 0.3}", "seed=7"]
    given = ["features=[words,chars]", "embedding=word_char", "data_dir=/data", "tracker=jsonl", "runs_dir=/elsewhere"]
    config = run_config("task=tag", *files, *options, *given)
    words = shlex.split(command(config.resolved))
    assert words[0] == "hydromel"
    assert "data_dir=DATA" in words
    assert not [word for word in words if word.startswith(("tracker", "runs_dir"))]
    again = compose_config([word.replace("=DATA", "=/data") for word in words[1:]])
    assert comparison_hash(again.resolved) == comparison_hash(config.resolved)
    assert (again.seed, again.dataset, again.encoder) == (7, config.dataset, config.encoder)


def test_text_of_a_card_is_no_markup(runs_of_tasks: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs_of_tasks["classify"], tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    result["dataset"] = "<script>x</script> | [a](http://b)"
    path.write_text(json.dumps(result), encoding="utf-8")
    card = model_card(tmp_path / "run")
    assert "<script>" not in card
    assert not re.search(r"(?<!\\)\[a\](?!\\)\(", card)
