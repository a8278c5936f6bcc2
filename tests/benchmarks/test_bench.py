"""`bench.py`: what is asked wrongly is told at once, a row that fails costs no other, and peers are the same model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.published import DATA

ROOT = Path(__file__).parents[2]
SMALL = ["--rows", "growth", "--sentences", "200", "--threads", "1"]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "HYDROMEL_DATA"}
    environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python(str(ROOT / "benchmarks/bench.py"), *arguments)


def checked(*cases: dict[str, object]) -> list[str]:
    """The messages of `check` for each of these sets of options."""
    defaults = {"rows": None, "device": "cpu", "data": "DATA", "json": None, "plot": None}
    code = f"""
from argparse import Namespace
from pathlib import Path
from bench_options import check
from runner.common.errors import HydromelError
for case in {[defaults | case for case in cases]!r}:
    try:
        check(Namespace(**case), ['crf', 'growth', 'conv'])
        print()
    except HydromelError as mistake:
        print(mistake)
""".replace("PosixPath", "Path")
    return python("-c", code).stdout.splitlines()


def test_mistakes_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    damaged, other = tmp_path / "damaged.json", tmp_path / "other.json"
    damaged.write_text('{"crf": ')
    other.write_text("[1]")
    cases: list[tuple[dict[str, object], str]] = [
        ({"rows": ["tager"], "data": None}, "--rows tager: no such row; use crf, growth, conv"),
        ({"device": "cuda"}, "torch finds no GPU"),
        ({"rows": ["conv"], "data": None}, "data sets are needed"),
        ({"json": damaged}, "damaged.json cannot be read"),
        ({"json": other}, "was not written by bench.py"),
        ({"json": tmp_path}, f"{tmp_path} cannot be written"),
        ({"plot": damaged / "bench.png"}, "cannot be written"),
    ]
    good: list[dict[str, object]] = [{}, {"json": tmp_path / "new/bench.json", "plot": tmp_path / "new.png"}]
    lines = checked(*good, *(case for case, _ in cases))
    assert lines[: len(good)] == ["", ""]
    for (case, message), line in zip(cases, lines[len(good) :], strict=True):
        assert message in line, case


def test_no_rounds() -> None:
    done = bench(*SMALL, "--rounds", "0")
    assert done.returncode == 2
    assert "argument --rounds: 0 is less than 1" in done.stderr


def test_a_row_that_cannot_be_measured_is_left_out_and_the_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text('{"crf": {"circumstances": {}}}')
    done = bench(*SMALL, "--rows", "overhead", "growth", "--data", str(tmp_path / "none"), "--json", str(path))
    assert done.returncode == 1, done.stderr
    assert "overhead is left out: tagger_ewt: dataset=ud_ewt: there is no file" in done.stdout
    assert "Traceback" not in done.stderr
    assert list(json.loads(path.read_text())) == ["crf", "growth"]


@pytest.mark.data
def test_the_example_of_a_language_model_begins_as_ours() -> None:
    code = f"""
from training_ours import Ours, compose
from word_lm_peer import Peer, apart_from
ours = Ours(compose("word_lm", {DATA!r}, "device=cpu"))
peer = Peer(ours.model)
print(apart_from(peer, ours))
peer.rnn.bias_hh_l1.data += 0.1
print(apart_from(peer, ours))
"""
    done = python("-c", code)
    same, other = map(float, done.stdout.split())
    assert same < 1e-5 < 1e-4 < other


def test_an_entrant_that_this_machine_cannot_run_leaves_the_race(tmp_path: Path) -> None:
    script = tmp_path / "race.py"
    script.write_text(
        """
import torch
from contest import compete, stepping
def works():
    return lambda number: (torch.ones(()), 7, 3)
def lacks():
    def step(number):
        raise RuntimeError("could not create a primitive descriptor for the LSTM forward propagation primitive")
    return step
def lacks_early():
    return lacks()(0)
if __name__ == "__main__":
    entrants = {"a": stepping(works), "b": stepping(lacks), "c": stepping(lacks_early)}
    scores, not_run = compete(entrants, "cpu", 1, 0, 2, 1)
    print(list(scores), sorted(not_run), len(scores["a"].turns), "LSTM" in not_run["b"])
"""
    )
    assert python(str(script)).stdout.strip() == "['a'] ['b', 'c'] 2 True"


def test_padding_is_counted_beside_real_tokens() -> None:
    code = """
import torch
from contest import Score, Turn
from training_steps import tokens_of
print(*tokens_of({"words": torch.zeros(2, 5), "lengths": torch.tensor([5, 2])}))
print(*tokens_of({"words": torch.zeros(2, 3), "lengths": torch.tensor([5, 2])}))  # cut to 3
print(Score([Turn(1.0, 1.0, 7, 3, 0.0), Turn(1.0, 1.0, 5, 1, 0.0)], 0.0, 2, {}, "").padding_share())
"""
    assert python("-c", code).stdout.splitlines() == ["7 3", "5 1", "0.25"]


def test_a_word_has_its_target_at_its_first_piece() -> None:
    code = """
from finetuning import labels_of_words
print(*labels_of_words([None, 0, 0, 1, 2, 2, None], [5, 6, 7]))
"""
    assert python("-c", code).stdout.strip() == "-100 5 -100 6 7 -100 -100"
