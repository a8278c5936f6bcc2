"""The small campaign survives, and a campaign sees the faults that are planted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.faults import mutate
from tests.faults.report import Part, table

ROOT = Path(__file__).parents[2]
SMALL = {"kills": 12, "files": 150, "configs": 150, "writers": 1, "disk": 4, "servers": 5}
PLANTED = """
import json, os, signal, sys, time
from tests.faults.forked import Tried, call, try_each

works = {
    "0": lambda: print("good"),
    "1": lambda: print("error: bad input") or 1,
    "traceback": lambda: 1 / 0,
    "hang": lambda: time.sleep(100),
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "unreadable": lambda: print("\\x1b[2J"),
    "unreadable 2": lambda: print("x" * 5000),
    "unreadable 3": lambda: sys.exit(1),
    "traceback 2": lambda: len(bytearray(4 * 2**30)),
}
alone = {name: call(work, seconds=2).fault for name, work in works.items()}
cases = [lambda name=name, work=work: Tried(name, work, lambda ending: []) for name, work in works.items()]
together = {title: faults[0][0] if faults else None for title, faults in try_each(cases * 2, seconds=2)}
checked = list(try_each([lambda: Tried("answers", works["0"], lambda ending: [["wrong answers", ending.output]])]))
print(json.dumps([alone, together, checked]))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.long
def test_everything_survives(tmp_path: Path) -> None:
    """Make a fault again with `python -m tests.faults` and the same numbers; `--keep` leaves the folders."""
    sizes = [argument for part, count in SMALL.items() for argument in (f"--{part}", str(count))]
    ended = python("-m", "tests.faults", *sizes, "--seed", "1", "--folder", str(tmp_path))
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    # a damaged path of a tracker may name a folder beside the campaign's own, which alone has references
    assert not list(tmp_path.glob("*/references"))


def test_planted_faults_are_seen() -> None:
    ended = python("-c", PLANTED)
    assert ended.returncode == 0, ended.stderr
    alone, together, checked = json.loads(ended.stdout)
    kinds = ("traceback", "hang", "crash", "unreadable")
    for name, fault in alone.items():
        assert fault == (name.split()[0] if name.startswith(kinds) else None), name
    assert together == alone
    assert checked == [["answers", [["wrong answers", "good\n"]]]]


def test_a_report_counts_cases_and_lists_faults() -> None:
    part = Part("killed runs", counts=Counter({"bit-identical": 1}))
    part.add("first", [])
    part.add("second", [("traceback", "KeyError"), ("leftovers", ".last")])
    lines = table([part]).splitlines()
    cells = dict(zip(*([cell.strip() for cell in line.split("|")] for line in (lines[0], lines[2])), strict=True))
    assert (cells["tried"], cells["survived"], cells["bit-identical"]) == ("2", "1", "1")
    assert (cells["tracebacks"], cells["leftovers"], cells["hangs"]) == ("1", "1", "0")
    assert lines[4:] == ["- killed runs: second: tracebacks: KeyError", "- killed runs: second: leftovers: .last"]


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.jsonl", "a.npz", "a.safetensors", "a.lock"])
def test_damage_is_drawn_by_the_seed_and_is_damage(name: str, tmp_path: Path) -> None:
    content = b'{"a": 1, "b": [2, {"c": null}], "d": "text"}\n'
    changed, seen = 0, []
    for number in range(40):
        states = []
        for copy in range(2):
            path = tmp_path / str(copy) / name
            path.parent.mkdir(exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            how = mutate.file(path, Random(number))
            states.append((how, path.read_bytes() if path.is_file() else None))
        assert states[0] == states[1]
        changed += states[0][1] != content
        seen.append(states[0][0])
    assert changed > 30
    assert len(set(seen)) > 5
