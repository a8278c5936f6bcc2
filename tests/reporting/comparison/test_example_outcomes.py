"""outcomes.npz: reading, the check against result.json, and the differences of strategies on examples."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from reporting.comparison import example_outcomes
from reporting.runs.run import Run, read
from runner.common.errors import HydromelError

N = 200
NPY = (
    b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }".ljust(117)
    + b"\n"
    + bytes(8)
)
Arrays = dict[str, npt.NDArray[Any]]


def spans(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    gold = np.random.default_rng(0).integers(1, 4, N)
    predicted = rng.integers(0, 4, N)
    right = np.minimum(rng.integers(0, 4, N), np.minimum(gold, predicted))
    return {"numerator": 200 * right, "denominator": predicted + gold, "targets": gold, "f": np.array(["identity"])}


def f1(result: Arrays) -> float:
    return float(result["numerator"].sum() / result["denominator"].sum())


@pytest.fixture
def run_of(tmp_path: Path, write_run: Any) -> Any:
    """Write a run with these arrays as outcomes; its metric in result.json is `value`, or their F1."""

    def make(name: str, result: Arrays, *, value: float | None = None, change: dict[str, Any] | None = None) -> Run:
        folder = write_run(tmp_path / name, "packed", 1, f1=f1(result) if value is None else value, change=change)
        np.savez(folder / "outcomes.npz", **({"split": np.array(["test"])} | result))  # type: ignore[arg-type]
        run = read(folder).run
        assert run is not None
        return run

    return make


def test_read_gives_the_sums_of_each_metric(run_of: Any) -> None:
    result = spans(1)
    actual = example_outcomes.read(run_of("f1", result))
    assert actual is not None
    np.testing.assert_array_equal(actual.sums.numerator, result["numerator"])
    np.testing.assert_array_equal(actual.sums.denominator, result["denominator"])
    np.testing.assert_array_equal(actual.targets, result["targets"])
    nats, tokens = np.linspace(1, 9, N), np.full(N, 3)
    ratio = nats.sum() / tokens.sum()
    for metric, f, value in (("perplexity", "exp", np.exp(ratio)), ("my_own", "identity", ratio)):
        change = {"quality.metric": metric, f"metrics.test.{metric}": float(value)}
        arrays = {"numerator": nats, "denominator": tokens, "targets": tokens, "f": np.array([f])}
        assert example_outcomes.read(run_of(metric, arrays, value=1.0, change=change)) is not None


def test_runs_without_outcomes_have_none(run_of: Any) -> None:
    run = run_of("f1", spans(1))
    (run.folder / "outcomes.npz").unlink()
    assert example_outcomes.read(run) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": None}, "no array 'targets' in it; runs of earlier versions are not compared on examples"),
        ({"targets": np.ones(3)}, "must hold one number per example"),
        ({"numerator": np.array(["a"] * N)}, "must hold one number per example"),
        ({"numerator": np.array([{}] * N)}, "allow_pickle=False"),
        ({"targets": np.full(N, np.nan)}, "must be finite, and denominators not negative"),
        ({"denominator": -np.ones(N)}, "must be finite, and denominators not negative"),
        ({"denominator": np.zeros(N)}, "must be finite, and denominators not negative and not all 0"),
        ({"numerator": np.zeros(N)}, "does not add up to f1 of result.json: 0, not"),
        ({"f": np.array(["log"])}, "f is 'log'; it must be one of identity, exp"),
        ({"split": np.array([])}, "is damaged"),
    ],
)
def test_damage_is_told_in_one_line(run_of: Any, change: Arrays, message: str) -> None:
    result = spans(1)
    changed = {name: value for name, value in (result | change).items() if value is not None}
    with pytest.raises(HydromelError, match=r"outcomes\.npz") as error:
        example_outcomes.read(run_of("bad", changed, value=f1(result)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text", NPY])
def test_a_file_that_is_no_npz(run_of: Any, content: bytes) -> None:
    run = run_of("bad", spans(1))
    (run.folder / "outcomes.npz").write_bytes(content)
    with pytest.raises(HydromelError, match="is damaged"):
        example_outcomes.read(run)


def test_strategies_against_the_reference(run_of: Any) -> None:
    reference = {seed: run_of(f"r{seed}", spans(seed)) for seed in (1, 2)}
    packed = {seed: run_of(f"p{seed}", spans(seed)) for seed in (1, 2, 3)}
    bucketed = {seed: run_of(f"b{seed}", spans(9 + seed)) for seed in (1, 2)}
    actual = example_outcomes.compare({"packed": packed, "bucketed": bucketed}, reference, 0.95)
    assert actual.problems == []
    assert actual.same == {"packed"}
    same, other = actual.differences["packed"], actual.differences["bucketed"]
    assert (same.n, same.mean, same.low, same.high) == (2, 0.0, 0.0, 0.0)
    assert other.mean == pytest.approx(np.mean([f1(spans(9 + seed)) - f1(spans(seed)) for seed in (1, 2)]))
    assert other.low is not None
    assert other.high is not None
    assert other.low < other.mean < other.high


def test_what_cannot_be_compared_is_told_and_left_out(run_of: Any) -> None:
    reference = {1: run_of("r1", spans(1)), 2: run_of("r2", spans(2))}
    shuffled = {name: span[::-1] for name, span in spans(1).items()}
    broken = run_of("b1", spans(1))
    (broken.folder / "outcomes.npz").write_bytes(b"")
    strategies = {"packed": {1: run_of("p1", shuffled), 2: run_of("p2", spans(2))}, "bucketed": {1: broken}}
    actual = example_outcomes.compare(strategies, reference, 0.95)
    assert actual.differences["packed"].n == 1
    assert list(actual.differences) == ["packed"]
    assert len(actual.problems) == 2
    assert "packed and the reference do not have the same test examples" in actual.problems[0]
    assert "b1/outcomes.npz is damaged" in actual.problems[1]


def test_a_handful_of_examples_gives_no_interval(run_of: Any) -> None:
    few = {name: span[: example_outcomes.FEWEST_EXAMPLES - 1] for name, span in spans(1).items()}
    other = {**few, "numerator": np.zeros_like(few["numerator"])}
    actual = example_outcomes.compare({"packed": {1: run_of("p", other)}}, {1: run_of("r", few)}, 0.95)
    assert (actual.differences, actual.same) == ({}, frozenset())


def test_a_seed_without_outcomes_is_told_and_nothing_is_said_of_all_examples(run_of: Any) -> None:
    result = spans(1)
    base = {seed: run_of(f"base{seed}", result) for seed in (1, 2)}
    mine = {seed: run_of(f"mine{seed}", result) for seed in (1, 2)}
    assert example_outcomes.compare({"packed": mine}, base, 0.95).same == {"packed"}
    (mine[2].folder / "outcomes.npz").unlink()
    actual = example_outcomes.compare({"packed": mine}, base, 0.95)
    assert actual.differences["packed"].n == 1
    assert not actual.same
    assert actual.problems == [
        "packed is compared on examples without seed 2: the outcomes of its examples were not recorded."
    ]


def _patched(content: bytes, mark: bytes, offset: int, value: int) -> bytes:
    at = content.index(mark) + offset
    return content[:at] + bytes([value]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: _patched(content, b"PK\x01\x02", 10, 99),  # an unknown compression method
        lambda content: _patched(content, b"PK\x01\x02", 8, 1),  # encrypted
        lambda content: content[:-30],
    ],
)
def test_zip_files_with_other_bytes_are_damaged(run_of: Any, damage: Any) -> None:
    run = run_of("one", spans(1))
    path = run.folder / "outcomes.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(HydromelError, match=r"outcomes\.npz is damaged"):
        example_outcomes.read(run)


def test_an_array_larger_than_any_memory_is_damaged(run_of: Any) -> None:
    run = run_of("one", spans(1))
    huge = NPY.replace(b"(1,), }", b"(99999999999999,), }")[: len(NPY)]
    with zipfile.ZipFile(run.folder / "outcomes.npz", "w") as file:
        for name in ("numerator", "denominator", "targets", "f"):
            file.writestr(f"{name}.npy", huge)
    with pytest.raises(HydromelError, match="is damaged: Unable to allocate"):
        example_outcomes.read(run)
