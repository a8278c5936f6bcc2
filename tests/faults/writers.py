"""Crowds: eight processes that want one folder, one file or one store at once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from runner.common import run_schema
from tests.faults.forked import Child, Ending, Faults, Work
from tests.faults.kills import differences, points_of, reference
from tests.faults.report import Part
from tests.faults.scenarios import SCENARIOS, hydromel, new_run

WRITERS = 8


def writers(count: int, seed: int, folder: Path) -> Part:
    """Let eight processes write at once, `count` times each of several ways."""
    part = Part("crowds of 8")
    scenario = SCENARIOS[2 * (seed % 2)]
    whole = reference(scenario)
    for number in range(count):
        own = folder / f"crowd-{number}"
        own.mkdir(parents=True)
        endings = _at_once([new_run(scenario, own / "run")] * WRITERS)
        faults = _faults(endings) + _one_wins(endings) + differences(whole.folder, own / "run")
        part.add(f"{number} {scenario.name}, runs in one folder", faults)

        endings = _at_once([new_run(scenario, own / f"run{place}") for place in range(WRITERS)])
        faults = _faults(endings) + [("lost points", e.last_line) for e in endings if e.code]
        faults += _all_sent(own / "shared.jsonl", [own / "run", *(own / f"run{place}" for place in range(WRITERS))])
        part.add(f"{number} {scenario.name}, runs with one tracker", faults)

        (own / "shared.jsonl").unlink()
        endings = _at_once([hydromel("sync", str(own), "--again")] * WRITERS)
        faults = _faults(endings) + [("lost points", e.last_line) for e in endings if e.code]
        faults += _all_sent(own / "shared.jsonl", [own / "run", *(own / f"run{place}" for place in range(WRITERS))])
        part.add(f"{number} deliveries of the same runs", faults)

        cut = own / "cut"
        shutil.copytree(own / "run", cut)
        for name in (run_schema.RESULT, "delivered.json"):
            (cut / name).unlink()
        endings = _at_once([hydromel("train", f"resume={cut}")] * WRITERS)
        faults = _faults(endings) + _one_wins(endings) + differences(whole.folder, cut, sent=False)
        part.add(f"{number} {scenario.name}, resumed at once", faults)
    return part


def _at_once(works: Sequence[Work]) -> list[Ending]:
    children = [Child(work) for work in works]
    return [child.ending() for child in children]


def _faults(endings: Sequence[Ending]) -> Faults:
    return [(ending.fault, ending.last_line) for ending in endings if ending.fault]


def _one_wins(endings: Sequence[Ending]) -> Faults:
    """Return a fault unless one of the processes that want the same work did it."""
    return [] if any(ending.code == 0 for ending in endings) else [("lost points", endings[0].last_line)]


def _all_sent(shared: Path, folders: Sequence[Path]) -> Faults:
    """Compare the records of runs with those that a shared file has of them."""
    lines = [json.loads(line) for line in shared.read_text(encoding="utf-8").splitlines()]
    faults: Faults = []
    for folder in folders:
        run_id = json.loads((folder / run_schema.RUN).read_text(encoding="utf-8"))["run_id"]
        sent = points_of(line for line in lines if line["run_id"] == run_id and "metrics" in line)
        own: Counter[str] = points_of(
            json.loads(line) for line in (folder / run_schema.METRICS).read_text().splitlines()
        )
        faults += [("lost points", f"{folder.name}: {key}") for key in list((own - sent).keys())[:1]]
        faults += [("doubled points", f"{folder.name}: {key}") for key in list((sent - own).keys())[:1]]
        statuses = [line["status"] for line in lines if line["run_id"] == run_id and "status" in line]
        faults += [] if statuses.count(run_schema.FINISHED) == 1 else [("doubled points", f"{folder.name}: {statuses}")]
    return faults
