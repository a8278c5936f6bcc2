"""Pooling of runs (turns, options of batching, machines); noise, order in time, and verdicts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import yaml

from reporting.comparison.significance import ComparisonRule, quality_verdict
from reporting.comparison.summary import CompareOptions, RunGroup, StrategySummary, groups
from reporting.runs import find
from reporting.statistics.intervals import Mean
from reporting.views import report, tables

N = 300


def grouped(folder: Path, margin: float = 1.0) -> list[RunGroup]:
    return groups([item.run for item in find.scan(folder) if item.run], CompareOptions(None, 0.95, margin))


def only(folder: Path) -> tuple[RunGroup, dict[str, StrategySummary]]:
    (group,) = grouped(folder)
    return group, {strategy.name: strategy for strategy in group.strategies}


def batching(folder: Path, **options: Any) -> None:
    config = yaml.safe_load((folder / "resolved.yaml").read_text())
    (folder / "resolved.yaml").write_text(yaml.safe_dump({**config, "batching": {**config["batching"], **options}}))


def at_time(folder: Path, created: float) -> None:
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"created": created}))


def outcomes(folder: Path, seed: int, n_right: int) -> None:
    """Write a run with n_right of N examples correct: its outcomes and its accuracy."""
    right = np.zeros(N, dtype=int)
    right[np.random.default_rng(seed).permutation(N)[:n_right]] = 1
    np.savez(
        folder / "outcomes.npz",
        split=np.array(["test"]),
        numerator=100 * right,
        denominator=np.ones(N, dtype=int),
        targets=np.ones(N, dtype=int),
        f=np.array(["identity"]),
    )
    result = json.loads((folder / "result.json").read_text())
    result["quality"]["metric"] = "accuracy"
    result["metrics"]["test"]["accuracy"] = 100 * n_right / N
    (folder / "result.json").write_text(json.dumps(result))


def test_turns_pool_speed_and_quality_is_of_the_first(tmp_path: Path, write_run: Any) -> None:
    speeds = {("padmask", 1): 100.0, ("padmask", 2): 104.0, ("packed", 1): 150.0, ("packed", 2): 149.0}
    for (name, turn), speed in speeds.items():
        change = {"turn": turn, "speed.real_tokens_per_s": speed}
        f1 = 41.5 if (name, turn) == ("packed", 2) else 41.0
        write_run(tmp_path / f"{name}{turn}", name, 1, f1=f1, change=change)
    group, strategies = only(tmp_path)
    packed = strategies["packed"]
    assert (packed.turns, packed.run_ids) == (2, {1: "packed1-id"})
    assert packed.quality == Mean(1, 41.0, None, None)
    assert packed.real_tokens_per_s is not None
    assert (packed.real_tokens_per_s.n, packed.real_tokens_per_s.median) == (2, 149.5)
    assert packed.against_padmask is not None
    ratio = packed.against_padmask.ratio
    assert ratio is not None
    assert (ratio.n, ratio.mean) == (2, pytest.approx(math.sqrt(1.5 * 149 / 104)))
    assert group.noise is not None
    root = math.sqrt((math.log(1.04) ** 2 + math.log(149 / 150) ** 2) / 2)
    assert (group.noise.n, math.log(group.noise.high or 0)) == (2, pytest.approx(scipy.stats.t.ppf(0.975, 2) * root))
    assert any("Noise of the machine" in note for note in group.notes)
    (message,) = [caveat for caveat in group.caveats if "Equal runs" in caveat]
    assert "in 1 case, by up to 0.5 (packed seed 1)" in message


def test_a_ratio_within_the_noise_is_said_to_be_so(tmp_path: Path, write_run: Any) -> None:
    for turn in (1, 2):
        for name, speed in {"padmask": 100.0 + 4 * turn, "packed": 101.0 + 4 * turn, "bucketed": 900.0}.items():
            write_run(tmp_path / f"{name}{turn}", name, 1, change={"turn": turn, "speed.real_tokens_per_s": speed})
    group, _ = only(tmp_path)
    output = [sentence for sentence in group.sentences if "within the noise" in sentence]
    assert len(output) == 1
    assert output[0].startswith("packed is 1.009 times as fast as padmask")


def test_without_turns_it_is_said_how_to_measure_the_noise(sweep: Path) -> None:
    group, strategies = only(sweep)
    assert group.noise is None
    assert strategies["packed"].turns == 1
    assert any("`turn=1,2`" in note for note in group.notes)


def test_other_options_of_one_strategy_are_not_taken_for_equal_runs(tmp_path: Path, write_run: Any) -> None:
    for seed in (1, 2):
        batching(write_run(tmp_path / f"a{seed}", "padmask", seed, f1=40.0), width_multiple=1)
        batching(write_run(tmp_path / f"c{seed}", "unmasked", seed, f1=20.0), width_multiple=1)
    batching(write_run(tmp_path / "b", "padmask", 1, f1=10.0), width_multiple=8)
    batching(write_run(tmp_path / "d", "unmasked", 1, f1=10.0), width_multiple=8)
    group, strategies = only(tmp_path)
    assert list(strategies) == ["padmask", "padmask width_multiple=8", "unmasked", "unmasked width_multiple=8"]
    assert strategies["padmask"].quality_by_seed == {1: 40.0, 2: 40.0}
    assert strategies["padmask width_multiple=8"].quality_by_seed == {1: 10.0}
    assert [strategy.known_wrong for strategy in group.strategies] == [False, False, True, True]
    assert not any("left out" in caveat for caveat in group.caveats)
    assert sum("unmasked is known to be wrong" in sentence for sentence in group.sentences) == 1


def test_batch_sizes_are_compared_each_by_itself(tmp_path: Path, write_run: Any) -> None:
    for size, f1 in {16: 40.0, 128: 30.0}.items():
        for name in ("padmask", "packed"):
            batching(write_run(tmp_path / f"{name}{size}", name, 1, f1=f1), batch_size=size)
    small, large = grouped(tmp_path)
    assert [item.settings for item in (small, large)] == [{"batching.batch_size": "16"}, {"batching.batch_size": "128"}]
    assert [strategy.quality_by_seed for strategy in small.strategies] == [{1: 40.0}] * 2
    assert [strategy.quality_by_seed for strategy in large.strategies] == [{1: 30.0}] * 2


def test_another_batch_size_is_told_of_every_setting(tmp_path: Path, write_run: Any) -> None:
    """Without the batch size, a table of settings would credit its gain to another setting."""
    for name, dropout, size in (("a", 0.4292592188556814, 64), ("b", 0.5, 32)):
        folder = write_run(tmp_path / name, "packed", 1, change={"provenance.comparison_hash": name})
        batching(folder, batch_size=size)
        with (folder / "resolved.yaml").open("a") as file:
            file.write(f"\nencoder:\n  dropout: {dropout}\n")
    other = write_run(tmp_path / "c", "token_budget", 1, change={"provenance.comparison_hash": "b"})
    batching(other, batch_size=None)
    assert sorted(map(tables.settings_text, grouped(tmp_path))) == [
        "batching.batch_size=32, encoder.dropout=0.5",
        "batching.batch_size=64, encoder.dropout=0.429259",
    ]


def test_one_batch_size_a_strategy_stays_one_group(tmp_path: Path, write_run: Any) -> None:
    """A token budget has no batch size."""
    batching(write_run(tmp_path / "a", "padmask", 1), batch_size=32)
    batching(write_run(tmp_path / "b", "token_budget", 1), batch_size=None)
    assert len(grouped(tmp_path)) == 1


def test_times_of_several_machines_are_not_pooled(tmp_path: Path, write_run: Any) -> None:
    """Seed 1 ran on one machine, seed 2 on another, packed's seed 3 on a third: ratios are within a machine."""
    for seed, host in {1: "a", 2: "b", 3: "c"}.items():
        write_run(tmp_path / f"r{seed}", "padmask", seed, change={"provenance.host": host if seed < 3 else "d"})
        write_run(tmp_path / f"p{seed}", "packed", seed, change={"provenance.host": host})
    group, strategies = only(tmp_path)
    packed = strategies["packed"]
    assert packed.real_tokens_per_s is None
    assert packed.peak_memory_bytes is None
    assert packed.seconds_by_phase == {}
    assert packed.seconds_to_target.n == 0
    assert packed.quality is not None
    assert packed.quality.n == 3
    assert packed.against_padmask is not None
    assert packed.against_padmask.ratio is not None
    assert (packed.against_padmask.ratio.n, packed.against_padmask.ratio.mean) == (2, pytest.approx(1.375))
    assert packed.against_padmask.difference is not None
    assert packed.against_padmask.difference.n == 3
    assert "Times and memory are not comparable" in group.caveats[0]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"padmask": (1.0, 3.0), "packed": (2.0, 4.0)}, False),
        ({"padmask": (1.0, 2.0), "packed": (3.0, 4.0)}, True),
        ({"padmask": (3.0, 4.0), "packed": (1.0, 2.0)}, True),
        ({"padmask": (1.0,), "packed": (3.0,)}, False),  # one run each: no order would help
    ],
)
def test_runs_one_strategy_after_another(
    tmp_path: Path, write_run: Any, times: dict[str, tuple[float, ...]], expected: bool
) -> None:
    for name, time in times.items():
        for seed, created in enumerate(time):
            at_time(write_run(tmp_path / f"{name}{seed}", name, seed), created)
    group, _ = only(tmp_path)
    assert any("one after another" in caveat for caveat in group.caveats) is expected


def test_examples_and_seeds_both_decide(tmp_path: Path, write_run: Any) -> None:
    """bucketed is wrong on 30 % more examples in all seeds; packed has the same outcomes; unmasked in three."""
    for seed in (1, 2, 3):
        for name, n_right in {"padmask": 240, "packed": 240, "bucketed": 150, "unmasked": 239}.items():
            outcomes(write_run(tmp_path / f"{name}{seed}", name, seed), seed, n_right + seed)
    group, strategies = only(tmp_path)
    assert (group.comparisons, group.margin) == (3, 1.0)
    verdicts = {name: strategy.against_padmask for name, strategy in strategies.items() if strategy.against_padmask}
    assert {name: verdict.says for name, verdict in verdicts.items()} == {
        "packed": "equal on every example",
        "bucketed": "worse",
        "unmasked": "equivalent within 1.00",
    }
    on_examples = verdicts["bucketed"].on_examples
    assert on_examples is not None
    assert (on_examples.n, on_examples.mean) == (3, pytest.approx(-30.0))
    assert on_examples.low is not None
    assert on_examples.low < -30 < (on_examples.high or 0) < -20
    assert "3 strategies are compared with padmask: each interval against it is at 98.33 %" in group.notes[0]
    assert "2,400 paired resamples" in group.notes[1]


def test_damaged_outcomes_are_told_and_the_rest_is_compared(tmp_path: Path, write_run: Any) -> None:
    for name in ("padmask", "packed"):
        outcomes(write_run(tmp_path / name, name, 1), 1, 200)
    (tmp_path / "packed" / "outcomes.npz").write_bytes(b"PK")
    group, strategies = only(tmp_path)
    assert strategies["packed"].against_padmask is not None
    assert strategies["packed"].against_padmask.on_examples is None
    assert any(
        "left out of the intervals on examples" in caveat and "packed/outcomes.npz" in caveat
        for caveat in group.caveats
    )


def test_many_damaged_outcomes_take_one_line(tmp_path: Path, write_run: Any) -> None:
    for seed in (1, 2, 3):
        for name in ("padmask", "packed"):
            outcomes(write_run(tmp_path / f"{name}{seed}", name, seed), seed, 200)
        (tmp_path / f"packed{seed}" / "outcomes.npz").write_bytes(b"PK")
    group, _ = only(tmp_path)
    (said,) = [caveat for caveat in group.caveats if "left out of the intervals on examples" in caveat]
    assert said.startswith("3 runs are left out of the intervals on examples: ")
    assert "packed1/outcomes.npz" in said
    assert said.endswith("; and 2 more.")


def test_valid_stands_in_where_the_data_has_no_test(tmp_path: Path, write_run: Any) -> None:
    for name in ("padmask", "packed"):
        write_run(tmp_path / name, name, 1, change={"metrics": {"valid": {"f1": 12.0}}})
    group, strategies = only(tmp_path)
    assert (group.split, strategies["packed"].quality_by_seed) == ("valid", {1: 12.0})


def test_tokens_to_target(tmp_path: Path, write_run: Any) -> None:
    folder = write_run(tmp_path / "a", "padmask", 1, valid=[(1.0, 10.0), (2.0, 30.0)])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for at, line in enumerate(lines):
        line["metrics"]["train/tokens"] = 500 * at
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_run(tmp_path / "old", "packed", 1, valid=[(1.0, 10.0), (2.0, 30.0)])
    _, strategies = only(tmp_path)
    assert strategies["padmask"].tokens_to_target.median == 1000
    assert strategies["packed"].tokens_to_target.n == 0  # not recorded, which does not mean "never"


def test_what_auto_chose_is_no_option(tmp_path: Path, write_run: Any) -> None:
    for seed, size in {1: 32, 2: 64}.items():
        folder = write_run(
            tmp_path / f"a{seed}", "auto", seed, change={"advice": {"chosen": "packed", "batch_size": size}}
        )
        batching(folder, batch_size=size)
        batching(write_run(tmp_path / f"p{seed}", "padmask", seed), batch_size=32)
    _, strategies = only(tmp_path)
    assert {name: len(strategy.quality_by_seed) for name, strategy in strategies.items()} == {"padmask": 2, "auto": 2}


def test_records_of_where_time_and_memory_went(tmp_path: Path, write_run: Any) -> None:
    """Times and tokens of updates are summed over runs before they are divided; the peak's batch is the highest's."""
    for seed, peak in {1: 100, 2: 300}.items():
        by_length = [{"longest": 16, "updates": 1, "real_tokens": 30 * seed, "places": 40, "seconds": 0.5}]
        change = {
            "speed.by_length": by_length,
            "seconds": {"data": 1.0 * seed, "total": 9.0},
            "characters": {"real": 60, "padded": 20 * seed},
            "arithmetic": {"share": 0.1 * seed},
            "energy": {"joules_per_thousand_tokens": 2.0},
            "memory": {
                "peak_bytes": peak,
                "peak_batch": {"rows": peak, "width": 2, "tokens": 3},
                "micro_batch": {"asked": None, "used": 8, "halved_at": [0, 0, 4, 9] if seed == 2 else []},
            },
        }
        write_run(tmp_path / f"a{seed}", "padmask", seed, change=change)
    _, strategies = only(tmp_path)
    result = strategies["padmask"]
    assert [(item.longest, item.real_tokens_per_s) for item in result.by_length] == [(16, 90.0)]
    assert result.seconds_by_phase == {"data": 1.5}
    assert result.character_padding == pytest.approx((20 / 80 + 40 / 100) / 2)
    assert result.matrix_share is not None
    assert result.matrix_share.median == pytest.approx(0.15)
    assert result.joules_per_thousand_tokens is not None
    assert result.joules_per_thousand_tokens.n == 2
    assert result.peak_batch == {"rows": 300, "width": 2, "tokens": 3}
    assert result.halved == [
        "padmask seed 2 ran out of memory before training and in updates 4, 9: its micro-batch went from all rows "
        "of an update to 8; the updates stayed the same."
    ]


@pytest.mark.parametrize(
    ("runs_of", "message"),
    [
        ([("padmask", "a"), ("packed", "a")], "Batching strategies compared: night"),
        ([("packed", "a"), ("packed", "b")], "Settings compared: night"),
        ([("packed", "a")], "Runs: night"),
    ],
)
def test_the_title_says_what_is_compared(
    tmp_path: Path, write_run: Any, runs_of: list[tuple[str, str]], message: str
) -> None:
    for name, config in runs_of:
        write_run(tmp_path / f"{name}{config}", name, 1, change={"provenance.comparison_hash": config})
    assert report.title(report.build(["night"], find.scan(tmp_path), CompareOptions(None, 0.95, 1.0))) == message


def mean(low: float | None, high: float | None) -> Mean:
    return Mean(3, ((low or 0) + (high or 0)) / 2, low, high)


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize(
    ("seeds", "examples", "message"),
    [
        (None, None, "undecided"),
        (mean(None, None), None, "undecided"),
        (mean(-0.5, 0.9), None, "equivalent within 1.00"),
        (mean(-0.5, 0.9), mean(-0.5, 1.1), "undecided"),
        (mean(-0.5, 1.0), None, "undecided"),  # the margin itself is not within it
        (mean(0.1, 0.9), None, "BETTER, by less than 1.00"),
        (mean(0.1, 5.0), mean(2.0, 3.0), "BETTER"),
        (mean(0.1, 5.0), mean(-0.1, 3.0), "undecided"),
        (mean(-5.0, -0.1), None, "WORSE"),
        (mean(-0.3, -0.1), None, "WORSE, by less than 1.00"),
        (mean(0.0, 0.0), None, "equal"),
        (mean(0.0, 0.0), mean(-0.2, 0.2), "equivalent within 1.00"),
        (mean(None, None), mean(2.0, 3.0), "BETTER (one seed)"),
        (mean(None, None), mean(-0.2, 0.3), "equivalent within 1.00 (one seed)"),
        (mean(None, None), mean(-2.0, 3.0), "undecided"),
    ],
)
def test_a_verdict_is_what_both_intervals_say(
    seeds: Mean | None, examples: Mean | None, message: str, higher: bool
) -> None:
    words = {"BETTER": "better", "WORSE": "worse"} if higher else {"BETTER": "worse", "WORSE": "better"}
    for word, meant in words.items():
        message = message.replace(word, meant)
    assert quality_verdict(seeds, examples, ComparisonRule(1, 0.95, 1.0, "1.00", higher)) == message


def test_margin_of_perplexity_is_in_percent_of_the_reference(tmp_path: Path, write_run: Any) -> None:
    change = {"quality": {"metric": "perplexity", "unit": "", "higher_is_better": False}}
    for name, value in {"padmask": 200.0, "packed": 201.0}.items():
        for seed in (1, 2, 3):
            result = change | {"metrics.test.perplexity": value + seed}
            write_run(tmp_path / f"{name}{seed}", name, seed, change=result)
    (group,) = grouped(tmp_path, margin=2.0)
    assert group.margin == pytest.approx(0.02 * 202)
    (packed,) = [strategy.against_padmask for strategy in group.strategies if strategy.against_padmask]
    assert packed.says == "worse, by less than 2 %"


def test_margin_of_a_negative_figure_is_a_size(tmp_path: Path, write_run: Any) -> None:
    change = {"quality": {"metric": "r2", "unit": "", "higher_is_better": True}}
    for name, value in {"padmask": -0.5, "packed": -0.501}.items():
        for seed in (1, 2, 3):
            write_run(tmp_path / f"{name}{seed}", name, seed, change=change | {"metrics.test.r2": value})
    (group,) = grouped(tmp_path, margin=2.0)
    assert group.margin == pytest.approx(0.01)
    (packed,) = [strategy.against_padmask for strategy in group.strategies if strategy.against_padmask]
    assert packed.says == "worse, by less than 2 %"
